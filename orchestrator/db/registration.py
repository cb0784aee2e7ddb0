"""For migrations: registering workflows in the database. Synchronous, because Alembic's migrations are."""

from __future__ import annotations

from sqlalchemy import Connection, func, insert, update

from orchestrator.db.tables import WorkflowRow
from orchestrator.targets import Target


def register_workflow(
    connection: Connection, *, name: str, target: Target | str, is_task: bool = False, description: str = ""
) -> None:
    """Make a workflow startable.

    Args:
        connection: ``op.get_bind()`` in a migration.
        name: as in the code's ``LazyWorkflowInstance``.
    """
    connection.execute(
        insert(WorkflowRow).values(name=name, target=Target(target).value, is_task=is_task, description=description)
    )


def remove_workflow(connection: Connection, name: str) -> None:
    """Make a workflow unstartable. The row stays, because processes of the past point at it."""
    connection.execute(
        update(WorkflowRow)
        .where(WorkflowRow.name == name, WorkflowRow.deleted_at.is_(None))
        .values(deleted_at=func.now())
    )
