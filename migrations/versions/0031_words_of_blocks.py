"""Subscriptions are found by the values of their blocks.

Revision ID: 0031
Revises: 0030
Create Date: 2026-11-26

Rewrites each subscription that has blocks: some seconds for each 100,000, in which no step can save one.
"""

from __future__ import annotations

from alembic import op

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None

# Labels, texts and numbers, however deep in a value; not the names of fields. Cut, or a subscription with very much text could
# not be stored: a tsvector ends at one megabyte.
_WORDS = """
CREATE FUNCTION block_words(owner uuid) RETURNS tsvector LANGUAGE sql STABLE STRICT AS $$
    SELECT coalesce(search_words(left(string_agg(left(found.word, 4000), ' '), 100000)), '')
      FROM (SELECT i.subscription_instance_id, 0 AS place, i.label AS word
              FROM subscription_instances i WHERE i.subscription_id = owner
             UNION ALL
            SELECT i.subscription_instance_id, value.ordinality, value.one #>> '{}'
              FROM subscription_instances i
             CROSS JOIN LATERAL jsonb_path_query(
                   i.resources, 'strict $.** ? (@.type() == "string" || @.type() == "number")')
                   WITH ORDINALITY value(one, ordinality)
             WHERE i.subscription_id = owner
             ORDER BY 1, 2
             LIMIT 50000) found
$$
"""

# By triggers, so that it also holds for what migrations and other services write. The rows of the subscriptions are locked
# before their blocks are read: two transactions that change blocks of one subscription do not miss each other's words. A row is
# not written when its words stay as they are.
_REFRESH = """
CREATE FUNCTION refresh_block_words() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    owners uuid[];
BEGIN
    IF TG_OP = 'UPDATE' THEN
        SELECT array_agg(subscription_id) INTO owners
          FROM (SELECT subscription_id FROM earlier UNION SELECT subscription_id FROM touched) both_of_them;
    ELSE
        SELECT array_agg(DISTINCT subscription_id) INTO owners FROM touched;
    END IF;
    IF owners IS NOT NULL THEN
        PERFORM 1 FROM subscriptions WHERE subscription_id = ANY(owners) ORDER BY subscription_id FOR NO KEY UPDATE;
        UPDATE subscriptions s SET block_words = found.words
          FROM (SELECT owner, block_words(owner) AS words FROM unnest(owners) owner OFFSET 0) found
         WHERE s.subscription_id = found.owner AND s.block_words IS DISTINCT FROM found.words;
    END IF;
    RETURN NULL;
END
$$
"""

# One for each kind of statement, because PostgreSQL gives the rows of a statement to triggers of one kind only.
_TRIGGERS = {
    "INSERT": "NEW TABLE AS touched",
    "UPDATE": "OLD TABLE AS earlier NEW TABLE AS touched",
    "DELETE": "OLD TABLE AS touched",
}


def upgrade() -> None:
    """Add the column, fill it for the subscriptions that there are, and keep it."""
    op.execute("ALTER TABLE subscriptions ADD COLUMN block_words tsvector NOT NULL DEFAULT ''")
    op.execute(_WORDS)
    op.execute(_REFRESH)
    op.execute(
        "UPDATE subscriptions s SET block_words = block_words(s.subscription_id)"
        " WHERE s.subscription_id IN (SELECT subscription_id FROM subscription_instances)"
    )
    op.execute(
        "CREATE INDEX ix_subscriptions_block_words ON subscriptions USING gin (block_words) WITH (fastupdate = off)"
    )
    for event, rows in _TRIGGERS.items():
        op.execute(
            f"CREATE TRIGGER refresh_block_words_{event.lower()} AFTER {event} ON subscription_instances"
            f" REFERENCING {rows} FOR EACH STATEMENT EXECUTE FUNCTION refresh_block_words()"
        )


def downgrade() -> None:
    """Drop them; the index goes with its column."""
    for event in _TRIGGERS:
        op.execute(f"DROP TRIGGER refresh_block_words_{event.lower()} ON subscription_instances")
    op.execute("DROP FUNCTION refresh_block_words()")
    op.execute("DROP FUNCTION block_words(uuid)")
    op.execute("ALTER TABLE subscriptions DROP COLUMN block_words")
