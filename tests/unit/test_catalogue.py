"""B23: what a written migration calls, and in which order: the way from one catalogue to another, and back."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.db.registration.autogenerate import (
    Call,
    Linked,
    diff_catalogues,
    diff_workflows,
    refuse_second_workflows,
    render_revision,
)
from orchestrator.db.registration.catalogue import Catalogue, CatalogueBlock, CatalogueProduct
from orchestrator.db.workflows import Registration
from orchestrator.errors import ConfigurationError

EMPTY = Catalogue()
PORT = CatalogueBlock("Port", resource_types=frozenset({"speed"}))
NODE = CatalogueBlock("Node", "A router", "NODE", frozenset({"name", "ims_id"}), frozenset({"Port"}))
PRODUCT = CatalogueProduct(
    "Node P", "Node", "A router", "NODE", {"role": "P"}, frozenset({"Node"}), frozenset({"create_node"})
)
FULL = Catalogue({"Node P": PRODUCT}, {"Node": NODE, "Port": PORT})


def told(calls: list[Call]) -> list[tuple[object, ...]]:
    """Calls with the name of what they are about."""
    return [(call.function, *(call.arguments or (call.options["name"],))) for call in calls]


def test_new_things_come_in_the_order_in_which_they_need_each_other() -> None:
    calls = diff_catalogues(EMPTY, FULL)

    assert told(calls) == [
        ("register_product_block", "Port"),
        ("register_product_block", "Node"),
        ("register_product", "Node P"),
    ]
    assert calls[1].options == {
        "name": "Node",
        "description": "A router",
        "tag": "NODE",
        "resource_types": ["ims_id", "name"],
        "depends_on": ["Port"],
    }
    assert calls[2].options == {
        "name": "Node P",
        "product_type": "Node",
        "description": "A router",
        "tag": "NODE",
        "fixed_inputs": {"role": "P"},
        "product_blocks": ["Node"],
        "workflows": ["create_node"],
    }


def test_the_way_back_goes_the_other_way_round() -> None:
    assert told(diff_catalogues(FULL, EMPTY)) == [
        ("remove_product", "Node P"),
        ("remove_product_block", "Node"),
        ("remove_product_block", "Port"),
    ]


def test_where_nothing_is_different_nothing_is_called() -> None:
    assert diff_catalogues(FULL, FULL) == []


def test_what_people_have_written_about_things_is_left_alone() -> None:
    other = Catalogue(
        {"Node P": replace(PRODUCT, product_type="Router", description="Mine", tag="MINE", workflows=frozenset())},
        {"Node": replace(NODE, description="Mine", tag="MINE"), "Port": PORT},
    )

    assert diff_catalogues(FULL, other) == []


def test_blocks_that_refer_to_each_other_in_a_circle_are_made_and_removed() -> None:
    one, other = CatalogueBlock("A", depends_on=frozenset({"A", "B"})), CatalogueBlock("B", depends_on=frozenset({"A"}))
    circle = Catalogue({}, {"A": one, "B": other})

    made, removed = diff_catalogues(EMPTY, circle), diff_catalogues(circle, EMPTY)

    assert told(made) == [
        ("register_product_block", "B"),
        ("register_product_block", "A"),
        ("add_block_relations", "B", ["A"]),
    ]
    assert made[1].options["depends_on"] == ["A", "B"]
    assert told(removed) == [
        ("remove_block_relations", "B", ["A"]),
        ("remove_product_block", "A"),
        ("remove_product_block", "B"),
    ]


def test_changes_of_what_exists_are_the_least_that_is_needed() -> None:
    after = Catalogue(
        {"Node P": replace(PRODUCT, fixed_inputs={"speed": "10"}, blocks=frozenset({"Port"}), retired=True)},
        {
            "Node": replace(NODE, resource_types=frozenset({"name", "site"}), depends_on=frozenset({"Node"})),
            "Port": PORT,
        },
    )

    assert told(diff_catalogues(FULL, after)) == [
        ("add_resource_types", "Node", ["site"]),
        ("add_block_relations", "Node", ["Node"]),
        ("add_product_blocks", "Node P", ["Port"]),
        ("remove_product_blocks", "Node P", ["Node"]),
        ("set_fixed_inputs", "Node P", {"speed": "10"}),
        ("remove_fixed_inputs", "Node P", ["role"]),
        ("retire_product", "Node P"),
        ("remove_block_relations", "Node", ["Port"]),
        ("remove_resource_types", "Node", ["ims_id"]),
    ]
    assert ("reinstate_product", "Node P") in told(diff_catalogues(after, FULL))


def test_what_is_retired_because_the_code_lacks_it_is_distinguished_from_what_people_have_retired() -> None:
    decided = Catalogue({"Node P": replace(PRODUCT, retired=True)}, FULL.blocks)
    lacking = Catalogue({"Node P": replace(PRODUCT, retired=True, for_good=False)}, FULL.blocks)

    (call,) = diff_catalogues(FULL, lacking)

    assert call.render() == "retire_product(\n        op.get_bind(),\n        'Node P',\n        for_good=False,\n    )"
    assert diff_catalogues(lacking, FULL) == [Call("reinstate_product", ("Node P",))]
    assert diff_catalogues(lacking, decided) == [Call("retire_product", ("Node P",))]


def test_values_are_dropped_where_that_was_asked_for_only() -> None:
    after = Catalogue(FULL.products, {"Node": replace(NODE, resource_types=frozenset()), "Port": PORT})

    calls = diff_catalogues(FULL, after, {("Node", "ims_id"), ("Port", "name")})

    assert [call.render() for call in calls] == [
        "remove_resource_types(op.get_bind(), 'Node', ['name'])",
        "remove_resource_types(\n        op.get_bind(),\n        'Node',\n        ['ims_id'],\n        values='drop',\n    )",
    ]


def test_a_resource_type_that_no_block_holds_any_more_goes_by_itself_and_one_that_none_ever_held_is_removed() -> None:
    idle = replace(FULL, idle_types={"comment": "What people say"})

    assert told(diff_catalogues(idle, FULL)) == [("remove_resource_type", "comment")]
    assert told(diff_catalogues(FULL, idle)) == [("register_resource_type", "comment", "What people say")]
    used = Catalogue(
        FULL.products, {"Node": NODE, "Port": replace(PORT, resource_types=frozenset({"speed", "comment"}))}
    )
    assert told(diff_catalogues(idle, used)) == [("add_resource_types", "Port", ["comment"])]


def test_the_code_of_a_revision_is_python_that_imports_what_it_calls() -> None:
    upgrades, downgrades, imports = render_revision(diff_catalogues(EMPTY, FULL), diff_catalogues(FULL, EMPTY))

    tree = ast.parse(f"{imports}\ndef upgrade():\n    {upgrades}\ndef downgrade():\n    {downgrades}\n")

    (imported,) = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert {alias.name for alias in imported.names} == called
    assert render_revision([], []) == ("", "", "")


NAMES = st.sampled_from(["A", "B", "C", "D"])
BLOCKS = st.dictionaries(
    NAMES, st.tuples(st.frozensets(st.sampled_from(["x", "y", "z"])), st.frozensets(NAMES)), max_size=4
)


@st.composite
def catalogues(draw: st.DrawFn) -> Catalogue:
    """Any catalogue whose blocks refer to blocks that there are."""
    blocks = {
        name: CatalogueBlock(name, resource_types=types, depends_on=others)
        for name, (types, others) in draw(BLOCKS).items()
    }
    blocks = {name: replace(one, depends_on=one.depends_on & frozenset(blocks)) for name, one in blocks.items()}
    products = draw(
        st.dictionaries(
            st.sampled_from(["P", "Q", "R"]),
            st.tuples(
                st.dictionaries(st.sampled_from(["role", "speed"]), st.sampled_from(["1", "2"])),
                st.frozensets(NAMES),
                st.sampled_from([(False, True), (True, True), (True, False)]),
            ),
        )
    )
    held = {one for block in blocks.values() for one in block.resource_types}
    idle = {name: "" for name in draw(st.frozensets(st.sampled_from(["x", "y", "w"]))) if name not in held}
    return Catalogue(
        {
            name: CatalogueProduct(
                name, "T", fixed_inputs=inputs, blocks=used & frozenset(blocks), retired=retired, for_good=for_good
            )
            for name, (inputs, used, (retired, for_good)) in products.items()
        },
        blocks,
        idle,
    )


class Pretended:
    """The database as a dict, with the rules that the real functions keep: what is missing or in use is a ``KeyError``."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.products = dict(catalogue.products)
        self.blocks = dict(catalogue.blocks)
        self.types = set(catalogue.idle_types) | {t for one in self.blocks.values() for t in one.resource_types}

    def catalogue(self) -> Catalogue:
        held = {one for block in self.blocks.values() for one in block.resource_types}
        return Catalogue(self.products, self.blocks, dict.fromkeys(self.types - held, ""))

    def call(self, call: Call) -> None:
        getattr(self, call.function)(*call.arguments, **call.options)

    def _need(self, names: list[str]) -> frozenset[str]:
        return frozenset(self.blocks[name].name for name in names)

    def _block(self, name: str, **changes: Any) -> None:
        self.blocks[name] = replace(self.blocks[name], **changes)

    def _product(self, name: str, **changes: Any) -> None:
        self.products[name] = replace(self.products[name], **changes)

    def _forget(self, types: frozenset[str]) -> None:
        self.types -= {one for one in types if not any(one in block.resource_types for block in self.blocks.values())}

    def register_product_block(
        self,
        name: str,
        description: str,
        tag: str,
        resource_types: list[str],
        depends_on: list[str] = [],  # noqa: B006
    ) -> None:
        if name in self.blocks:
            raise KeyError(name)
        self.blocks[name] = CatalogueBlock(name, description, tag)
        self.add_resource_types(name, resource_types)
        self.add_block_relations(name, depends_on)

    def add_resource_types(self, block: str, names: list[str]) -> None:
        self._block(block, resource_types=self.blocks[block].resource_types | frozenset(names))
        self.types |= set(names)

    def remove_resource_types(self, block: str, names: list[str]) -> None:
        if not frozenset(names) <= self.blocks[block].resource_types:
            raise KeyError(names)
        self._block(block, resource_types=self.blocks[block].resource_types - frozenset(names))
        self._forget(frozenset(names))

    def add_block_relations(self, block: str, names: list[str]) -> None:
        self._block(block, depends_on=self.blocks[block].depends_on | self._need(names))

    def remove_block_relations(self, block: str, names: list[str]) -> None:
        if not self._need(names) <= self.blocks[block].depends_on:
            raise KeyError(names)
        self._block(block, depends_on=self.blocks[block].depends_on - frozenset(names))

    def remove_product_block(self, name: str) -> None:
        used = [one.name for one in self.products.values() if name in one.blocks]
        used += [one.name for one in self.blocks.values() if name in one.depends_on and one.name != name]
        if used:
            raise KeyError(name, used)
        self._forget(self.blocks.pop(name).resource_types)

    def register_product(
        self, product_blocks: list[str], fixed_inputs: Mapping[str, str] | None = None, **texts: Any
    ) -> None:
        if texts["name"] in self.products:
            raise KeyError(texts)
        self.products[texts["name"]] = CatalogueProduct(
            fixed_inputs=dict(fixed_inputs or {}), blocks=self._need(product_blocks), **texts
        )

    def remove_product(self, name: str) -> None:
        del self.products[name]

    def retire_product(self, name: str, *, for_good: bool = True) -> None:
        self._product(name, retired=True, for_good=for_good)

    def reinstate_product(self, name: str) -> None:
        if not self.products[name].retired:
            raise KeyError(name)
        self._product(name, retired=False, for_good=True)

    def add_product_blocks(self, name: str, blocks: list[str]) -> None:
        self._product(name, blocks=self.products[name].blocks | self._need(blocks))

    def remove_product_blocks(self, name: str, blocks: list[str]) -> None:
        self._product(name, blocks=self.products[name].blocks - self._need(blocks))

    def set_fixed_inputs(self, name: str, inputs: Mapping[str, str]) -> None:
        self._product(name, fixed_inputs={**self.products[name].fixed_inputs, **inputs})

    def remove_fixed_inputs(self, name: str, inputs: list[str]) -> None:
        left = dict(self.products[name].fixed_inputs)
        for one in inputs:
            del left[one]
        self._product(name, fixed_inputs=left)

    def register_resource_type(self, name: str, description: str) -> None:
        if name in self.types:
            raise KeyError(name, description)
        self.types.add(name)

    def remove_resource_type(self, name: str) -> None:
        self.types.remove(name)


