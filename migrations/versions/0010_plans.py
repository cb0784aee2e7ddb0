"""The plans of workflows that programs have registered, and which of them each process has.

Revision ID: 0010
Revises: 0009
Create Date: 2026-11-26

Processes of before have none. A program with the registered plan takes them over without a log entry.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table and the column."""
    op.create_table(
        "workflow_plans",
        sa.Column("workflow", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("steps", postgresql.JSONB(), nullable=False),
        sa.Column("registered_by", sa.Text(), nullable=False),
        sa.Column(
            "registered_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("workflow", "number", name=op.f("pk_workflow_plans")),
    )
    op.execute(
        "CREATE TRIGGER append_only BEFORE UPDATE ON workflow_plans FOR EACH ROW EXECUTE FUNCTION refuse_update()"
    )
    op.add_column("processes", sa.Column("plan", sa.Text(), nullable=True))


def downgrade() -> None:
    """Drop them: from then on every program decides with its own copy of a plan."""
    op.drop_column("processes", "plan")
    op.drop_table("workflow_plans")
