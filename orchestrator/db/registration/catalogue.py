"""The catalogue as a value – what the database has, or what the code requires – and its reader for the database."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from orchestrator.db.registration.products import ACTIVE, NOT_IN_CODE
from orchestrator.db.tables import (
    FixedInputRow,
    ProductBlockRelationRow,
    ProductBlockResourceTypeRow,
    ProductBlockRow,
    ProductProductBlockRow,
    ProductRow,
    ProductWorkflowRow,
    ResourceTypeRow,
    WorkflowRow,
)


@dataclass(frozen=True, slots=True)
class CatalogueProduct:
    """A product.

    Args:
        blocks: those in fields of the subscription itself.
        retired: new subscriptions of it are refused.
        for_good: retired by an operator's decision, not because the code lacks it.
    """

    name: str
    product_type: str
    description: str = ""
    tag: str = ""
    fixed_inputs: Mapping[str, str] = field(default_factory=dict)
    blocks: frozenset[str] = frozenset()
    workflows: frozenset[str] = frozenset()
    retired: bool = False
    for_good: bool = True


@dataclass(frozen=True, slots=True)
class CatalogueBlock:
    """A product block: the values that it holds, and the blocks in its fields."""

    name: str
    description: str = ""
    tag: str = ""
    resource_types: frozenset[str] = frozenset()
    depends_on: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Products and blocks by name, and the resource types that no block holds, with their descriptions."""

    products: Mapping[str, CatalogueProduct] = field(default_factory=dict)
    blocks: Mapping[str, CatalogueBlock] = field(default_factory=dict)
    idle_types: Mapping[str, str] = field(default_factory=dict)

    def reachable(self, names: Iterable[str]) -> set[str]:
        """Return the blocks of these names, and all that stand in their fields."""
        found: set[str] = set()
        waiting = [name for name in names if name in self.blocks]
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting.extend(other for other in self.blocks[name].depends_on if other in self.blocks)
        return found


async def read_catalogue(session: AsyncSession) -> Catalogue:
    """Read what the database has."""
    product, block, held = ProductRow, ProductBlockRow, ResourceTypeRow
    inputs: dict[UUID, dict[str, str]] = defaultdict(dict)
    for owner, name, value in await session.execute(
        select(FixedInputRow.product_id, FixedInputRow.name, FixedInputRow.value)
    ):
        inputs[owner][name] = value
    roots = await _read_names(session, ProductProductBlockRow.product_id, block.name)
    workflows = await _read_names(session, ProductWorkflowRow.product_id, WorkflowRow.name)
    types = await _read_names(session, ProductBlockResourceTypeRow.product_block_id, held.resource_type)
    relations = await _read_names(
        session,
        ProductBlockRelationRow.in_use_by_id,
        block.name,
        block.product_block_id == ProductBlockRelationRow.depends_on_id,
    )
    products = await session.execute(
        select(product.product_id, product.name, product.product_type, product.description, product.tag, product.status)
    )
    blocks = await session.execute(select(block.product_block_id, block.name, block.description, block.tag))
    all_types = await session.execute(select(held.resource_type, held.description))
    busy = {name for names in types.values() for name in names}
    return Catalogue(
        {
            name: CatalogueProduct(
                name,
                product_type,
                description,
                tag,
                inputs[identity],
                roots[identity],
                workflows[identity],
                retired=status != ACTIVE,
                for_good=status != NOT_IN_CODE,
            )
            for identity, name, product_type, description, tag, status in products
        },
        {
            name: CatalogueBlock(name, description, tag, types[identity], relations[identity])
            for identity, name, description, tag in blocks
        },
        {name: description for name, description in all_types if name not in busy},
    )


async def read_links(session: AsyncSession) -> dict[str, frozenset[str]]:
    """Read the products that each workflow has; only of workflows that can be started."""
    query = (
        select(WorkflowRow.name, ProductRow.name)
        .join(ProductWorkflowRow, ProductWorkflowRow.workflow_id == WorkflowRow.workflow_id)
        .join(ProductRow, ProductRow.product_id == ProductWorkflowRow.product_id)
        .where(WorkflowRow.deleted_at.is_(None))
    )
    return dict(_group(await session.execute(query)))


async def _read_names(
    session: AsyncSession,
    owner: InstrumentedAttribute[UUID],
    name: InstrumentedAttribute[str],
    condition: ColumnElement[bool] | None = None,
) -> dict[UUID, frozenset[str]]:
    """Read the names that a table of pairs gives to each owner.

    Args:
        condition: joins the table with that of the names, where foreign keys leave a choice.
    """
    query = select(owner, name).select_from(owner.class_)
    query = query.join(name.class_) if condition is None else query.join(name.class_, condition)
    return _group(await session.execute(query))


def _group(rows: Iterable[Row[Any, str]]) -> defaultdict[Any, frozenset[str]]:
    found: defaultdict[Any, frozenset[str]] = defaultdict(frozenset)
    for owner, name in rows:
        found[owner] |= {name}
    return found
