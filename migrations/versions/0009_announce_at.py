"""When the coordinators publish the events of a process that the broker has not confirmed.

Revision ID: 0009
Revises: 0008
Create Date: 2026-11-26
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column and its index; what is at rest and not announced is due at once."""
    op.add_column("processes", sa.Column("announce_at", postgresql.TIMESTAMP(timezone=True), nullable=True))
    op.execute("UPDATE processes SET announce_at = now() WHERE status <> 'running' AND announced < sequence")
    op.execute("UPDATE processes SET wake_at = due_at WHERE status <> 'running' AND wake_at IS DISTINCT FROM due_at")
    op.create_index(
        "ix_processes_announce_at",
        "processes",
        ["workflow", "announce_at"],
        unique=False,
        postgresql_where=sa.text("announce_at IS NOT NULL"),
    )


def downgrade() -> None:
    """Drop them; what is not announced is found by ``wake_at`` again."""
    op.execute("UPDATE processes SET wake_at = now() WHERE status <> 'running' AND announced < sequence")
    op.drop_index("ix_processes_announce_at", table_name="processes")
    op.drop_column("processes", "announce_at")
