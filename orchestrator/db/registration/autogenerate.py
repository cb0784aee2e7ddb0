"""Compute the calls by which a migration turns one catalogue, or one set of workflows, into another. Pure.

A revision's upgrade leads from what the database has to what the code asks for, its downgrade the other way round: the same
function with its arguments exchanged.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import TypeVar

from orchestrator.db.registration.catalogue import Catalogue, CatalogueBlock, CatalogueProduct
from orchestrator.db.registration.workflows import describe_second_workflow
from orchestrator.db.tables import SINGLE_TARGETS
from orchestrator.db.workflows import Registration
from orchestrator.errors import ConfigurationError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Linked:
    """A workflow and the products that have it."""

    registration: Registration
    products: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Call:
    """One call in a migration, after the connection."""

    function: str
    arguments: tuple[object, ...] = ()
    options: Mapping[str, object] = field(default_factory=dict)

    def render(self) -> str:
        """Return the call as Python, for a function's body."""
        written = [
            "op.get_bind()",
            *map(repr, self.arguments),
            *(f"{name}={value!r}" for name, value in self.options.items()),
        ]
        line = f"{self.function}({', '.join(written)})"
        if len(line) <= _LINE and not self.options:
            return line
        return f"{self.function}(\n" + "".join(f"        {one},\n" for one in written) + "    )"


_LINE = 110
"""Characters of a call, behind its indentation."""


def render_revision(
    upgrade: Sequence[Call], downgrade: Sequence[Call], remarks: Iterable[str] = (), named: Collection[str] = ()
) -> tuple[str, str, str]:
    """Return the upgrade, downgrade and imports of a revision that makes these calls.

    Args:
        remarks: comments below the calls of the upgrade.
        named: functions that the comments call; the revision imports them, so that removing the ``#`` is enough.
    """
    called = {call.function for call in (*upgrade, *downgrade)}
    inside = "".join(
        f"    {name},\n" if name in called else f"    {name},  # noqa: F401 - the comments in upgrade() name it\n"
        for name in sorted({*called, *named})
    )
    imports = f"from orchestrator.db.registration import (\n{inside})" if inside else ""
    lines = [*(call.render() for call in upgrade), *(f"# {line}" for line in remarks)]
    return "\n    ".join(lines), "\n    ".join(call.render() for call in downgrade), imports


def diff_workflows(before: Mapping[str, Linked], after: Mapping[str, Linked]) -> list[Call]:
    """Return the calls that register, remove, link and unlink workflows.

    Removals come before additions, because a name, and a product's only workflow of a kind, may exist only once.
    """
    ends, begins = [], []
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if old is not None and (new is None or new.registration != old.registration):
            ends.append(Call("remove_workflow", (name,)))
        elif old is not None and new is not None and old.products - new.products:
            ends.append(Call("unlink_workflow", (name, sorted(old.products - new.products))))
        if new is not None and (old is None or new.registration != old.registration):
            begins.append(_register_workflow(new))
        elif old is not None and new is not None and new.products - old.products:
            begins.append(Call("link_workflow", (name, sorted(new.products - old.products))))
    return ends + begins


def refuse_second_workflows(workflows: Mapping[str, Linked]) -> None:
    """Check that no product would have two workflows of a kind of which it may have one.

    Raises:
        ConfigurationError: one would; the text names the product and both workflows.
    """
    for first, second in combinations(sorted(workflows), 2):
        one, other = workflows[first], workflows[second]
        target = one.registration.target
        if target in SINGLE_TARGETS and target == other.registration.target:
            for product in sorted(one.products & other.products):
                raise ConfigurationError(describe_second_workflow(product, target, first, second))


def diff_catalogues(before: Catalogue, after: Catalogue, drop: Collection[tuple[str, str]] = frozenset()) -> list[Call]:
    """Return the calls that make ``after`` out of ``before``; new things in the order in which they need each other.

    Descriptions, tags and types of what exists already are left as they are: people maintain them.

    Args:
        before, after: what there is, and what must be there.
        drop: pairs of block and resource type whose values are dropped with their place.
    """
    return [
        *_register_blocks(before, after),
        *_extend_blocks(before, after),
        *_change_products(before, after),
        *_reduce_blocks(before, after, drop),
        *_remove_blocks(before, after),
        *(
            Call("register_resource_type", (name, description))
            for name, description in sorted(after.idle_types.items())
            if name not in before.idle_types
        ),
        *(
            Call("remove_resource_type", (name,))
            for name in sorted(before.idle_types)
            if name not in after.idle_types and not any(name in one.resource_types for one in after.blocks.values())
        ),
    ]


def _register_workflow(one: Linked) -> Call:
    options: dict[str, object] = asdict(one.registration)
    if one.products:
        options["products"] = sorted(one.products)
    return Call("register_workflow", (), options)


