"""Commands about processes that were carried out, so that one that comes twice is carried out once.

Revision ID: 0004
Revises: 0003
Create Date: 2026-11-23
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "process_commands",
        sa.Column("process_id", sa.UUID(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["process_id"], ["processes.process_id"], name=op.f("fk_process_commands_process_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("process_id", "key", name=op.f("pk_process_commands")),
    )
    op.execute(
        "CREATE TRIGGER append_only BEFORE UPDATE ON process_commands FOR EACH ROW EXECUTE FUNCTION refuse_update()"
    )


def downgrade() -> None:
    """Drop it: from then on a command that comes twice is carried out twice, where it can be."""
    op.drop_table("process_commands")
