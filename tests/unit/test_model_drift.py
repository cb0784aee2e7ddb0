"""B23: what subscriptions have that changed models cannot load, and what the command that writes migrations spares. Pure."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import model_validator

from orchestrator.db.registration.catalogue import Catalogue, CatalogueBlock, CatalogueProduct
from orchestrator.db.registration.usage import FilledField, Kind, Usage
from orchestrator.domain import ProductBlockModel, SubscriptionModel, describe_product
from orchestrator.services.model_catalogue import build_catalogue, plan_catalogue
from orchestrator.services.model_drift import find_drift
from orchestrator.types import SubscriptionLifecycle
from tests.unit.models import Link, Node

ACTIVE, INITIAL, TERMINATED = "active", "initial", "terminated"
DEFINITIONS = [describe_product("Node P", Node), describe_product("Node PE", Node), describe_product("Link", Link)]
STORED = Catalogue(
    {name: CatalogueProduct(name, "T", blocks=frozenset({"Node"})) for name in ("Node P", "Node PE", "Link")},
    {"Node": CatalogueBlock("Node", resource_types=frozenset({"ims_id", "node_name", "tags"}))},
)
NODES, LINKS = Kind("Node P", is_product=True), Kind("Link", is_product=True)
PORTS, FIBRES = Kind("Port"), Kind("Fibre")


def why(*, stored: Catalogue = STORED, dropped: Any = (), **usage: Any) -> list[str]:
    return [str(one) for one in find_drift(DEFINITIONS, stored, Usage(**usage), dropped)]


def filled(holder: Kind, field: str, *kinds: str, length: int = 1, count: int = 1, status: str = ACTIVE) -> FilledField:
    return FilledField(holder, status, field, frozenset(kinds), length, count)


def test_where_the_models_fit_nothing_is_reported() -> None:
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


def test_a_field_that_the_code_lacks_is_reported_with_its_helpers() -> None:
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
            "the field ends of Link: the code has no such field, but blocks stand there: Port (4):"
            " rename_block_field(op.get_bind(), 'ends', '…', products=['Link'])"
            " or drop_block_field(op.get_bind(), 'ends', products=['Link'], values='drop')"
        ),
        (
            "the field router of Port: the code has no such field, but blocks stand there: Node (2):"
            " rename_block_field(op.get_bind(), 'router', '…', block='Port')"
            " or drop_block_field(op.get_bind(), 'router', block='Port', values='drop')"
        ),
    ], "that Link has too few ports may be because they stand in the other field"


def test_products_of_one_model_are_reported_together() -> None:
    (found,) = why(
        fields=[filled(Kind(name, is_product=True), "main", "Port", count=2) for name in ("Node P", "Node PE")]
    )
    assert found.startswith("the field main of Node P, Node PE: ")
    assert "Port (4): " in found
    assert "products=['Node P', 'Node PE']" in found


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
    out, fill = (
        "a workflow that takes the others out while the code still has room for them",
        "a workflow that fills it while the field may be empty in the code",
    )
    assert found == [
        f"the field ports of Link: Link takes 2, but there are more (2): {out}",
        f"the field ports of Link: Link needs 2, but there are fewer (1): {fill}",
        f"the field ports of Link: LinkInactive needs 2, but there are fewer (1): {fill}",
        f"the field way of Link: Link takes 1, but there are more (4): {out}",
        f"the field node of Port: PortBlock needs 1, but there are fewer (1): {fill}",
    ]


def test_blocks_of_a_kind_that_a_field_does_not_take() -> None:
    (found,) = find_drift(DEFINITIONS, STORED, Usage(fields=[filled(LINKS, "way", "Node", "Port", length=1, count=3)]))
    assert str(found) == (
        "the field way of Link: the code expects Fibre or Port, but blocks Node stand there (3):"
        " rename_product_block(op.get_bind(), 'Node', '…') or a workflow that takes them out while the code still knows them"
    )
    assert found.helpers == {"rename_product_block"}


def test_values_that_the_code_lacks_and_values_that_it_needs() -> None:
    found = why(
        totals={PORTS: {INITIAL: 5, ACTIVE: 5}, Kind("Node"): {"provisioning": 1}},
        values={"Port": {"vlan": {ACTIVE: 3}, "colour": {ACTIVE: 1, INITIAL: 1}, "age": {ACTIVE: 1}}},
        fields=[filled(PORTS, "node", "Node", count=5)],
        dropped={("Port", "age")},
    )
    assert found == [
        (
            "the resource type node_name of Node: NodeBlockProvisioning needs a value, but there is none (1):"
            " fill_values(op.get_bind(), 'Node', {'node_name': …})"
        ),
        (
            "the resource type colour of Port: the code has no such value, but subscriptions hold some (2):"
            " rename_resource_type(op.get_bind(), 'colour', '…', block='Port') or --drop-values"
        ),
        (
            "the resource type vlan of Port: PortBlock needs a value, but there is none (2):"
            " fill_values(op.get_bind(), 'Port', {'vlan': …})"
        ),
    ]


def test_a_product_without_a_model_is_reported_until_its_last_subscription_has_ended() -> None:
    gone = Kind("Old", is_product=True)
    stored = Catalogue({**STORED.products, "Old": CatalogueProduct("Old", "T")}, STORED.blocks)
    (found,) = why(stored=stored, totals={gone: {ACTIVE: 2, TERMINATED: 5}})
    assert found == (
        "the product Old: the code has no model for it, but subscriptions of it have not ended (2):"
        " rename_product(op.get_bind(), 'Old', '…') or put the model back until the last has ended, and"
        " retire_product(op.get_bind(), 'Old')"
    )
    assert why(stored=stored, totals={gone: {TERMINATED: 5}}) == []


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
    usage = Usage({Kind("Completed"): {ACTIVE: 3}})
    assert find_drift([describe_product("Completed", Completed)], Catalogue(), usage) == []


# what is spared


def spared(stored: Catalogue, *, drop_values: bool = False, **usage: Any) -> tuple[Catalogue, list[str]]:
    given = {("Node P", "role"): "P", ("Node PE", "role"): "PE", ("Link", "speed"): "1000"}
    wanted, problems = build_catalogue(DEFINITIONS, stored, given)
    assert problems == []
    plan = plan_catalogue(stored, wanted, Usage(**usage), drop_values=drop_values)
    return plan.catalogue, plan.left_out


def test_what_stands_in_fields_stays_in_the_catalogue() -> None:
    """Also where the code has no such field any more: subscriptions have it."""
    old = {name: CatalogueBlock(name) for name in ("Rack", "Shelf", "Slot", "Bay")}
    stored = Catalogue(
        {"Node P": CatalogueProduct("Node P", "Node", blocks=frozenset({"Rack", "Bay"}))},
        {**old, "Node": CatalogueBlock("Node", depends_on=frozenset({"Shelf", "Slot"}))},
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
    stored = Catalogue({"Node P": CatalogueProduct("Node P", "Node", retired=retired, for_good=for_good)})
    found = spared(stored)[0].products["Node P"]
    assert (found.retired, found.for_good) == after


@pytest.mark.parametrize(
    ("retired", "for_good", "after"), [(False, True, False), (True, False, False), (True, True, True)]
)
def test_what_the_code_lacks_is_retired_until_it_is_back(retired: bool, for_good: bool, after: bool) -> None:
    stored = Catalogue({"Old": CatalogueProduct("Old", "T", retired=retired, for_good=for_good)})
    found = spared(stored, totals={Kind("Old", is_product=True): {TERMINATED: 1}})[0].products["Old"]
    assert (found.retired, found.for_good) == (True, after)
    assert "Old" not in spared(stored)[0].products