def _register_blocks(before: Catalogue, after: Catalogue) -> list[Call]:
    calls, later = [], []
    known = set(before.blocks)
    for name in _sort_users_last(after, [name for name in after.blocks if name not in before.blocks]):
        block = after.blocks[name]
        # Blocks may refer to each other in a circle; what is not there yet is added when all are.
        missing = block.depends_on - known - {name}
        calls.append(_register_block(block, block.depends_on - missing))
        known.add(name)
        if missing:
            later.append(Call("add_block_relations", (name, sorted(missing))))
    return calls + later


def _register_block(block: CatalogueBlock, depends_on: Collection[str]) -> Call:
    options: dict[str, object] = {"name": block.name, "description": block.description, "tag": block.tag}
    options["resource_types"] = sorted(block.resource_types)
    if depends_on:
        options["depends_on"] = sorted(depends_on)
    return Call("register_product_block", (), options)


def _extend_blocks(before: Catalogue, after: Catalogue) -> list[Call]:
    calls = []
    for name, old, new in _pair_up(before.blocks, after.blocks):
        calls += _call_with_names("add_resource_types", name, new.resource_types - old.resource_types)
        calls += _call_with_names("add_block_relations", name, new.depends_on - old.depends_on)
    return calls


def _change_products(before: Catalogue, after: Catalogue) -> list[Call]:
    made = [after.products[name] for name in sorted(after.products) if name not in before.products]
    calls = [_register_product(product) for product in made]
    for name, old, new in _pair_up(before.products, after.products):
        calls += _call_with_names("add_product_blocks", name, new.blocks - old.blocks)
        calls += _call_with_names("remove_product_blocks", name, old.blocks - new.blocks)
        changed = {key: value for key, value in sorted(new.fixed_inputs.items()) if old.fixed_inputs.get(key) != value}
        if changed:
            calls.append(Call("set_fixed_inputs", (name, changed)))
        calls += _call_with_names("remove_fixed_inputs", name, old.fixed_inputs.keys() - new.fixed_inputs.keys())
        if new.retired and (new.for_good != old.for_good or not old.retired):
            calls.append(_retire(new))
        elif old.retired and not new.retired:
            calls.append(Call("reinstate_product", (name,)))
    calls += [_retire(product) for product in made if product.retired]
    return calls + [Call("remove_product", (name,)) for name in sorted(before.products) if name not in after.products]


def _call_with_names(function: str, name: str, some: Collection[str]) -> list[Call]:
    """Return the call for some names; none without any."""
    return [Call(function, (name, sorted(some)))] if some else []


def _retire(product: CatalogueProduct) -> Call:
    return Call("retire_product", (product.name,), {} if product.for_good else {"for_good": False})


def _register_product(product: CatalogueProduct) -> Call:
    options: dict[str, object] = {
        "name": product.name,
        "product_type": product.product_type,
        "description": product.description,
        "tag": product.tag,
    }
    if product.fixed_inputs:
        options["fixed_inputs"] = dict(sorted(product.fixed_inputs.items()))
    options["product_blocks"] = sorted(product.blocks)
    if product.workflows:
        options["workflows"] = sorted(product.workflows)
    return Call("register_product", (), options)


def _reduce_blocks(before: Catalogue, after: Catalogue, drop: Collection[tuple[str, str]]) -> list[Call]:
    calls = []
    for name, old, new in _pair_up(before.blocks, after.blocks):
        calls += _call_with_names("remove_block_relations", name, old.depends_on - new.depends_on)
        gone = old.resource_types - new.resource_types
        dropped = {one for one in gone if (name, one) in drop}
        calls += _call_with_names("remove_resource_types", name, gone - dropped)
        if dropped:
            calls.append(Call("remove_resource_types", (name, sorted(dropped)), {"values": "drop"}))
    return calls


def _remove_blocks(before: Catalogue, after: Catalogue) -> list[Call]:
    circles: list[Call] = []
    calls: list[Call] = []
    gone: set[str] = set()
    doomed = [name for name in before.blocks if name not in after.blocks]
    for name in reversed(_sort_users_last(before, doomed)):
        users = [one for one in doomed if name in before.blocks[one].depends_on and one not in gone and one != name]
        circles.extend(Call("remove_block_relations", (user, [name])) for user in sorted(users))
        calls.append(Call("remove_product_block", (name,)))
        gone.add(name)
    return circles + calls


def _sort_users_last(catalogue: Catalogue, names: Iterable[str]) -> list[str]:
    """Return blocks in such an order that those in a block's fields come before it, as far as there are no circles."""
    wanted = set(names)
    ordered: list[str] = []
    seen: set[str] = set()

    def visit(name: str) -> None:
        if name in seen or name not in wanted:
            return
        seen.add(name)
        for other in sorted(catalogue.blocks[name].depends_on):
            visit(other)
        ordered.append(name)

    for name in sorted(wanted):
        visit(name)
    return ordered


def _pair_up(before: Mapping[str, T], after: Mapping[str, T]) -> list[tuple[str, T, T]]:
    return [(name, before[name], after[name]) for name in sorted(after) if name in before]
