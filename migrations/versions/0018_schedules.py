"""Schedules, and what became of their slots.

Revision ID: 0018
Revises: 0017
Create Date: 2026-11-26
"""

from __future__ import annotations

from uuid import UUID

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def _uuid() -> postgresql.UUID[UUID]:
    return postgresql.UUID(as_uuid=True)


def _time() -> postgresql.TIMESTAMP:
    return postgresql.TIMESTAMP(timezone=True)


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "schedules",
        sa.Column("schedule_id", _uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("workflow", sa.Text(), nullable=False),
        sa.Column("inputs", postgresql.JSONB(), nullable=False),
        sa.Column("trigger", postgresql.JSONB(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("missed", sa.Text(), nullable=False),
        sa.Column("missed_limit", sa.Integer(), nullable=False),
        sa.Column("overlap", sa.Text(), nullable=False),
        sa.Column("jitter", sa.Float(), nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("declared", postgresql.JSONB(), nullable=True),
        sa.Column("touched", postgresql.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("disabled_reason", sa.Text(), nullable=True),
        sa.Column("settled_through", _time(), nullable=False),
        sa.Column("next_slot", _time(), nullable=True),
        sa.Column("due_at", _time(), nullable=True),
        sa.Column("zone_rules", sa.Text(), nullable=False),
        sa.Column("queued_slot", _time(), nullable=True),
        sa.Column("last_slot", _time(), nullable=True),
        sa.Column("last_result", sa.Text(), nullable=True),
        sa.Column("last_reason", sa.Text(), nullable=True),
        sa.Column("last_process_id", _uuid(), nullable=True),
        sa.Column("last_at", _time(), nullable=True),
        sa.Column("skips", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("broken", sa.Text(), nullable=True),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", _time(), server_default=sa.text("now()"), nullable=False),
        sa.Column("changed_by", sa.Text(), nullable=False),
        sa.Column("changed_at", _time(), server_default=sa.text("now()"), nullable=False),
        sa.Column("deleted_by", sa.Text(), nullable=True),
        sa.Column("deleted_at", _time(), nullable=True),
        sa.CheckConstraint("origin IN ('code', 'person')", name=op.f("ck_schedules_origin")),
        sa.CheckConstraint("missed IN ('skip', 'once', 'all') AND missed_limit > 0", name=op.f("ck_schedules_missed")),
        sa.CheckConstraint("overlap IN ('allow', 'skip', 'queue')", name=op.f("ck_schedules_overlap")),
        sa.CheckConstraint("jitter >= 0", name=op.f("ck_schedules_jitter")),
        sa.PrimaryKeyConstraint("schedule_id", name=op.f("pk_schedules")),
        sa.UniqueConstraint("name", name=op.f("uq_schedules_name")),
    )
    op.create_index(
        "ix_schedules_due_at", "schedules", ["due_at"], postgresql_where=sa.text("enabled AND deleted_at IS NULL")
    )
    op.create_index(
        "ix_schedules_queued_slot", "schedules", ["queued_slot"], postgresql_where=sa.text("queued_slot IS NOT NULL")
    )
    op.create_table(
        "schedule_slots",
        sa.Column("schedule_id", _uuid(), nullable=False),
        sa.Column("slot", _time(), nullable=False),
        sa.Column("result", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("slots", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("process_id", _uuid(), nullable=True),
        sa.Column("at", _time(), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("slots > 0", name=op.f("ck_schedule_slots_slots")),
        sa.ForeignKeyConstraint(
            ["schedule_id"], ["schedules.schedule_id"], name=op.f("fk_schedule_slots_schedule_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("schedule_id", "slot", name=op.f("pk_schedule_slots")),
    )
    op.create_index("ix_schedule_slots_at", "schedule_slots", ["at"])


def downgrade() -> None:
    """Drop them."""
    op.drop_table("schedule_slots")
    op.drop_table("schedules")