@given(catalogues(), catalogues())
def test_the_calls_lead_from_any_catalogue_to_any_other(before: Catalogue, after: Catalogue) -> None:
    """None of them asks for what is not there yet, or removes what is still in use."""
    database = Pretended(before)

    for call in diff_catalogues(before, after):
        database.call(call)

    assert database.catalogue() == after


# workflows


def linked(name: str, target: str, *products: str, description: str = "") -> dict[str, Linked]:
    return {name: Linked(Registration(name, target, False, description), frozenset(products))}


def test_workflows_end_before_others_begin() -> None:
    """B21: a product's only workflow of a kind may stand only once, and so may a name."""
    before = linked("create_a", "CREATE", "P", "Q") | linked("old", "TERMINATE", "P") | linked("text", "MODIFY", "P")
    after = linked("create_a", "CREATE", "Q", "R") | linked("new", "TERMINATE", "P")
    after |= linked("text", "MODIFY", "P", description="other")

    calls = diff_workflows(before, after)

    assert told(calls) == [
        ("unlink_workflow", "create_a", ["P"]),
        ("remove_workflow", "old"),
        ("remove_workflow", "text"),
        ("link_workflow", "create_a", ["R"]),
        ("register_workflow", "new"),
        ("register_workflow", "text"),
    ]
    assert calls[-1].options["products"] == ["P"]
    assert diff_workflows(after, after) == []


def test_two_workflows_of_a_kind_for_one_product_are_refused_by_name() -> None:
    """B21."""
    fine = linked("a", "CREATE", "P") | linked("b", "CREATE", "Q") | linked("c", "MODIFY", "P")
    refuse_second_workflows(fine | linked("d", "MODIFY", "P") | linked("e", "TERMINATE", "P"))

    with pytest.raises(ConfigurationError) as caught:
        refuse_second_workflows(fine | linked("d", "CREATE", "Q", "P"))

    assert str(caught.value) == (
        "the product 'P' would have two CREATE workflows, 'a' and 'd', but may have one at most: unlink or remove one of them"
        " first"
    )
