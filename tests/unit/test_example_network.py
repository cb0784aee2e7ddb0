"""The example that people copy: its models, descriptions, forms and plans. Its story is in tests/acceptance."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic_forms.validators import Choice

from orchestrator import registry
from orchestrator.domain import (
    SUBSCRIPTION_MODEL_REGISTRY,
    ProductModel,
    SubscriptionModel,
    definition,
    describe_product,
)
from orchestrator.engine.usability import IN_USE, INVALID_STATUS, NOT_IN_SYNC, SubscriptionFacts, usability
from orchestrator.errors import FormIncompleteError, InvalidInputError, ModelError
from orchestrator.forms import fill_form
from orchestrator.services import subscriptions as services
from orchestrator.targets import Target
from orchestrator.types import SubscriptionLifecycle
from orchestrator.workflow import StepKind
from orchestrator.workflows import shipped

ACTIVE, PROVISIONING = SubscriptionLifecycle.ACTIVE, SubscriptionLifecycle.PROVISIONING
PRODUCTS = {"node": "Node Cisco", "port": "Port 10G", "core_link": "Core link", "l2vpn": "L2VPN"}
RULES = (services.WF_USABLE_MAP, services.WF_BLOCKED_BY_IN_USE_BY_SUBSCRIPTIONS, services.WF_USABLE_WHILE_OUT_OF_SYNC)
BEFORE_THE_AUTHORS = {
    Target.CREATE: ["Start"],
    Target.MODIFY: ["Start", "Link process to subscription", "Lock subscription"],
    Target.TERMINATE: ["Start", "Link process to subscription", "Lock subscription"],
    Target.VALIDATE: ["Start", "Link process to subscription", "Lock subscription without checking"],
    Target.RECONCILE: ["Start", "Link process to subscription", "Lock subscription without checking"],
    Target.SYSTEM: ["Start"],
}
AFTER_THE_AUTHORS = {
    Target.CREATE: ["Set subscription to 'active'", "Unlock subscription", "Done"],
    Target.MODIFY: ["Unlock subscription", "Done"],
    Target.TERMINATE: ["Set subscription to 'terminated'", "Unlock subscription", "Done"],
    Target.VALIDATE: ["Unlock subscription", "Done"],
    Target.RECONCILE: ["Unlock subscription", "Done"],
    Target.SYSTEM: ["Done"],
}


@pytest.fixture(scope="module", autouse=True)
def _a_program_of_its_own() -> Iterator[None]:
    """The example is another project than those of other tests: what projects register is exchanged while its tests run."""
    held: list[Any] = [definition._families, registry._instances, SUBSCRIPTION_MODEL_REGISTRY, *RULES]
    before = [one.copy() for one in held]
    for one in held:
        one.clear()
    for name in [name for name in sys.modules if name.partition(".network")[0] == "examples"]:
        del sys.modules[name]
    shipped.load_workflows(["examples.network"])
    yield
    for one, content in zip(held, before, strict=True):
        one.clear()
        (one.extend if isinstance(one, list) else one.update)(content)


def example(module: str) -> ModuleType:
    """A module of the example; only once its registrations do not meet those of others."""
    return import_module(f"examples.network.{module}")


def workflow_names() -> list[str]:
    return [name for name in registry.known_workflows() if not registry.ships_with_engine(name)]


def node_block(name: str = "ams-1", owner: UUID | None = None) -> Any:
    return example("products.node").NodeBlock(
        owner_subscription_id=owner or uuid4(),
        node_name=name,
        role="PE",
        management_address="2001:db8::1",
        controller_id=1,
    )


def port_block(node: str = "ams-1", owner: UUID | None = None) -> Any:
    return example("products.port").PortBlock(
        owner_subscription_id=owner or uuid4(),
        port_name="xe-0/0/1",
        enabled=True,
        controller_id=2,
        node=node_block(node),
    )


def attachment(node: str, vlan: int, owner: UUID) -> Any:
    return example("products.l2vpn").AttachmentBlock(owner_subscription_id=owner, vlan=vlan, port=port_block(node))


def subscription(kind: str) -> Any:
    """An active subscription of each kind, as if it had been loaded."""
    key = uuid4()
    blocks: dict[str, Any] = {
        "node": lambda: {"vendor": "Cisco", "node": node_block(owner=key)},
        "port": lambda: {"speed": 10, "port": port_block(owner=key)},
        "core_link": lambda: {
            "core_link": example("products.core_link").CoreLinkBlock(
                owner_subscription_id=key,
                ports=[port_block("ams-1"), port_block("utr-1")],
                ipv6_prefix="2001:db8:1::/127",
                isis_metric=10,
                controller_id=3,
            )
        },
        "l2vpn": lambda: {
            "circuit": example("products.l2vpn").CircuitBlock(
                owner_subscription_id=key,
                attachments=[attachment("ams-1", 100, key), attachment("utr-1", 200, key)],
                controller_id=4,
            )
        },
    }
    return SUBSCRIPTION_MODEL_REGISTRY[PRODUCTS[kind]](
        subscription_id=key,
        product=ProductModel(
            product_id=uuid4(), name=PRODUCTS[kind], description="", product_type="", tag="", status="active"
        ),
        customer_id="Bakery",
        description="",
        status=ACTIVE,
        **blocks[kind](),
    )


def empty(kind: str) -> SubscriptionModel:
    """A new subscription, as a construct step gets it from the database layer."""
    full = subscription(kind)
    base = type(full).__family__.base
    (field,) = base.__shape__.blocks
    block = base.__shape__.blocks[field].classes[0].new(full.subscription_id)
    inputs = {name: getattr(full, name) for name in base.__shape__.values}
    made: SubscriptionModel = base(
        subscription_id=full.subscription_id,
        product=full.product,
        customer_id="Bakery",
        description="",
        **inputs,
        **{field: block},
    )
    return made


# models


def test_every_product_has_a_model_and_every_model_a_product() -> None:
    everything = example("products").EVERYTHING
    assert sorted(SUBSCRIPTION_MODEL_REGISTRY) == sorted(everything)
    kinds = {describe_product(name, SUBSCRIPTION_MODEL_REGISTRY[name]).root_blocks for name in everything}
    assert kinds == {("Node",), ("Port",), ("Core link",), ("Circuit",)}


@pytest.mark.parametrize("kind", PRODUCTS)
def test_a_new_subscription_is_empty_and_cannot_be_provisioned_as_it_is(kind: str) -> None:
    new = empty(kind)
    assert new.status is SubscriptionLifecycle.INITIAL
    with pytest.raises(ModelError, match="cannot become provisioning"):
        SubscriptionModel.from_other_lifecycle(new, PROVISIONING)


@pytest.mark.parametrize("kind", PRODUCTS)
def test_an_active_subscription_lives_through_all_lifecycles(kind: str) -> None:
    active = subscription(kind)
    for status in (PROVISIONING, ACTIVE, SubscriptionLifecycle.TERMINATED):
        active = SubscriptionModel.from_other_lifecycle(active, status)
        assert active.status is status
    assert active.end_date is not None


def test_a_new_port_core_link_and_l2vpn_begin_with_no_block_but_their_own() -> None:
    assert empty("port").port.node is None  # type: ignore[attr-defined]
    assert empty("core_link").core_link.ports == []  # type: ignore[attr-defined]
    assert empty("l2vpn").circuit.attachments == []  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("kind", "root", "field", "count"),
    [
        ("core_link", "core_link", "ports", 1),
        ("core_link", "core_link", "ports", 3),
        ("l2vpn", "circuit", "attachments", 1),
    ],
)
def test_a_core_link_has_two_ends_and_an_l2vpn_two_at_least(kind: str, root: str, field: str, count: int) -> None:
    full = subscription(kind)
    ends = getattr(getattr(full, root), field)
    ends[:] = [*ends, *ends][:count]
    with pytest.raises(ModelError, match=f"{root}.{field}"):
        SubscriptionModel.from_other_lifecycle(full, PROVISIONING)


# what differs from product to product


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("node", "ams-1 (Cisco PE)"),
        ("port", "ams-1 xe-0/0/1 10G"),
        ("core_link", "ams-1 xe-0/0/1 – utr-1 xe-0/0/1"),
        ("l2vpn", "Bakery: ams-1 xe-0/0/1.100, utr-1 xe-0/0/1.200"),
    ],
)
def test_each_product_has_its_description(kind: str, words: str) -> None:
    described = example("workflows.by_product").description
    assert described(subscription(kind)) == words
    assert described(empty(kind)) == PRODUCTS[kind], "before anything is known, the product's name must do"


def test_the_configuration_says_all_that_the_network_must_do() -> None:
    configuration = example("workflows.by_product").configuration
    assert configuration(subscription("node")) == {
        "kind": "node",
        "name": "ams-1",
        "vendor": "Cisco",
        "role": "PE",
        "management_address": "2001:db8::1",
    }
    assert configuration(subscription("port")) == {
        "kind": "port",
        "place": "ams-1 xe-0/0/1",
        "speed": 10,
        "enabled": True,
    }
    assert configuration(subscription("core_link"))["ends"] == ["ams-1 xe-0/0/1", "utr-1 xe-0/0/1"]
    assert configuration(subscription("l2vpn"))["ends"][1] == {"place": "utr-1 xe-0/0/1", "vlan": 200}


@pytest.mark.parametrize("kind", PRODUCTS)
def test_each_product_keeps_its_number_in_its_own_block(kind: str) -> None:
    full = subscription(kind)
    block = example("workflows.by_product").root_block(full)
    assert block.owner_subscription_id == full.subscription_id
    assert isinstance(block.controller_id, int)


@pytest.mark.parametrize("function", ["configuration", "root_block"])
def test_a_product_that_nobody_has_thought_of_is_named(function: str) -> None:
    with pytest.raises(NotImplementedError, match="NodeInactive"):
        getattr(example("workflows.by_product"), function)(empty("node"))


# forms


async def first_page(form: Any, **arguments: object) -> Any:
    with pytest.raises(FormIncompleteError) as caught:
        await fill_form(form, arguments, [], "the form")
    return caught.value.form


async def test_the_form_of_a_node_takes_what_a_node_needs() -> None:
    form = example("workflows.node").create_form
    good = {"customer_id": "NREN", "node_name": "ams-1", "role": "PE", "management_address": "2001:db8::1"}
    filled = await fill_form(form, {"product_name": "Node Cisco"}, [good], "the form")
    assert filled["node_name"] == "ams-1"
    for wrong in ({"node_name": "Amsterdam"}, {"role": "X"}, {"management_address": "10.0.0.1"}):
        with pytest.raises(InvalidInputError, match=next(iter(wrong))):
            await fill_form(form, {"product_name": "Node Cisco"}, [{**good, **wrong}], "the form")


@pytest.mark.parametrize(
    ("module", "kind", "fields"),
    [
        ("node", "node", {"management_address": "2001:db8::1"}),
        ("port", "port", {"enabled": True}),
        ("core_link", "core_link", {"isis_metric": 10}),
        ("l2vpn", "l2vpn", {"vlan_1": 100, "vlan_2": 200}),
    ],
)
async def test_a_form_that_changes_something_begins_with_what_there_is(
    module: str, kind: str, fields: dict[str, object]
) -> None:
    page = await first_page(example(f"workflows.{module}").modify_form, subscription=subscription(kind))
    schema = page["properties"]
    assert {name: one["default"] for name, one in schema.items()} == fields


@pytest.mark.parametrize(
    ("module", "page", "words"),
    [
        ("core_link", {"port_a": "1", "port_b": "1", "ipv6_prefix": "2001:db8::/127"}, "two different ports"),
        ("l2vpn", {"attachments": [{"port": "1", "vlan": 5}, {"port": "1", "vlan": 5}]}, "the same VLAN"),
        ("l2vpn", {"attachments": [{"port": "1", "vlan": 5}]}, "at least 2"),
        ("l2vpn", {"attachments": [{"port": "1", "vlan": 5}, {"port": "1", "vlan": 1}]}, "vlan"),
        ("l2vpn", {"attachments": [{"port": "1", "vlan": 5}, {"port": "3", "vlan": 5}]}, "port"),
    ],
)
async def test_ends_that_make_no_sense_are_refused(
    module: str, page: dict[str, object], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def choice(*_: object, **__: object) -> object:
        return Choice.__call__("SubscriptionChoice", {"1": ("1", "ams-1 xe-0/0/1"), "2": ("2", "utr-1 xe-0/0/1")})

    monkeypatch.setattr(example(f"workflows.{module}"), "subscription_choice", choice)
    form = example(f"workflows.{module}").create_form
    with pytest.raises(InvalidInputError, match=words):
        await fill_form(form, {"session": None, "product_name": ""}, [{"customer_id": "Bakery", **page}], "the form")


async def test_the_vlans_come_back_in_the_order_of_the_ends() -> None:
    form, full = example("workflows.l2vpn").modify_form, subscription("l2vpn")
    filled = await fill_form(form, {"subscription": full}, [{"vlan_2": 300}], "the form")
    assert filled == {"vlans": [100, 300]}
    changed = await example("workflows.l2vpn").change_vlans.function(subscription=full, **filled)
    assert [one.vlan for one in changed["subscription"].circuit.attachments] == [100, 300]


async def test_whoever_accepts_an_installation_is_shown_which_and_by_whom() -> None:
    described = subscription("node")
    described.description = "ams-1 (Cisco PE)"
    accept = example("workflows.provisioning").accept
    page = await first_page(accept.form, subscription=described, installed_by="Ada")
    assert page["properties"]["accepted_by"]["title"] == ("Who accepts ams-1 (Cisco PE), installed by Ada?")


# workflows


def test_each_product_can_be_created_changed_validated_reconciled_and_terminated() -> None:
    for one in example("products").EVERYTHING:
        names = [name for name in workflow_names() if one in registry.products_of(name)]
        targets = [registry.plan_of(name).workflow.target for name in names]
        for target in (Target.CREATE, Target.VALIDATE, Target.TERMINATE, Target.RECONCILE):
            assert targets.count(target) == 1, f"{one} has {targets.count(target)} {target} workflows"
        assert targets.count(Target.MODIFY) >= 2, one


def test_every_workflow_can_be_laid_out_and_has_the_steps_of_its_type_around_the_authors() -> None:
    names = workflow_names()
    assert len(names) == 20
    for name in names:
        plan = registry.plan_of(name)
        target, steps = plan.workflow.target, [leaf.step.name for leaf in plan.leaves]
        before, after = BEFORE_THE_AUTHORS[target], AFTER_THE_AUTHORS[target]
        assert steps[: len(before)] == before, name
        assert steps[-len(after) :] == after, name
        assert len(steps) > len(before) + len(after), f"{name} does nothing of its own"
        assert plan.workflow.is_task is (target in {Target.VALIDATE, Target.SYSTEM}), name


def test_nodes_and_fibres_are_provisioned_with_a_visit_and_the_rest_without() -> None:
    kinds = {
        name: {leaf.step.kind for leaf in registry.plan_of(name).leaves}
        for name in workflow_names()
        if registry.plan_of(name).workflow.target is Target.CREATE
    }
    visited = {name for name, found in kinds.items() if {StepKind.AWAIT, StepKind.INPUT} <= found}
    assert visited == {"create_node", "create_core_link"}


def test_the_projects_rules_say_what_its_workflows_may() -> None:
    subscription_id, other = uuid4(), uuid4()

    def keys(name: str, **facts: Any) -> list[str]:
        seen = SubscriptionFacts(subscription_id, uuid4(), **{"status": "active", "insync": True, **facts})
        workflow = registry.plan_of(name).workflow
        judged = usability(name, workflow.target, workflow.is_task, seen, services.rules())
        return [reason.key for reason in judged.reasons]

    assert keys("change_port_speed", unterminated_users=(other,)) == [IN_USE]
    assert keys("modify_port", unterminated_users=(other,)) == []
    assert keys("modify_description", insync=False) == []
    assert keys("modify_node", insync=False) == [NOT_IN_SYNC]
    assert keys("modify_description", status="provisioning", insync=False) == []
    assert keys("modify_port", status="provisioning") == [INVALID_STATUS]
    assert keys("reconcile_service", insync=False) == []
    assert keys("terminate_node", unterminated_users=(other,)) == [IN_USE]


# what people read


def test_the_readme_names_every_file_and_no_other() -> None:
    folder = Path(__file__).resolve().parents[2] / "examples" / "network"
    named = set(re.findall(r"`([\w/]+\.py)`", (folder / "README.md").read_text()))
    written = {str(path.relative_to(folder)) for path in folder.rglob("*.py")} - {"__init__.py"}
    elsewhere = {name for name in named if (folder.parents[1] / name).exists()}
    assert named - elsewhere == written
