"""Describe the model of a product as the database must have it registered. Pure, for the command that writes migrations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.domain.fixed_inputs import format_default, list_choices
from orchestrator.domain.model import Block, DomainModel, Subscription


@dataclass(frozen=True, slots=True)
class BlockDefinition:
    """A product block: its base class, the names of its values, and the blocks that its fields may hold."""

    base: type[Block]
    resource_types: tuple[str, ...]
    depends_on: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FixedInputDefinition:
    """A fixed input, as text: what it can be, if the annotation lists that, and its default, if it has one."""

    values: tuple[str, ...] | None
    default: str | None


@dataclass(frozen=True, slots=True)
class ProductDefinition:
    """A product: the base class of its model, its fixed inputs, the blocks in its own fields, and all that can be reached.

    All names are sorted, and each covers the classes of all lifecycles.
    """

    name: str
    base: type[Subscription]
    fixed_inputs: Mapping[str, FixedInputDefinition]
    root_blocks: tuple[str, ...]
    blocks: Mapping[str, BlockDefinition]


def describe_product(product_name: str, cls: type[Subscription]) -> ProductDefinition:
    """Describe the model that a product has in the code, with every block below it.

    Args:
        cls: any class of the model's family.
    """
    base: type[Subscription] = cls.__family__.base
    found: dict[str, BlockDefinition] = {}
    roots = _blocks_of(base, found)
    return ProductDefinition(
        name=product_name,
        base=base,
        fixed_inputs={name: _fixed_input(base, name) for name in sorted(base.__shape__.values)},
        root_blocks=tuple(roots),
        blocks=dict(sorted(found.items())),
    )


def _blocks_of(base: type[DomainModel], found: dict[str, BlockDefinition]) -> list[str]:
    # The other classes of a family name no other product blocks than the base does.
    blocks = [block for field in base.__shape__.blocks.values() for block in field.classes]
    for block in blocks:
        _add(block.__family__.base, found)
    return sorted({block.product_block_name for block in blocks})


def _add(base: type[Block], found: dict[str, BlockDefinition]) -> None:
    name = base.product_block_name
    if name in found:
        return
    values = tuple(sorted(base.__shape__.values))
    found[name] = BlockDefinition(base, values, ())
    found[name] = BlockDefinition(base, values, tuple(_blocks_of(base, found)))


def _fixed_input(base: type[Subscription], name: str) -> FixedInputDefinition:
    field = base.model_fields[name]
    return FixedInputDefinition(tuple(list_choices(field)) or None, format_default(field))
