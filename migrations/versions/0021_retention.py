"""What a clean-up of finished tasks needs: an index that holds these alone, and an index for every foreign key.

Revision ID: 0021
Revises: 0020
Create Date: 2026-11-26

Builds four indexes on tables that may be large: some seconds for each million rows, in which nothing is written to them.
"""

from __future__ import annotations

from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

_UP = (
    "ALTER TABLE processes ADD COLUMN is_kept boolean NOT NULL DEFAULT false",
    (
        "CREATE INDEX ix_processes_finished_tasks ON processes (workflow_id, rested_at, process_id)"
        " WHERE is_task AND NOT is_kept AND status IN ('completed', 'aborted')"
    ),
    "CREATE INDEX ix_subscription_changes_process_id ON subscription_changes (process_id) WHERE process_id IS NOT NULL",
    "CREATE INDEX ix_deleted_processes_deleted_at ON deleted_processes (deleted_at)",
    # Each deleted or changed row of the table that is referred to would otherwise read all rows that may refer to it.
    "CREATE INDEX ix_product_block_relations_depends_on_id ON product_block_relations (depends_on_id)",
    "CREATE INDEX ix_product_block_resource_types_resource_type_id ON product_block_resource_types (resource_type_id)",
    "CREATE INDEX ix_product_product_blocks_product_block_id ON product_product_blocks (product_block_id)",
    "DROP INDEX ix_products_workflows_workflow_id",
    "CREATE INDEX ix_products_workflows_workflow_id ON products_workflows (workflow_id, target)",
    (
        "INSERT INTO workflows (name, target, is_task, description)"
        " SELECT 'task_clean_up_tasks', 'SYSTEM', true, 'Delete finished tasks and other records that have expired'"
        " WHERE NOT EXISTS (SELECT 1 FROM workflows WHERE name = 'task_clean_up_tasks' AND deleted_at IS NULL)"
    ),
)
_DOWN = (
    "UPDATE workflows SET deleted_at = now() WHERE name = 'task_clean_up_tasks' AND deleted_at IS NULL",
    "DROP INDEX ix_products_workflows_workflow_id",
    "CREATE INDEX ix_products_workflows_workflow_id ON products_workflows (workflow_id)",
    "DROP INDEX ix_product_product_blocks_product_block_id",
    "DROP INDEX ix_product_block_resource_types_resource_type_id",
    "DROP INDEX ix_product_block_relations_depends_on_id",
    "DROP INDEX ix_deleted_processes_deleted_at",
    "DROP INDEX ix_subscription_changes_process_id",
    "DROP INDEX ix_processes_finished_tasks",
    "ALTER TABLE processes DROP COLUMN is_kept",
)


def upgrade() -> None:
    """Make them, and register the task, unless the project has a workflow of this name already."""
    for statement in _UP:
        op.execute(statement)


def downgrade() -> None:
    """Drop them; the task's row stays, because processes of the past point at it."""
    for statement in _DOWN:
        op.execute(statement)
