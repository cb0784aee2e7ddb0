"""What is found when the class of a model is made: its fields, its family, and what the database must know of it."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from ipaddress import IPv4Address
from typing import Annotated, Any, Literal, TypeVar
from uuid import UUID

import pytest
from annotated_types import Len
from pydantic import BaseModel, Field
from typing_extensions import TypeAliasType

from orchestrator.db.subscriptions import StoredProduct
from orchestrator.domain import SUBSCRIPTION_MODEL_REGISTRY, ProductBlockModel, SubscriptionModel, describe_product
from orchestrator.domain.definition import SubscriptionModelRegistry
from orchestrator.domain.fixed_inputs import explain_mismatch, read_fixed_inputs
from orchestrator.domain.schema import BlockDefinition, FixedInputDefinition
from orchestrator.errors import DefinitionError
from orchestrator.types import SubscriptionLifecycle
from tests.unit.models import (
    FibreBlock,
    FibreBlockInactive,
    Link,
    LinkInactive,
    Node,
    NodeBlock,
    NodeBlockInactive,
    NodeBlockProvisioning,
    NodeProvisioning,
    PortBlock,
    PortBlockInactive,
)

ACTIVE, PROVISIONING = SubscriptionLifecycle.ACTIVE, SubscriptionLifecycle.PROVISIONING
Element = TypeVar("Element")
Pair = Annotated[list[Element], Len(2, 2)]
Named = TypeAliasType("Named", list[PortBlockInactive])


@pytest.fixture
def registry() -> Iterator[SubscriptionModelRegistry]:
    """The registry, as it was afterwards."""
    before = dict(SUBSCRIPTION_MODEL_REGISTRY)
    yield SUBSCRIPTION_MODEL_REGISTRY
    SUBSCRIPTION_MODEL_REGISTRY.clear()
    SUBSCRIPTION_MODEL_REGISTRY.update(before)


def test_each_lifecycle_has_its_class_and_the_base_has_the_rest() -> None:
    family = NodeBlock.__family__

    assert {status: family.class_for(status) for status in SubscriptionLifecycle} == {
        **dict.fromkeys(SubscriptionLifecycle, NodeBlockInactive),
        PROVISIONING: NodeBlockProvisioning,
        ACTIVE: NodeBlock,
    }


def test_fields_are_values_or_blocks() -> None:
    shape = Link.__shape__

    assert shape.values == ("speed",)
    assert {name: (one.classes, one.many, one.optional, one.minimum) for name, one in shape.blocks.items()} == {
        "ports": ((PortBlock,), True, False, 2),
        "way": ((PortBlock, FibreBlock), False, True, 0),
    }


def test_computed_fields_are_not_stored() -> None:
    assert "title" not in NodeBlock.__shape__.values


def test_a_list_of_blocks_may_be_written_with_an_alias_or_a_field() -> None:
    class AliasInactive(SubscriptionModel, is_base=True):
        pair: Pair[PortBlockInactive]
        named: Named
        some: list[PortBlockInactive | FibreBlockInactive]
        least: list[PortBlockInactive] = Field(min_length=3)

    blocks = AliasInactive.__shape__.blocks
    assert {name: (one.many, one.minimum) for name, one in blocks.items()} == {
        "pair": (True, 2),
        "named": (True, 0),
        "some": (True, 0),
        "least": (True, 3),
    }


def test_a_block_may_hold_blocks_of_its_own_kind() -> None:
    class NestedInactive(ProductBlockModel, product_block_name="Nested"):
        folders: list[NestedInactive]

    assert NestedInactive.__shape__.blocks["folders"].classes == (NestedInactive,)


def test_a_value_may_be_of_any_type_that_pydantic_writes_as_json() -> None:
    class Place(BaseModel):
        street: str

    class ManyInactive(ProductBlockModel, product_block_name="Many"):
        address: IPv4Address | None = None
        place: Place | None = None
        rates: dict[str, list[float]] = Field(default_factory=dict)
        key: Annotated[UUID, "annotated"] | None = None
        needs_no_default: int | None
        anything: Any

    assert set(ManyInactive.__shape__.values) == {"address", "place", "rates", "key", "needs_no_default", "anything"}
    made = ManyInactive.new(UUID(int=1))
    assert (made.needs_no_default, made.anything) == (None, None)


def test_what_was_refused_claims_nothing() -> None:
    with pytest.raises(DefinitionError):

        class More(NodeBlock, lifecycle=["migrating"]):
            rack: str

    class Right(NodeBlock, lifecycle=["disabled"]):
        pass

    assert NodeBlock.__family__.class_for("migrating") is NodeBlockInactive
    assert NodeBlock.__family__.class_for("disabled") is Right
    NodeBlock.__family__.forget(Right)


def test_a_class_that_is_made_again_by_importing_its_module_again_is_the_same() -> None:
    def define() -> type[ProductBlockModel]:
        class AgainInactive(ProductBlockModel, product_block_name="Again"):
            pass

        class Again(AgainInactive, lifecycle=[ACTIVE]):
            pass

        return Again

    define()
    last = define()

    assert last.__family__.class_for(ACTIVE) is last


def test_a_product_has_one_model(registry: SubscriptionModelRegistry) -> None:
    registry.update({"Node P": NodeProvisioning})  # another class of the same model

    with pytest.raises(DefinitionError, match=r"'Node P'.* is NodeProvisioning already, and cannot be Link as well"):
        registry["Node P"] = Link


@pytest.mark.parametrize("value", [int, NodeBlock, SubscriptionModel, "Node", None])
def test_only_models_of_subscriptions_are_registered(registry: SubscriptionModelRegistry, value: Any) -> None:
    for put in (
        lambda: registry.update({"New": value}),
        lambda: registry.update(New=value),
        lambda: registry.setdefault("New", value),
        lambda: registry.__setitem__("New", value),
        lambda: registry.__ior__({"New": value}),
    ):
        with pytest.raises(DefinitionError, match=r"SUBSCRIPTION_MODEL_REGISTRY\['New'\] is .*SubscriptionModel"):
            put()
    assert "New" not in registry


def test_a_definition_names_everything_that_the_database_must_know() -> None:
    found = describe_product("Link", Link)

    assert (found.name, found.base, found.root_blocks) == ("Link", LinkInactive, ("Fibre", "Port"))
    assert found.fixed_inputs == {"speed": FixedInputDefinition(("1000", "10000"), None)}
    assert found.blocks == {
        "Fibre": BlockDefinition(FibreBlockInactive, ("colour",), ("Port",)),
        "Node": BlockDefinition(NodeBlockInactive, ("ims_id", "node_name", "tags"), ()),
        "Port": BlockDefinition(PortBlockInactive, ("speed", "vlan"), ("Node",)),
    }
    assert describe_product("Link", LinkInactive) == found
    assert describe_product("Node P", Node).fixed_inputs["role"].values == ("P", "PE")


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


def test_a_fixed_input_is_described_as_the_text_that_it_is_read_from() -> None:
    class FixedInactive(SubscriptionModel, is_base=True):
        colour: Colour | None = Colour.RED
        speed: Literal[1, 10] | None
        word: Literal["a"] | Colour = "a"
        free: int | Literal["auto"] = 7
        address: IPv4Address = IPv4Address("10.0.0.1")
        redundant: bool = True
        nothing: int | None = None

    found = describe_product("Fixed", FixedInactive).fixed_inputs
    assert found == {
        "colour": FixedInputDefinition(("red", "blue"), "red"),
        "speed": FixedInputDefinition(("1", "10"), None),
        "word": FixedInputDefinition(("a", "red", "blue"), "a"),
        "free": FixedInputDefinition(None, "7"),
        "address": FixedInputDefinition(None, "10.0.0.1"),
        "redundant": FixedInputDefinition(None, "True"),
        "nothing": FixedInputDefinition(None, None),
    }
    texts = {name: one.default or "10" for name, one in found.items()}
    for name, text in texts.items():
        assert explain_mismatch(FixedInactive.model_fields[name], text) is None
    made = FixedInactive.model_validate(
        {
            "product": {
                **dict.fromkeys(["name", "description", "product_type", "tag", "status"], ""),
                "product_id": UUID(int=1),
            },
            "customer_id": "",
            "description": "",
            **read_fixed_inputs(FixedInactive, StoredProduct({"name": "F"}, texts)),
        }
    )
    assert (made.colour, made.speed, made.free, made.redundant) == (Colour.RED, 10, 7, True)
    assert made.address == IPv4Address("10.0.0.1")


def test_why_a_text_cannot_be_a_fixed_input_is_explained() -> None:
    class LimitedInactive(SubscriptionModel, is_base=True):
        speed: Annotated[int, Field(le=10)]
        colour: Colour

    assert "less than or equal to 10" in (explain_mismatch(LimitedInactive.model_fields["speed"], "11") or "")
    assert "'red' or 'blue'" in (explain_mismatch(LimitedInactive.model_fields["colour"], "green") or "")


def test_a_later_class_may_take_less_and_the_end_less_than_the_base() -> None:
    class NarrowBase(SubscriptionModel, is_base=True):
        mon: NodeBlockInactive | FibreBlockInactive | None = None
        some: list[NodeBlockInactive]

    class Narrow(NarrowBase, lifecycle=[ACTIVE, SubscriptionLifecycle.TERMINATED]):
        mon: FibreBlockInactive  # of the base in every lifecycle but active
        some: Annotated[list[NodeBlockInactive], Len(1, 2)]

    assert Narrow.__shape__.blocks["some"].maximum == 2


def test_fields_may_be_shared_by_a_plain_class_beside() -> None:
    class Common(BaseModel):
        site: str | None = None

    class SharingInactive(Common, ProductBlockModel, product_block_name="Sharing"):
        rack: str | None = None

    assert set(SharingInactive.__shape__.values) == {"site", "rack"}
    assert SharingInactive.new(UUID(int=1), site="ams").site == "ams"


@pytest.mark.parametrize("name", ["", "  lead", "trail ", "a\x00b", "two\nlines", 5])
def test_a_name_of_a_block_that_no_migration_could_register_is_refused_in_the_class(name: Any) -> None:
    with pytest.raises(DefinitionError, match="Misnamed: product_block_name must be text that can be printed"):
        type("Misnamed", (ProductBlockModel,), {"__module__": __name__}, product_block_name=name)
