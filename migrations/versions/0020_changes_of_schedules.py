"""Who has changed schedules, and which schedules code declares.

Revision ID: 0020
Revises: 0019
Create Date: 2026-11-26
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def _now() -> sa.TextClause:
    return sa.text("now()")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "schedule_changes",
        sa.Column("change_id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("schedule_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("at", postgresql.TIMESTAMP(timezone=True), server_default=_now(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("changes", postgresql.JSONB(), nullable=False),
        sa.ForeignKeyConstraint(
            ["schedule_id"],
            ["schedules.schedule_id"],
            name=op.f("fk_schedule_changes_schedule_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("change_id", name=op.f("pk_schedule_changes")),
    )
    op.create_index("ix_schedule_changes_schedule_id", "schedule_changes", ["schedule_id", "change_id"])
    op.create_table(
        "schedule_declarations",
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("schedules", postgresql.JSONB(), nullable=False),
        sa.Column("declared_by", sa.Text(), nullable=False),
        sa.Column("declared_at", postgresql.TIMESTAMP(timezone=True), server_default=_now(), nullable=False),
        sa.Column("seen_at", postgresql.TIMESTAMP(timezone=True), server_default=_now(), nullable=False),
        sa.CheckConstraint("source IN ('engine', 'project')", name=op.f("ck_schedule_declarations_source")),
        sa.PrimaryKeyConstraint("source", "fingerprint", name=op.f("pk_schedule_declarations")),
        sa.UniqueConstraint("source", "number", name=op.f("uq_schedule_declarations_source")),
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_table("schedule_declarations")
    op.drop_table("schedule_changes")
