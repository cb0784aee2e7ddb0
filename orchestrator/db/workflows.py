"""The workflows that the database knows, and the products that they are linked to."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.tables import ProductRow, ProductWorkflowRow, WorkflowRow


@dataclass(frozen=True, slots=True)
class Registration:
    """A workflow as code or database knows it."""

    name: str
    target: str
    is_task: bool
    description: str


async def list_workflows(session: AsyncSession) -> list[Registration]:
    """Return the workflows that migrations have registered and not removed, by name."""
    rows = await session.scalars(select(WorkflowRow).where(WorkflowRow.deleted_at.is_(None)).order_by(WorkflowRow.name))
    return [Registration(row.name, row.target, row.is_task, row.description) for row in rows]


@dataclass(frozen=True, slots=True)
class RegisteredTask:
    """A task, as people choose it."""

    workflow_id: UUID
    name: str
    description: str


async def list_tasks(session: AsyncSession) -> list[RegisteredTask]:
    """Return the tasks that migrations have registered and not removed, by name."""
    rows = await session.execute(
        select(WorkflowRow.workflow_id, WorkflowRow.name, WorkflowRow.description)
        .where(WorkflowRow.deleted_at.is_(None), WorkflowRow.is_task)
        .order_by(WorkflowRow.name)
    )
    return [RegisteredTask(row.workflow_id, row.name, row.description) for row in rows]


async def find_workflow_name(session: AsyncSession, workflow_id: UUID) -> str | None:
    """Return the name of a workflow that migrations have registered and not removed."""
    found: str | None = await session.scalar(
        select(WorkflowRow.name).where(WorkflowRow.workflow_id == workflow_id, WorkflowRow.deleted_at.is_(None))
    )
    return found


async def list_products(session: AsyncSession, workflow: str) -> list[tuple[UUID, str]]:
    """Return the active products that a workflow is linked to, with their names, by name."""
    rows = await session.execute(
        select(ProductRow.product_id, ProductRow.name)
        .join(ProductWorkflowRow, ProductWorkflowRow.product_id == ProductRow.product_id)
        .join(WorkflowRow, WorkflowRow.workflow_id == ProductWorkflowRow.workflow_id)
        .where(WorkflowRow.name == workflow, WorkflowRow.deleted_at.is_(None), ProductRow.status == "active")
        .order_by(ProductRow.name)
    )
    return [(row.product_id, row.name) for row in rows]
