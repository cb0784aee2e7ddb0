"""B23: what subscriptions have that changed models cannot load, and what the command that writes migrations spares. Pure."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import model_validator

from orchestrator.cli.domain_models import coded_catalogue, sparing
from orchestrator.db.registration.catalogue import Block, Catalogue, Product
from orchestrator.db.registration.usage import Filled, Holdings, Kind
from orchestrator.domain import ProductBlockModel, SubscriptionModel, describe_product
from orchestrator.services.model_drift import unloadable
from orchestrator.types import SubscriptionLifecycle
from tests.unit.models import Link, Node

ACTIVE, INITIAL, TERMINATED = "active", "initial", "terminated"
DEFINITIONS = [describe_product("Node P", Node), describe_product("Node PE", Node), describe_product("Link", Link)]
STORED = Catalogue(
    {name: Product(name, "T", blocks=frozenset({"Node"})) for name in ("Node P", "Node PE", "Link")},
    {"Node": Block("Node", resource_types=frozenset({"ims_id", "node_name", "tags"}))},
)
NODES, LINKS = Kind("Node P", is_product=True), Kind("Link", is_product=True)
PORTS, FIBRES = Kind("Port"), Kind("Fibre")


def why(*, stored: Catalogue = STORED, dropped: Any = (), **holdings: Any) -> list[str]:
    return [str(one) for one in unloadable(DEFINITIONS, stored, Holdings(**holdings), dropped)]


def filled(holder: Kind, field: str, *kinds: str, length: int = 1, count: int = 1, status: str = ACTIVE) -> Filled:
    return Filled(holder, status, field, frozenset(kinds), length, count)


def test_where_the_models_fit_nothing_is_told() -> None:
    found = why(
        totals={LINKS: {ACTIVE: 2}, PORTS: {ACTIVE: 4}, Kind("Node"): {ACTIVE: 1, INITIAL: 1}},
        values={"Port": {"vlan": {ACTIVE: 4}}, "Node": {"node_name": {ACTIVE: 1}, "ims_id": {ACTIVE: 1}}},
        fields=[
            filled(LINKS, "ports", "Port", length=2, count=2),
            filled(LINKS, "way", "Fibre"),
            filled(LINKS, "way", "Port"),
            filled(PORTS, "node", "Node", count=4),
            filled(FIBRES, "ends", "Port", length=17),
        ],
    )
    assert found == []


def test_a_field_that_the_code_lacks_is_told_with_what_to_write_and_nothing_is_guessed() -> None:
    found = why(
        totals={LINKS: {ACTIVE: 4}, PORTS: {INITIAL: 3}},
        fields=[
            filled(PORTS, "router", "Node", count=2, status=INITIAL),
            filled(LINKS, "ends", "Port", length=2, count=3),
            filled(LINKS, "ends", "Port", length=1, count=1, status=TERMINATED),
        ],
    )
    assert found == [
        (
            "the field ends of Link: the code has no such field of blocks, but blocks stand there (Port; in 4). If it only got"
            " another name (perhaps ports or way): rename_block_field(op.get_bind(), 'ends', '…',"
            " products=['Link']). To delete the"
            " blocks: drop_block_field(op.get_bind(), 'ends', products=['Link'], values='drop')"
        ),
        (
            "the field router of Port: the code has no such field of blocks, but blocks stand there (Node; in"
            " 2). If it only got"
            " another name: rename_block_field(op.get_bind(), 'router', 'node', block='Port'). To"
            " delete the blocks:"
            " drop_block_field(op.get_bind(), 'router', block='Port', values='drop')"
        ),
    ]


def test_products_of_one_model_are_told_together() -> None:
    (told,) = why(
        fields=[filled(Kind(name, is_product=True), "main", "Port", count=2) for name in ("Node P", "Node PE")]
    )
    assert "the field main of Node P, Node PE: " in told
    assert "(Port; in 4). To delete the blocks: " in told, "no field of the code takes a Port, so it has no new name"
    assert "products=['Node P', 'Node PE']" in told


def test_more_or_fewer_blocks_than_a_class_of_the_code_takes() -> None:
    found = why(
        totals={LINKS: {INITIAL: 1, ACTIVE: 8}, PORTS: {INITIAL: 5, ACTIVE: 5}},
        values={"Port": {"vlan": {ACTIVE: 5}}},
        fields=[
            filled(LINKS, "ports", "Port", length=2, count=5),
            filled(LINKS, "ports", "Port", length=3, count=2),
            filled(LINKS, "ports", "Port", length=1, count=1),
            filled(LINKS, "way", "Port", length=2, count=4),
            filled(PORTS, "node", "Node", count=4),
        ],
    )
    assert found == [
        (
            "the field ports of Link: Link takes 2, but there are more (in 2): let a workflow take the others"
            " out while the code still"
            " has room for them"
        ),
        (
            "the field way of Link: Link takes 1, but there are more (in 4): let a workflow take the others out"
            " while the code still"
            " has room for them"
        ),
        (
            "the field ports of Link: Link needs 2, but there are fewer (in 1): let the field be empty in the"
            " code until a workflow"
            " has filled it"
        ),
        (
            "the field ports of Link: LinkInactive needs 2, but there are fewer (in 1): let the field be empty"
            " in the code until a"
            " workflow has filled it"
        ),
        (
            "the field node of Port: PortBlock needs 1, but there are fewer (in 1): let the field be empty in"
            " the code until a workflow"
            " has filled it"
        ),
    ]


def test_blocks_of_a_kind_that_a_field_does_not_take() -> None:
    assert why(fields=[filled(LINKS, "way", "Node", "Port", length=1, count=3)]) == [
        (
            "the field way of Link: blocks Node stand there (in 3), where the code expects Fibre or Port. If the"
            " block only got another"
            " name (perhaps Fibre or Port): rename_product_block(op.get_bind(), 'Node', '…'). Else let a workflow take"
            " them out while the code still knows them"
        )
    ]


def test_values_that_the_code_lacks_and_values_that_it_needs() -> None:
    found = why(
        totals={PORTS: {INITIAL: 5, ACTIVE: 5}, Kind("Node"): {"provisioning": 1}},
        values={"Port": {"vlan": {ACTIVE: 3}, "colour": {ACTIVE: 1, INITIAL: 1}, "age": {ACTIVE: 1}}},
        fields=[filled(PORTS, "node", "Node", count=5)],
        dropped={("Port", "age")},
    )
    assert found == [
        (
            "the resource type node_name of Node: NodeBlockProvisioning needs a value, but there is none (in 1):"
            " fill_values(op.get_bind(), 'Node', {'node_name': …})"
        ),
        (
            "the resource type colour of Port: the code has no such value, but subscriptions hold some (2); it"
            " is left as it is. If it"
            " only got another name: rename_resource_type(op.get_bind(), 'colour', 'speed', block='Port')."
            " --drop-values deletes the values"
        ),
        (
            "the resource type vlan of Port: PortBlock needs a value, but there is none (in 2):"
            " fill_values(op.get_bind(), 'Port',"
            " {'vlan': …})"
        ),
    ]


def test_a_product_without_a_model_is_told_until_its_last_subscription_has_ended() -> None:
    gone = Kind("Old", is_product=True)
    stored = Catalogue({**STORED.products, "Old": Product("Old", "T")}, STORED.blocks)
    (told,) = why(stored=stored, totals={gone: {ACTIVE: 2, TERMINATED: 5}})
    assert told == (
        "the product Old: the code has no model for it, but subscriptions of it have not ended (2), and"
        " without one none of them"
        " can be changed or terminated: keep the model in SUBSCRIPTION_MODEL_REGISTRY until the last has ended, and write"
        " retire_product(op.get_bind(), 'Old'), so that there are no new ones"
    )
    renamed = Catalogue(
        {"Old": Product("Old", "T"), "Link": STORED.products["Link"], "Node P": STORED.products["Node P"]}
    )
    (told,) = why(stored=renamed, totals={gone: {ACTIVE: 2}})
    assert told.endswith("no new ones. If it only got another name: rename_product(op.get_bind(), 'Old', 'Node PE')")
    assert why(stored=stored, totals={gone: {TERMINATED: 5}}) == []


def test_a_value_that_only_one_block_loses_is_renamed_there_and_only_if_it_can_have_a_new_name() -> None:
    """Others have the old name in the code, and would lose it."""
    stored = Catalogue({}, {"Node": Block("Node", resource_types=frozenset({"name", "ims_id", "tags"}))})
    values = {"Node": {"name": {ACTIVE: 2}, "ims_id": {ACTIVE: 1}}}
    (told,) = why(stored=stored, values=values)
    assert (
        "If it only got another name: rename_resource_type(op.get_bind(), 'name', 'node_name', block='Node')." in told
    )
    (told,) = why(values=values)
    assert "(perhaps node_name or tags)" in told, "both are registered, and empty"
    (told,) = why(values={"Node": values["Node"] | {"node_name": {ACTIVE: 2}, "tags": {ACTIVE: 2}}})
    assert told.endswith("subscriptions hold some (2); it is left as it is. --drop-values deletes the values")


def test_what_may_be_a_new_name_is_told_with_the_lines_that_its_call_replaces() -> None:
    stored = Catalogue(STORED.products, {**STORED.blocks, "Fibre": Block("Fibre")})
    (found,) = unloadable(DEFINITIONS, stored, Holdings(fields=[filled(LINKS, "way", "Node")]))
    assert found.helpers == {"rename_product_block"}
    (swap,) = found.swaps
    assert swap == (
        "if Port is only the new name of Node: write rename_product_block(op.get_bind(), 'Node', 'Port') in place of all lines"
        " of upgrade() that name one of the two, and the way back in place of those of downgrade()"
    )
    both = Catalogue(STORED.products, {**stored.blocks, "Port": Block("Port")})
    (found,) = unloadable(DEFINITIONS, both, Holdings(fields=[filled(LINKS, "way", "Node")]))
    assert (found.calls, found.swaps) == ((), ())
    assert str(found).endswith("expects Fibre or Port. Let a workflow take them out while the code still knows them")


class CompletedBlock(ProductBlockModel, product_block_name="Completed"):
    size: int | None = None
    other: Any = None


class CompletedActive(CompletedBlock, lifecycle=[SubscriptionLifecycle.ACTIVE]):
    size: int

    @model_validator(mode="before")
    @classmethod
    def complete(cls, values: dict[str, Any]) -> dict[str, Any]:
        return {"size": 1, **values}


class Completed(SubscriptionModel, is_base=True):
    block: CompletedBlock


def test_a_class_that_completes_itself_lacks_nothing() -> None:
    holdings = Holdings({Kind("Completed"): {ACTIVE: 3}})
    assert unloadable([describe_product("Completed", Completed)], Catalogue(), holdings) == []


# what is spared


def spared(stored: Catalogue, *, drop_values: bool = False, **holdings: Any) -> tuple[Catalogue, list[str]]:
    given = {("Node P", "role"): "P", ("Node PE", "role"): "PE", ("Link", "speed"): "1000"}
    plan = sparing(stored, coded_catalogue(DEFINITIONS, stored, given), Holdings(**holdings), drop_values=drop_values)
    return plan.catalogue, plan.left_out


def test_what_stands_in_fields_stays_in_the_catalogue() -> None:
    """Also where the code has no such field any more: subscriptions have it."""
    old = {name: Block(name) for name in ("Rack", "Shelf", "Slot", "Bay")}
    stored = Catalogue(
        {"Node P": Product("Node P", "Node", blocks=frozenset({"Rack", "Bay"}))},
        {**old, "Node": Block("Node", depends_on=frozenset({"Shelf", "Slot"}))},
    )
    after, left_out = spared(
        stored,
        totals={Kind("Rack"): {ACTIVE: 1}, Kind("Shelf"): {ACTIVE: 2}},
        fields=[filled(NODES, "rack", "Rack"), filled(Kind("Node"), "shelf", "Shelf", count=2)],
    )
    assert after.products["Node P"].blocks == {"Node", "Rack"}
    assert after.blocks["Node"].depends_on == {"Shelf"}
    assert after.blocks.keys() == {"Node", "Port", "Fibre", "Rack", "Shelf"}
    assert left_out == [
        "the product block Rack: subscriptions have 1, terminated ones included",
        "the product block Shelf: subscriptions have 2, terminated ones included",
    ]


@pytest.mark.parametrize(
    ("retired", "for_good", "after"),
    [(False, True, (False, True)), (True, False, (False, True)), (True, True, (True, True))],
)
def test_what_the_code_has_again_is_reinstated_and_what_people_have_retired_is_not(
    retired: bool, for_good: bool, after: tuple[bool, bool]
) -> None:
    stored = Catalogue({"Node P": Product("Node P", "Node", retired=retired, for_good=for_good)})
    found = spared(stored)[0].products["Node P"]
    assert (found.retired, found.for_good) == after


@pytest.mark.parametrize(
    ("retired", "for_good", "after"), [(False, True, False), (True, False, False), (True, True, True)]
)
def test_what_the_code_lacks_is_retired_until_it_is_back(retired: bool, for_good: bool, after: bool) -> None:
    stored = Catalogue({"Old": Product("Old", "T", retired=retired, for_good=for_good)})
    found = spared(stored, totals={Kind("Old", is_product=True): {TERMINATED: 1}})[0].products["Old"]
    assert (found.retired, found.for_good) == (True, after)
    assert "Old" not in spared(stored)[0].products
