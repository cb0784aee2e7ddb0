"""The engine's tables: workflows, processes and their log, callbacks, consumers, settings.

Revision ID: 0001
Revises:
Create Date: 2026-11-23
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy import Text
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = ("engine",)
depends_on = None

# The log is the audit trail: a row once written stays as it is. Removing a whole process (retention) deletes its rows.
REFUSE_UPDATE = """
CREATE FUNCTION refuse_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the table % is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END
$$
"""


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "consumers",
        sa.Column("consumer_id", sa.UUID(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("queues", postgresql.ARRAY(Text()), nullable=False),
        sa.Column("concurrency", sa.Integer(), nullable=False),
        sa.Column("started_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("seen_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("consumer_id", name=op.f("pk_consumers")),
    )
    op.create_table(
        "engine_settings",
        sa.Column("single", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("global_lock", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("changed_by", sa.Text(), server_default="", nullable=False),
        sa.Column("changed_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("single", name=op.f("ck_engine_settings_single")),
        sa.PrimaryKeyConstraint("single", name=op.f("pk_engine_settings")),
    )
    op.create_table(
        "engine_settings_log",
        sa.Column("change_id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("global_lock", sa.Boolean(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("change_id", name=op.f("pk_engine_settings_log")),
    )
    op.create_table(
        "workflows",
        sa.Column("workflow_id", sa.UUID(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("is_task", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("description", sa.Text(), server_default="", nullable=False),
        sa.Column("created_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("deleted_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("workflow_id", name=op.f("pk_workflows")),
    )
    op.create_index(
        "uq_workflows_name", "workflows", ["name"], unique=True, postgresql_where=sa.text("deleted_at IS NULL")
    )
    op.create_table(
        "processes",
        sa.Column("process_id", sa.UUID(), nullable=False),
        sa.Column("workflow_id", sa.UUID(), nullable=False),
        sa.Column("workflow", sa.Text(), nullable=False),
        sa.Column("is_task", sa.Boolean(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("step", sa.Text(), nullable=True),
        sa.Column("entered", sa.Boolean(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("lost", sa.Integer(), nullable=False),
        sa.Column("rewinds", sa.Integer(), nullable=False),
        sa.Column("state", postgresql.JSONB(astext_type=Text()), nullable=False),
        sa.Column("started_by", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("request_key", sa.Text(), nullable=True),
        sa.Column("request_digest", sa.LargeBinary(), nullable=True),
        sa.Column("claimed_by", sa.UUID(), nullable=True),
        sa.Column("claimed_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("due_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("wake_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("dispatches", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("announced", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("started_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("position >= 0 AND attempt >= 0 AND sequence >= 0", name=op.f("ck_processes_counters")),
        sa.ForeignKeyConstraint(["workflow_id"], ["workflows.workflow_id"], name=op.f("fk_processes_workflow_id")),
        sa.PrimaryKeyConstraint("process_id", name=op.f("pk_processes")),
        sa.UniqueConstraint("request_key", name=op.f("uq_processes_request_key")),
        postgresql_with={"fillfactor": "70"},
    )
    op.create_index(
        "ix_processes_started_at", "processes", [sa.literal_column("started_at DESC"), "process_id"], unique=False
    )
    op.create_index(
        "ix_processes_running",
        "processes",
        ["process_id"],
        unique=False,
        postgresql_where=sa.text("status = 'running'"),
    )
    op.create_index(
        "ix_processes_wake_at", "processes", ["wake_at"], unique=False, postgresql_where=sa.text("wake_at IS NOT NULL")
    )
    op.create_index("ix_processes_workflow_id", "processes", ["workflow_id"], unique=False)
    op.create_table(
        "callbacks",
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("token", sa.Text(), nullable=True),
        sa.Column("process_id", sa.UUID(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("step", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("timeout", sa.Float(), nullable=True),
        sa.Column("deadline", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("payload", postgresql.JSONB(none_as_null=True, astext_type=Text()), nullable=True),
        sa.Column("progress", postgresql.JSONB(none_as_null=True, astext_type=Text()), nullable=True),
        sa.Column("created_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("received_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("closed_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["process_id"], ["processes.process_id"], name=op.f("fk_callbacks_process_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("token_hash", name=op.f("pk_callbacks")),
    )
    op.create_index("ix_callbacks_process_id", "callbacks", ["process_id"], unique=False)
    op.create_index(
        "uq_callbacks_current",
        "callbacks",
        ["process_id"],
        unique=True,
        postgresql_where=sa.text("status IN ('open', 'parked')"),
    )
    op.create_table(
        "process_steps",
        sa.Column("process_id", sa.UUID(), nullable=False),
        sa.Column("sequence", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("delta", postgresql.JSONB(astext_type=Text()), nullable=False),
        sa.Column("removed", postgresql.ARRAY(Text()), nullable=True),
        sa.Column("failure", postgresql.JSONB(astext_type=Text()), nullable=True),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("consumer", sa.Text(), nullable=True),
        sa.Column("started_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("finished_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["process_id"], ["processes.process_id"], name=op.f("fk_process_steps_process_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("process_id", "sequence", name=op.f("pk_process_steps")),
    )
    op.execute("INSERT INTO engine_settings (single) VALUES (true)")
    op.execute(REFUSE_UPDATE)
    for table in ("process_steps", "engine_settings_log"):
        op.execute(f"CREATE TRIGGER append_only BEFORE UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION refuse_update()")
    # The table is rewritten all the time and stays small while the log grows: look after it early.
    op.execute(
        "ALTER TABLE processes SET (autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05)"
    )


def downgrade() -> None:
    """Drop the tables."""
    for table in (
        "engine_settings_log",
        "engine_settings",
        "consumers",
        "callbacks",
        "process_steps",
        "processes",
        "workflows",
    ):
        op.drop_table(table)
    op.execute("DROP FUNCTION refuse_update()")
