"""The project of the acceptance tests: its own table, and its workflows.

Revision ID: lab1
Revises:
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from orchestrator.db.registration import register_workflow, remove_workflow
from tests.acceptance.workflows import REGISTERED, REMOVED

revision = "lab1"
down_revision = None
branch_labels = ("project",)
depends_on = "0002"


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "effects",
        sa.Column("effect_id", sa.BigInteger(), sa.Identity(), primary_key=True),
        sa.Column("process_id", sa.UUID(), nullable=False),
        sa.Column("step", sa.Text(), nullable=False),
        sa.Column("at", sa.TIMESTAMP(timezone=True), server_default=sa.func.now(), nullable=False),
    )
    op.create_table(
        "strict_effects",
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column(
            "other",
            sa.Text(),
            sa.ForeignKey("strict_effects.name", deferrable=True, initially="DEFERRED"),
            nullable=True,
        ),
    )
    for name in (*REGISTERED, *REMOVED):
        is_task = name.startswith("task_")
        register_workflow(
            op.get_bind(), name=name, target="SYSTEM", is_task=is_task, description=f"{name} of the tests"
        )
    for name in REMOVED:
        remove_workflow(op.get_bind(), name)


def downgrade() -> None:
    """Undo."""
    op.drop_table("effects")
    op.drop_table("strict_effects")
