"""Compute the catalogue that the code's models require, and what of the stored one subscriptions still need. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from orchestrator.db.registration.catalogue import Catalogue, CatalogueBlock, CatalogueProduct
from orchestrator.db.registration.usage import Kind, Usage
from orchestrator.domain.fixed_inputs import explain_mismatch
from orchestrator.domain.schema import FixedInputDefinition, ProductDefinition

FixedInputs = Mapping[tuple[str, str], str]
"""Product and name of a fixed input → the value that is given from outside."""


@dataclass(slots=True)
class CataloguePlan:
    """The catalogue that the database gets.

    Args:
        dropped: pairs of block and resource type whose values go.
        left_out: why something stays although the code no longer has it.
    """

    catalogue: Catalogue
    dropped: set[tuple[str, str]] = field(default_factory=set)
    left_out: list[str] = field(default_factory=list)


def build_catalogue(
    definitions: Iterable[ProductDefinition], stored: Catalogue, given: FixedInputs
) -> tuple[Catalogue, list[str]]:
    """Return the catalogue that the code requires, and what is wrong with the values of fixed inputs."""
    products: dict[str, CatalogueProduct] = {}
    blocks: dict[str, CatalogueBlock] = {}
    problems: list[str] = []
    unused = dict(given)
    for one in definitions:
        inputs = {}
        known = stored.products.get(one.name)
        for name, definition in one.fixed_inputs.items():
            value = unused.pop((one.name, name), None)
            if value is None:
                value = _choose_value(definition, known.fixed_inputs.get(name) if known else None)
            if value is None and not one.base.model_fields[name].is_required():
                continue
            problem = _find_problem(one, name, definition, value)
            if problem is not None:
                problems.append(f'{problem}: --fixed-input "{one.name}:{name}=…"')
            inputs[name] = value or ""
        kind = one.base.__name__.removesuffix("Inactive") or one.base.__name__
        products[one.name] = CatalogueProduct(
            one.name,
            kind,
            _read_first_line(one.base.__family__.classes),
            kind.upper(),
            inputs,
            frozenset(one.root_blocks),
            # What was retired because the code lacked it is reinstated; what people have retired stays so.
            retired=known is not None and known.retired and known.for_good,
        )
        for name, block in one.blocks.items():
            blocks[name] = CatalogueBlock(
                name,
                _read_first_line(block.base.__family__.classes),
                name.upper(),
                frozenset(block.resource_types),
                frozenset(block.depends_on),
            )
    problems += [
        f"the model of the product {product!r} has no fixed input {name!r}"
        if product in products
        else f"SUBSCRIPTION_MODEL_REGISTRY has no product {product!r} (there are {', '.join(sorted(products)) or 'none'})"
        for product, name in unused
    ]
    return Catalogue(products, blocks), problems


def _choose_value(definition: FixedInputDefinition, was: str | None) -> str | None:
    """Return the value of a fixed input that is not given from outside."""
    if definition.values is not None and len(definition.values) == 1:
        return definition.values[0]
    return definition.default if was is None else was


def _find_problem(
    product: ProductDefinition, name: str, definition: FixedInputDefinition, value: str | None
) -> str | None:
    choice = "" if definition.values is None else f" (one of {', '.join(definition.values)})"
    if value is None:
        return f"the product {product.name!r} needs a value of {name!r}{choice}"
    if definition.values is not None and value not in definition.values:
        return f"{name!r} of the product {product.name!r} cannot be {value!r}{choice}"
    for one in product.base.__family__.classes:
        why = explain_mismatch(one.model_fields[name], value)
        if why is not None:
            return f"{name!r} of the product {product.name!r} cannot be {value!r}, says {one.__name__} ({why})"
    return None


def plan_catalogue(stored: Catalogue, wanted: Catalogue, usage: Usage, *, drop_values: bool) -> CataloguePlan:
    """Return the catalogue that the code requires, with what must stay because subscriptions hold it."""
    products, blocks = dict(wanted.products), dict(wanted.blocks)
    plan = CataloguePlan(Catalogue(products, blocks))
    needed: set[str] = set()
    for name, product in stored.products.items():
        kind = Kind(name, is_product=True)
        if name in products:
            held = product.blocks & usage.blocks_in(kind)
            products[name] = replace(products[name], blocks=products[name].blocks | held)
        elif usage.count(kind):
            products[name] = product if product.retired else replace(product, retired=True, for_good=False)
            needed |= product.blocks
    for name in stored.blocks:
        count = 0 if name in blocks or name in needed else usage.count(Kind(name))
        if count:
            needed.add(name)
            plan.left_out.append(f"the product block {name}: subscriptions have {count}, terminated ones included")
    for name in stored.reachable(needed):
        blocks.setdefault(name, stored.blocks[name])
    for name in sorted(stored.blocks.keys() & blocks.keys()):
        before, after = stored.blocks[name], blocks[name]
        held = before.depends_on & usage.blocks_in(Kind(name)) & blocks.keys()
        used = {one for one in before.resource_types - after.resource_types if usage.count_values(name, one)}
        if drop_values:
            plan.dropped |= {(name, one) for one in used}
            used = set()
        blocks[name] = replace(after, depends_on=after.depends_on | held, resource_types=after.resource_types | used)
    return plan


def list_missing(one: Catalogue, other: Catalogue) -> list[str]:
    """Return what the first catalogue has and the other lacks."""
    held_there = {name for block in other.blocks.values() for name in block.resource_types}
    return [
        *(f"the product {name}" for name in sorted(one.products.keys() - other.products.keys())),
        *(f"the product block {name}" for name in sorted(one.blocks.keys() - other.blocks.keys())),
        *(f"the resource type {name}" for name in sorted(one.idle_types.keys() - other.idle_types.keys() - held_there)),
    ]


def list_changes(before: Catalogue, after: Catalogue, dropped: set[tuple[str, str]]) -> list[str]:
    """Return each thing that is in both catalogues and differs, with the differences."""
    found = []
    for name in sorted(before.products.keys() & after.products.keys()):
        old, new = before.products[name], after.products[name]
        parts = [f"{key}={value}" for key, value in new.fixed_inputs.items() if old.fixed_inputs.get(key) != value]
        parts += [f"-{key}" for key in sorted(old.fixed_inputs.keys() - new.fixed_inputs.keys())]
        parts += _list_signed(old.blocks, new.blocks)
        if new.retired != old.retired:
            parts.append(
                "retired, because it has subscriptions" if new.retired else "reinstated, because the code has it again"
            )
        if parts:
            found.append(f"the product {name}: {', '.join(parts)}")
    for name in sorted(before.blocks.keys() & after.blocks.keys()):
        was, now = before.blocks[name], after.blocks[name]
        parts = _list_signed(was.resource_types, now.resource_types) + _list_signed(was.depends_on, now.depends_on)
        parts = [f"{part} with its values" if (name, part.removeprefix("-")) in dropped else part for part in parts]
        if parts:
            found.append(f"the product block {name}: {', '.join(parts)}")
    return found


def _list_signed(old: frozenset[str], new: frozenset[str]) -> list[str]:
    return [*(f"+{one}" for one in sorted(new - old)), *(f"-{one}" for one in sorted(old - new))]


def _read_first_line(classes: Iterable[type]) -> str:
    """Return the first line of the first docstring among these classes; inherited ones are the engine's own."""
    for one in classes:
        lines = (one.__dict__.get("__doc__") or "").strip().splitlines()
        if lines:
            return str(lines[0]).strip()
    return ""
