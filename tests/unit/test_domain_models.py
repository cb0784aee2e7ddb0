"""Models without a database: new ones, changed ones, and those of another lifecycle."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from orchestrator.db.subscriptions import StoredProduct
from orchestrator.domain import ProductBlockModel, SubscriptionModel, flat
from orchestrator.domain.fixed_inputs import read_fixed_inputs
from orchestrator.domain.model import DomainModel
from orchestrator.domain.rows import build_block_row
from orchestrator.errors import ModelError
from orchestrator.types import SubscriptionLifecycle
from tests.unit.models import (
    FibreBlockInactive,
    Link,
    LinkInactive,
    Node,
    NodeBlock,
    NodeBlockInactive,
    NodeInactive,
    NodeProvisioning,
    PortBlock,
    PortBlockInactive,
    Role,
)
from tests.unit.new_models import folders_of, new_link, new_node, prepare, product, saved

ACTIVE, INITIAL = SubscriptionLifecycle.ACTIVE, SubscriptionLifecycle.INITIAL
PROVISIONING, TERMINATED = SubscriptionLifecycle.PROVISIONING, SubscriptionLifecycle.TERMINATED


class Endpoint(BaseModel):
    host: str = ""


class TlsEndpoint(Endpoint):
    certificate: str = ""


def test_a_new_block_is_empty_and_belongs_to_its_subscription() -> None:
    owner = uuid4()

    block = PortBlockInactive.new(owner, vlan=3)

    assert (block.owner_subscription_id, block.vlan, block.speed, block.node) == (owner, 3, 1000, None)
    assert (block.name, block.product_block_name) == ("Port", "Port")
    assert block.subscription_instance_id != PortBlockInactive.new(owner).subscription_instance_id


def test_a_new_block_that_lacks_something_is_refused_with_its_name() -> None:
    with pytest.raises(
        ModelError, match="a new NodeBlock cannot be made: node_name: Field required; ims_id: Field req"
    ):
        NodeBlock.new(uuid4())


def test_a_wrong_value_is_refused_when_it_is_assigned() -> None:
    node = new_node()

    with pytest.raises(ValidationError, match="ims_id"):
        node.node.ims_id = "many"  # type: ignore[assignment]
    with pytest.raises(ValidationError, match="node"):
        node.node = PortBlockInactive.new(node.subscription_id)  # type: ignore[assignment]
    with pytest.raises(ValidationError, match="rack"):
        node.node.rack = 7  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("status", "from_other_lifecycle"),
        ("product", "from_other_product"),
        ("version", "saving increments it"),
        ("insync", "only steps that take or release the lock change it"),
        ("subscription_id", "it never changes"),
        ("role", "fixed input, whose value belongs to the product 'Node P'"),
    ],
)
def test_what_has_its_own_way_to_change_cannot_be_assigned(name: str, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        setattr(new_node(), name, None)


def test_a_block_keeps_its_owner() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        new_node().node.owner_subscription_id = uuid4()


def test_a_date_needs_its_zone() -> None:
    with pytest.raises(ValidationError, match="timezone"):
        new_node().end_date = datetime(2026, 1, 1)  # noqa: DTZ001


def test_the_next_lifecycle_is_the_same_subscription_of_another_class() -> None:
    made = new_node()

    node = Node.from_other_lifecycle(made, ACTIVE)

    assert type(node) is Node
    assert type(node.node) is NodeBlock
    assert node.subscription_id == made.subscription_id
    assert node.node.subscription_instance_id == made.node.subscription_instance_id
    assert (node.node.node_name, node.node.ims_id, node.role, node.status) == ("ams", 7, Role.P, ACTIVE)
    assert (made.status, type(made.node)) == (INITIAL, NodeBlockInactive)


def test_all_that_is_missing_for_a_lifecycle_is_reported_at_once() -> None:
    link = new_link()
    link.ports[0].vlan = None
    link.way = FibreBlockInactive.new(link.subscription_id, ends=[PortBlockInactive.new(link.subscription_id)])

    with pytest.raises(ModelError) as raised:
        Link.from_other_lifecycle(link, ACTIVE)

    text = str(raised.value)
    assert f"the subscription {link.subscription_id} cannot become active as Link: " in text
    for path in ("ports.0.vlan", "ports.0.node", "ports.1.node", "way.colour", "way.ends.0.vlan", "way.ends.0.node"):
        assert f"{path}: Field required" in text
    assert "ports.1.vlan" not in text
    assert "ports: " not in text, "what is wrong is reported where it is, and not once more above"


class RackBlockInactive(ProductBlockModel, product_block_name="Rack of its own lifecycle"):
    height: int | None = None


class RackBlock(RackBlockInactive, lifecycle=[ACTIVE]):
    height: int


class RackInactive(SubscriptionModel, is_base=True):
    rack: RackBlockInactive


class Rack(RackInactive, lifecycle=[ACTIVE]):
    """Inherits the field as it is."""


def test_a_block_is_of_the_class_of_its_own_lifecycle_also_where_a_wider_one_is_named() -> None:
    """And what it lacks is reported with that class: the field does not name it."""
    key = uuid4()
    made = RackInactive(
        subscription_id=key,
        product=product("Rack"),
        customer_id="c",
        description="",
        rack=RackBlockInactive.new(key),
    )
    with pytest.raises(
        ModelError, match=r"cannot become active as Rack: rack\.height: Field required \(in RackBlock\)"
    ):
        Rack.from_other_lifecycle(made, ACTIVE)
    made.rack.height = 42
    assert type(Rack.from_other_lifecycle(made, ACTIVE).rack) is RackBlock


def test_a_lifecycle_is_asked_of_the_class_that_serves_it() -> None:
    with pytest.raises(
        ModelError, match=r"initial is NodeInactive, not NodeProvisioning: write NodeInactive\.from_other"
    ):
        NodeProvisioning.from_other_lifecycle(new_node(), INITIAL)
    with pytest.raises(ModelError, match=r"is Node, not Link: write Node\.from_other_lifecycle"):
        Link.from_other_lifecycle(new_node(), ACTIVE)
    assert type(SubscriptionModel.from_other_lifecycle(new_node(), ACTIVE)) is Node


def test_the_dates_of_a_life_are_set_once() -> None:
    made = new_node()
    before = datetime.now(UTC)

    node = Node.from_other_lifecycle(made, ACTIVE)
    back = Node.from_other_lifecycle(SubscriptionModel.from_other_lifecycle(node, PROVISIONING), ACTIVE)
    end = NodeInactive.from_other_lifecycle(node, TERMINATED)

    assert node.start_date is not None
    assert before <= node.start_date <= datetime.now(UTC)
    assert (made.start_date, node.end_date) == (None, None)
    assert back.start_date == end.start_date == node.start_date
    assert end.end_date is not None


def test_the_end_of_a_life_is_taken_back_with_it() -> None:
    node = Node.from_other_lifecycle(new_node(), ACTIVE)
    end = NodeInactive.from_other_lifecycle(node, TERMINATED)

    assert SubscriptionModel.from_other_lifecycle(end, TERMINATED).end_date == end.end_date
    assert Node.from_other_lifecycle(end, ACTIVE).end_date is None

    node.end_date = planned = datetime(2099, 1, 1, tzinfo=UTC)
    assert SubscriptionModel.from_other_lifecycle(node, PROVISIONING).end_date == planned
    assert NodeInactive.from_other_lifecycle(node, TERMINATED).end_date != planned


class MetricBlockInactive(ProductBlockModel, product_block_name="Metric"):
    metric: int | None = None
    end: Endpoint | None = None


class MetricBlock(MetricBlockInactive, lifecycle=[ACTIVE]):
    metric: int | None = 100


class MetricInactive(SubscriptionModel, is_base=True):
    block: MetricBlockInactive
    other: MetricBlockInactive | None = None


class Metric(MetricInactive, lifecycle=[ACTIVE]):
    block: MetricBlock
    other: MetricBlock | None = None


def new_metric() -> MetricInactive:
    key = uuid4()
    block = MetricBlockInactive.new(key)
    return MetricInactive(subscription_id=key, product=product("Metric"), customer_id="c", description="", block=block)


def test_none_stays_none_in_a_lifecycle_with_another_default() -> None:
    made = new_metric()

    metric = Metric.from_other_lifecycle(made, ACTIVE)

    assert metric.block.metric is None
    assert build_block_row(metric.block).values == build_block_row(made.block).values == {"metric": None}
    assert MetricBlock.new(made.subscription_id).metric == 100


def test_an_unchanged_block_of_another_subscription_can_be_saved_with_its_user() -> None:
    """Made anew as another class, it may say the same in another way."""
    owner, made = new_metric(), new_metric()
    saved(owner)
    made.other = owner.block

    metric = Metric.from_other_lifecycle(made, ACTIVE)
    assert type(metric.other) is MetricBlock
    prepare(metric)

    owner.block.metric = 7
    with pytest.raises(ModelError, match=f"was changed, but it belongs to the subscription {owner.subscription_id}"):
        prepare(Metric.from_other_lifecycle(made, ACTIVE))


def test_what_would_not_come_back_is_not_lost_on_the_way_to_another_lifecycle() -> None:
    made = new_metric()
    made.block.end = TlsEndpoint(certificate="x")

    metric = Metric.from_other_lifecycle(made, ACTIVE)

    assert metric.block.end == made.block.end
    assert metric.block.end is not made.block.end
    with pytest.raises(ModelError, match=r"MetricBlock.end would be Endpoint"):
        prepare(metric)


def test_blocks_of_another_subscription_stay_the_objects_they_are() -> None:
    node = Node.from_other_lifecycle(new_node(), ACTIVE)
    saved(node)
    made = new_link()
    for port in made.ports:
        port.node = node.node

    link = Link.from_other_lifecycle(made, ACTIVE)

    assert all(port.node is node.node for port in link.ports)


def test_a_fixed_input_is_read_as_its_type() -> None:
    stored = StoredProduct({"name": "X"}, {"speed": "10000", "role": "PE", "unknown": "x"})

    assert read_fixed_inputs(LinkInactive, stored) == {"speed": 10000}
    assert read_fixed_inputs(NodeInactive, stored) == {"role": Role.PE}
    with pytest.raises(ModelError, match="the product 'X' has no fixed input 'role', which NodeInactive requires"):
        read_fixed_inputs(NodeInactive, StoredProduct({"name": "X"}, {}))


def test_models_are_equal_if_they_say_the_same_whatever_they_remember() -> None:
    node = new_node()
    copy = node.model_copy(deep=True)
    saved(copy)
    copy.__dict__["version"] = 0

    assert copy == node
    copy.node.ims_id = 99
    assert copy != node
    assert node != "node"


def test_the_state_holds_references() -> None:
    node = new_node()

    assert node.reference() == {
        "subscription_id": str(node.subscription_id),
        "product": "Node P",
        "description": "a node",
        "status": "initial",
        "version": 0,
    }
    assert node.node.reference() == {
        "subscription_instance_id": str(node.node.subscription_instance_id),
        "owner_subscription_id": str(node.subscription_id),
        "name": "Node",
    }
    for model in (node, node.node):
        assert type(model).reference_key in model.reference()


@given(st.data())
def test_any_tree_is_the_same_after_it_was_made_anew_from_what_would_be_stored(data: st.DataObject) -> None:
    folders = folders_of(data)

    again = SubscriptionModel.from_other_lifecycle(folders, folders.status)

    assert again == folders
    assert flat(again) == flat(folders)


def test_the_engines_own_classes_have_no_fields_of_authors() -> None:
    for cls in (DomainModel, ProductBlockModel, SubscriptionModel):
        assert (cls.__shape__.values, dict(cls.__shape__.blocks)) == ((), {})


def test_a_list_of_ports_in_a_link_is_of_the_ports_own_class() -> None:
    assert [type(port) for port in new_link().ports] == [PortBlockInactive, PortBlockInactive]
    assert Link.__shape__.blocks["ports"].classes == (PortBlock,)
