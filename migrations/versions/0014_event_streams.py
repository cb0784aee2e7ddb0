"""Each log entry keeps its transaction, the position of event streams; rare changes that have no event notify the API programs.

Revision ID: 0014
Revises: 0013
Create Date: 2026-11-26
"""

from __future__ import annotations

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

NOTIFY = """
CREATE FUNCTION notify_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('orchestrator', TG_ARGV[0]);
    RETURN NULL;
END
$$
"""

# Never on what a step does: commits that notify wait for each other.
TRIGGERS = (
    ("engine_settings", "UPDATE", "ROW", "engine"),
    ("products", "INSERT OR UPDATE OR DELETE", "ROW", "products"),
    ("consumers", "INSERT OR DELETE", "ROW", "consumers"),
    ("processes", "DELETE OR UPDATE OF note", "STATEMENT", "processes"),
)


def upgrade() -> None:
    """Add the column and the triggers. Entries that are there already have no transaction: no stream begins before them."""
    op.execute("ALTER TABLE process_steps ADD COLUMN txid bigint")
    # Set apart from the column, so that the table is not rewritten.
    op.execute("ALTER TABLE process_steps ALTER COLUMN txid SET DEFAULT pg_current_xact_id()::text::bigint")
    op.execute("CREATE INDEX ix_process_steps_txid ON process_steps (txid) WHERE txid IS NOT NULL")
    op.execute(NOTIFY)
    for table, what, each, change in TRIGGERS:
        op.execute(
            f"CREATE TRIGGER notify_change AFTER {what} ON {table} FOR EACH {each} EXECUTE FUNCTION notify_change('{change}')"
        )


def downgrade() -> None:
    """Drop them."""
    for table, *_ in TRIGGERS:
        op.execute(f"DROP TRIGGER notify_change ON {table}")
    op.execute("DROP FUNCTION notify_change()")
    op.execute("DROP INDEX ix_process_steps_txid")
    op.execute("ALTER TABLE process_steps DROP COLUMN txid")
