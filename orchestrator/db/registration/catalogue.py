"""The catalogue as a value: what the database has, or what the code asks for. And reading it from the database."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncSession

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
class Product:
    """A product.

    Args:
        blocks: those in fields of the subscription itself.
        retired: nobody can subscribe to it.
        for_good: retired by somebody's decision, rather than because the code lacks it.
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
class Block:
    """A product block: the values that it holds, and the blocks in its fields."""

    name: str
    description: str = ""
    tag: str = ""
    resource_types: frozenset[str] = frozenset()
    depends_on: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Products and blocks by name, and the resource types that no block holds, with their descriptions."""

    products: Mapping[str, Product] = field(default_factory=dict)
    blocks: Mapping[str, Block] = field(default_factory=dict)
    idle_types: Mapping[str, str] = field(default_factory=dict)

    def reachable(self, names: Iterable[str]) -> set[str]:
        """The blocks of these names, and all that stand in their fields."""
        found: set[str] = set()
        waiting = [name for name in names if name in self.blocks]
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting.extend(other for other in self.blocks[name].depends_on if other in self.blocks)
        return found


async def stored_catalogue(session: AsyncSession) -> Catalogue:
    """What the database has."""
    product, block, held = ProductRow, ProductBlockRow, ResourceTypeRow
    inputs: dict[UUID, dict[str, str]] = {}
    for owner, name, value in await session.execute(
        select(FixedInputRow.product_id, FixedInputRow.name, FixedInputRow.value)
    ):
        inputs.setdefault(owner, {})[name] = value
    roots = _grouped(
        await session.execute(
            select(ProductProductBlockRow.product_id, block.name).join(
                block, block.product_block_id == ProductProductBlockRow.product_block_id
            )
        )
    )
    workflows = _grouped(
        await session.execute(
            select(ProductWorkflowRow.product_id, WorkflowRow.name).join(
                WorkflowRow, WorkflowRow.workflow_id == ProductWorkflowRow.workflow_id
            )
        )
    )
    types = _grouped(
        await session.execute(
            select(ProductBlockResourceTypeRow.product_block_id, held.resource_type).join(
                held, held.resource_type_id == ProductBlockResourceTypeRow.resource_type_id
            )
        )
    )
    relations = _grouped(
        await session.execute(
            select(ProductBlockRelationRow.in_use_by_id, block.name).join(
                block, block.product_block_id == ProductBlockRelationRow.depends_on_id
            )
        )
    )
    products = await session.execute(
        select(product.product_id, product.name, product.product_type, product.description, product.tag, product.status)
    )
    blocks = await session.execute(select(block.product_block_id, block.name, block.description, block.tag))
    all_types = await session.execute(select(held.resource_type, held.description))
    busy = {name for names in types.values() for name in names}
    return Catalogue(
        {
            name: Product(
                name,
                product_type,
                description,
                tag,
                inputs.get(identity, {}),
                roots.get(identity, frozenset()),
                workflows.get(identity, frozenset()),
                retired=status != ACTIVE,
                for_good=status != NOT_IN_CODE,
            )
            for identity, name, product_type, description, tag, status in products
        },
        {
            name: Block(name, description, tag, types.get(identity, frozenset()), relations.get(identity, frozenset()))
            for identity, name, description, tag in blocks
        },
        {name: description for name, description in all_types if name not in busy},
    )


async def stored_links(session: AsyncSession) -> dict[str, frozenset[str]]:
    """Workflow -> the products that have it; only of workflows that can be started."""
    found: dict[str, set[str]] = {}
    for workflow, product in await session.execute(
        select(WorkflowRow.name, ProductRow.name)
        .join(ProductWorkflowRow, ProductWorkflowRow.workflow_id == WorkflowRow.workflow_id)
        .join(ProductRow, ProductRow.product_id == ProductWorkflowRow.product_id)
        .where(WorkflowRow.deleted_at.is_(None))
    ):
        found.setdefault(workflow, set()).add(product)
    return {workflow: frozenset(products) for workflow, products in found.items()}


def _grouped(rows: Iterable[Row[UUID, str]]) -> dict[UUID, frozenset[str]]:
    found: dict[UUID, set[str]] = {}
    for owner, name in rows:
        found.setdefault(owner, set()).add(name)
    return {owner: frozenset(names) for owner, names in found.items()}
