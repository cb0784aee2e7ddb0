"""Dead letters are rows: listed, replayed and discarded from there.

Revision ID: 0016
Revises: 0015
Create Date: 2026-11-26
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table. Coordinators then move the letters of the queue ``orchestrator.dead`` into it."""
    op.create_table(
        "dead_letters",
        sa.Column(
            "letter_id", postgresql.UUID(as_uuid=True), server_default=sa.text("gen_random_uuid()"), nullable=False
        ),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("died_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("exchange", sa.Text(), nullable=False),
        sa.Column("routing_key", sa.Text(), nullable=False),
        sa.Column("process_id", postgresql.UUID(as_uuid=True), nullable=True),
        sa.Column("workflow", sa.Text(), nullable=True),
        sa.Column("step", sa.Text(), nullable=True),
        sa.Column("token_hash", sa.LargeBinary(), nullable=True),
        sa.Column("properties", postgresql.JSONB(), nullable=False),
        sa.Column("packed_headers", sa.LargeBinary(), nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("closed_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("closed_by", sa.Text(), nullable=True),
        sa.CheckConstraint("(outcome IS NULL) = (closed_at IS NULL)", name=op.f("ck_dead_letters_closed")),
        sa.PrimaryKeyConstraint("letter_id", name=op.f("pk_dead_letters")),
    )
    op.create_index(
        "ix_dead_letters_open",
        "dead_letters",
        [sa.text("died_at DESC"), "letter_id"],
        postgresql_where=sa.text("closed_at IS NULL"),
    )
    op.create_index(
        "ix_dead_letters_closed_at", "dead_letters", ["closed_at"], postgresql_where=sa.text("closed_at IS NOT NULL")
    )
    op.create_index("ix_dead_letters_digest", "dead_letters", ["digest"])


def downgrade() -> None:
    """Drop it, with the letters in it."""
    op.drop_table("dead_letters")
