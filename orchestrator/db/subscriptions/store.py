"""Write what is different about a subscription: one statement, and one more when blocks or relations differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from pydantic_core import from_json
from sqlalchemy import Row
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.revisions import explain_age
from orchestrator.db.session import PASSES_LOCKS, PROCESS_ID, get_connection
from orchestrator.db.subscriptions.rows import Difference
from orchestrator.engine.state import write_json
from orchestrator.errors import ConcurrentChangeError, ModelError, SubscriptionLockedError

# The row of the subscription, its entry in the audit trail and the link to the process. Nothing is written unless
# - the version is the one that was loaded, and no other process holds the lock; or the process itself holds it, and what was
#   changed since are values of the subscription's own row that this save leaves alone, as those are changed by workflows that
#   may run beside the holder;
# - everything named is registered;
# - no subscription that is not terminated uses what is removed; what another one has just taken over is not removed;
# - no subscription is terminated whose blocks it begins to use;
# - no block comes to stand below itself, by way of another subscription's, which may have changed since it was loaded. Stored
#   relations count but for those that go, and the new ones.
# The answer says which of these failed. The subscriptions whose blocks it begins to use are locked until the commit: a process
# that terminates one of them waits, and then asks again which subscriptions use it.
_CHANGE = """
WITH RECURSIVE process AS (
    SELECT process_id, actor, step, attempt FROM processes WHERE process_id = $2
), missing AS (
    SELECT w.block, w.resource_type FROM unnest($13::text[], $14::text[]) AS w(block, resource_type)
     WHERE NOT EXISTS (
        SELECT FROM product_blocks b
         WHERE b.name = w.block AND (w.resource_type IS NULL OR EXISTS (
            SELECT FROM product_block_resource_types l JOIN resource_types t USING (resource_type_id)
             WHERE l.product_block_id = b.product_block_id AND t.resource_type = w.resource_type)))
), users AS (
    SELECT r.depends_on_id, i.subscription_id
      FROM subscription_instance_relations r JOIN subscription_instances i ON i.subscription_instance_id = r.in_use_by_id
           JOIN subscriptions s ON s.subscription_id = i.subscription_id
     WHERE r.depends_on_id = ANY($15::uuid[]) AND i.subscription_id <> $1 AND s.status <> 'terminated'
       AND EXISTS (SELECT FROM subscription_instances own
                    WHERE own.subscription_instance_id = r.depends_on_id AND own.subscription_id = $1)
    UNION ALL
    SELECT r.depends_on_id, s.subscription_id
      FROM subscription_roots r JOIN subscriptions s USING (subscription_id)
     WHERE r.depends_on_id = ANY($15::uuid[]) AND s.subscription_id <> $1 AND s.status <> 'terminated'
       AND EXISTS (SELECT FROM subscription_instances own
                    WHERE own.subscription_instance_id = r.depends_on_id AND own.subscription_id = $1)
), owners AS MATERIALIZED (
    SELECT subscription_id, status FROM subscriptions
     WHERE subscription_id IN (SELECT subscription_id FROM subscription_instances
                                WHERE subscription_instance_id = ANY($18::uuid[]))
     ORDER BY subscription_id FOR SHARE
), ended AS (
    SELECT subscription_id FROM owners
     WHERE status = 'terminated' AND $7 <> 'terminated' AND NOT EXISTS (
        SELECT FROM subscription_instances used
         WHERE used.subscription_id = owners.subscription_id
           AND (EXISTS (SELECT FROM subscription_roots r
                         WHERE r.depends_on_id = used.subscription_instance_id AND r.subscription_id = $1)
             OR EXISTS (SELECT FROM subscription_instance_relations r JOIN subscription_instances own
                                 ON own.subscription_instance_id = r.in_use_by_id
                         WHERE r.depends_on_id = used.subscription_instance_id AND own.subscription_id = $1)))
), linked AS MATERIALIZED (
    SELECT * FROM unnest($20::uuid[], $21::text[], $22::int[], $23::uuid[]) AS l(parent, field, position, block)
), gone AS MATERIALIZED (
    SELECT * FROM unnest($24::uuid[], $25::text[], $26::int[]) AS u(parent, field, position)
    UNION ALL
    SELECT parent, field, position FROM linked
), below (top, id) AS (
    SELECT * FROM unnest($16::uuid[], $17::uuid[])
    UNION
    SELECT below.top, next.id
      FROM below CROSS JOIN LATERAL (
           SELECT r.depends_on_id AS id FROM subscription_instance_relations r
            WHERE r.in_use_by_id = below.id
              AND NOT EXISTS (SELECT FROM gone
                               WHERE gone.parent = r.in_use_by_id AND gone.field = r.field AND gone.position = r.position)
            UNION ALL
           SELECT linked.block FROM linked WHERE linked.parent = below.id) next
), loops AS (
    SELECT DISTINCT top FROM below WHERE id = top
), clear AS (
    SELECT * FROM process
     WHERE NOT EXISTS (SELECT FROM missing) AND NOT EXISTS (SELECT FROM users) AND NOT EXISTS (SELECT FROM loops)
       AND NOT EXISTS (SELECT FROM ended)
), made AS (
    INSERT INTO subscriptions (subscription_id, product_id, customer_id, description, status, insync, locked_by, start_date,
                               end_date, note)
    SELECT $1, $4, $5, $6, $7, $8, CASE WHEN NOT $8 THEN process_id END, $9, $10, $11 FROM clear WHERE $3::int IS NULL
    ON CONFLICT (subscription_id) DO NOTHING
    RETURNING version
), changed AS (
    UPDATE subscriptions s
       SET product_id = CASE WHEN own.changes ? 'product_id' THEN $4 ELSE s.product_id END,
           customer_id = CASE WHEN own.changes ? 'customer_id' THEN $5 ELSE s.customer_id END,
           description = CASE WHEN own.changes ? 'description' THEN $6 ELSE s.description END,
           status = CASE WHEN own.changes ? 'status' THEN $7 ELSE s.status END,
           start_date = CASE WHEN own.changes ? 'start_date' THEN $9 ELSE s.start_date END,
           end_date = CASE WHEN own.changes ? 'end_date' THEN $10 ELSE s.end_date END,
           note = CASE WHEN own.changes ? 'note' THEN $11 ELSE s.note END,
           version = version + 1, updated_at = statement_timestamp()
      FROM clear CROSS JOIN (SELECT $12::text::jsonb AS changes) own
     WHERE subscription_id = $1 AND ($19 OR locked_by IS NULL OR locked_by = $2)
       AND (version = $3 OR locked_by = $2 AND version > $3 AND version - $3 = (
            SELECT count(DISTINCT c.version) FROM subscription_changes c WHERE c.subscription_id = $1 AND c.version > $3)
        AND NOT EXISTS (
            SELECT FROM subscription_changes c CROSS JOIN LATERAL jsonb_object_keys(c.changes) key
             WHERE c.subscription_id = $1 AND c.version > $3
               AND (key NOT IN ('customer_id', 'description', 'start_date', 'end_date', 'note', 'insync') OR own.changes ? key)))
    RETURNING version
), stored AS (
    SELECT version FROM made UNION ALL SELECT version FROM changed
), logged AS (
    INSERT INTO subscription_changes (subscription_id, version, process_id, step, attempt, author, changes, at)
    SELECT $1, version, process_id, step, attempt, actor, $12::text::jsonb, statement_timestamp() FROM stored, clear
), touched AS (
    INSERT INTO processes_subscriptions (process_id, subscription_id) SELECT process_id, $1 FROM stored, clear
    ON CONFLICT DO NOTHING
)
SELECT (SELECT version FROM stored) AS version, EXISTS (SELECT FROM process) AS process,
       (SELECT json_agg(missing.*) FROM missing)::text AS missing, (SELECT json_agg(users.*) FROM users)::text AS users,
       (SELECT json_agg(top) FROM loops)::text AS loops, (SELECT json_agg(subscription_id) FROM ended)::text AS ended
"""

# Relations are never deleted and inserted at the same place: a key stays, or goes, or is pointed elsewhere. What a terminated
# subscription still shows of a block that goes, and of what stands below that, is kept for it.
_CHANGE_BLOCKS = """
WITH RECURSIVE kept (id) AS (
    (SELECT r.depends_on_id
       FROM subscription_instance_relations r JOIN subscription_instances i ON i.subscription_instance_id = r.in_use_by_id
            JOIN subscriptions s ON s.subscription_id = i.subscription_id
      WHERE r.depends_on_id = ANY($9::uuid[]) AND i.subscription_id <> $1 AND s.status = 'terminated'
      UNION
     SELECT r.depends_on_id
       FROM subscription_roots r JOIN subscriptions s USING (subscription_id)
      WHERE r.depends_on_id = ANY($9::uuid[]) AND s.subscription_id <> $1 AND s.status = 'terminated')
    UNION
    SELECT r.depends_on_id FROM kept JOIN subscription_instance_relations r ON r.in_use_by_id = kept.id
), made AS (
    INSERT INTO subscription_instances (subscription_instance_id, subscription_id, product_block_id, label, resources)
    SELECT n.id, $1, b.product_block_id, n.label, n.resources::jsonb
      FROM unnest($2::uuid[], $3::text[], $4::text[], $5::text[]) AS n(id, name, label, resources)
           JOIN product_blocks b USING (name)
), changed AS (
    UPDATE subscription_instances AS i SET label = c.label, resources = c.resources::jsonb
      FROM unnest($6::uuid[], $7::text[], $8::text[]) AS c(id, label, resources)
     WHERE i.subscription_instance_id = c.id AND i.subscription_id = $1
), moved AS (
    UPDATE subscription_instances AS i SET subscription_id = $1, label = m.label, resources = m.resources::jsonb
      FROM unnest($17::uuid[], $18::text[], $19::text[]) AS m(id, label, resources)
     WHERE i.subscription_instance_id = m.id
), removed AS (
    DELETE FROM subscription_instances
     WHERE subscription_instance_id = ANY($9::uuid[]) AND subscription_id = $1
       AND subscription_instance_id NOT IN (SELECT id FROM kept)
), rooted AS (
    INSERT INTO subscription_roots (subscription_id, field, position, depends_on_id)
    SELECT $1, l.field, l.position, l.block
      FROM unnest($10::uuid[], $11::text[], $12::int[], $13::uuid[]) AS l(parent, field, position, block)
     WHERE l.parent IS NULL
    ON CONFLICT (subscription_id, field, position) DO UPDATE SET depends_on_id = excluded.depends_on_id
), related AS (
    INSERT INTO subscription_instance_relations (in_use_by_id, field, position, depends_on_id)
    SELECT l.parent, l.field, l.position, l.block
      FROM unnest($10::uuid[], $11::text[], $12::int[], $13::uuid[]) AS l(parent, field, position, block)
     WHERE l.parent IS NOT NULL
    ON CONFLICT (in_use_by_id, field, position) DO UPDATE SET depends_on_id = excluded.depends_on_id
), unrooted AS (
    DELETE FROM subscription_roots AS r USING unnest($14::uuid[], $15::text[], $16::int[]) AS u(parent, field, position)
     WHERE r.subscription_id = $1 AND u.parent IS NULL AND r.field = u.field AND r.position = u.position
)
DELETE FROM subscription_instance_relations AS r
 USING unnest($14::uuid[], $15::text[], $16::int[]) AS u(parent, field, position)
 WHERE r.in_use_by_id = u.parent AND r.field = u.field AND r.position = u.position AND u.parent NOT IN (SELECT id FROM kept)
   AND (u.parent = ANY($17::uuid[]) OR u.parent IN (SELECT subscription_instance_id FROM subscription_instances
                                                     WHERE subscription_instance_id = u.parent AND subscription_id = $1))
"""


_HOLD = "SELECT subscription_id FROM subscriptions WHERE subscription_id = $1 FOR NO KEY UPDATE"
"""Keeps others from beginning to use the subscription until the transaction ends: they lock its row, too."""

# Two transactions may each add a relation, and the two together close a circle over relations that exist. Whoever adds one
# below blocks that others use waits here for the other's end, and then sees what it has added. Who is used by none cannot be part
# of a circle.
_WAIT_FOR_OTHER_LINKS = """
SELECT pg_advisory_xact_lock(7236280165)
 WHERE EXISTS (
       SELECT FROM (SELECT subscription_instance_id AS id FROM subscription_instances WHERE subscription_id = $1
                     UNION ALL
                    SELECT * FROM unnest($2::uuid[])) own
        CROSS JOIN LATERAL (
              -- Written as in neighbours.py, for the reasons that are given there.
              SELECT other.subscription_id
                FROM subscription_instance_relations r
               CROSS JOIN LATERAL (SELECT subscription_id FROM subscription_instances
                                    WHERE subscription_instance_id = r.in_use_by_id LIMIT 1) other
               WHERE r.depends_on_id BETWEEN own.id AND own.id
              OFFSET 0) users
        WHERE users.subscription_id <> $1)
"""

_UNIQUE_VIOLATION = "23505"
"""PostgreSQL's code for a block's id that is taken; a retry would fail again."""

_VERSION = """
SELECT s.version, s.locked_by, p.workflow, p.status
  FROM subscriptions s LEFT JOIN processes p ON p.process_id = s.locked_by
 WHERE s.subscription_id = $1
"""


async def store(session: AsyncSession, difference: Difference) -> int:
    """Write a difference in the session's transaction: one statement, and one more when blocks or relations differ.

    Returns:
        The subscription's version from now on.

    Raises:
        ModelError: no process is behind the session, something is not registered, or another subscription uses what is removed.
        ConcurrentChangeError: the subscription is no longer of the version that was loaded.
        SubscriptionLockedError: another process holds it, and this one's workflow is not of those that pass locks.
    """
    process_id = session.info.get(PROCESS_ID)
    subscription = f"the subscription {difference.subscription_id}"
    if process_id is None:
        raise ModelError(
            f"{subscription} cannot be saved with this session: subscriptions change only in a process, by the session that its"
            f" step receives (it carries the process's id as session.info[{PROCESS_ID!r}])"
        )
    connection = await get_connection(session)
    try:
        tops = _find_tops(difference)
        if tops:
            await connection.exec_driver_sql(_HOLD, (difference.subscription_id,))
            await connection.exec_driver_sql(
                _WAIT_FOR_OTHER_LINKS, (difference.subscription_id, list(difference.moved))
            )
        parameters = _change_parameters(difference, process_id, tops, passes=bool(session.info.get(PASSES_LOCKS)))
        answer = (await connection.exec_driver_sql(_CHANGE, parameters)).one()
        if answer.version is None and difference.version is not None and _is_clear(answer):
            # It may have waited for a change that its snapshot does not have, and that concerns other values.
            answer = (await connection.exec_driver_sql(_CHANGE, parameters)).one()
        if answer.version is None:
            raise await _refusal(session, difference, answer, process_id)
        if difference.touches_blocks:
            await connection.exec_driver_sql(_CHANGE_BLOCKS, _block_parameters(difference))
    except IntegrityError as error:
        # What the first statement checks may have changed a moment later; then the database's own constraints speak.
        said = error.orig.__cause__ if error.orig is not None else None
        detail = str(getattr(said, "detail", None) or error.orig).strip().removesuffix(".")
        if getattr(said, "sqlstate", None) == _UNIQUE_VIOLATION:
            raise ModelError(f"{subscription} cannot be saved: {detail}") from error
        raise ModelError(
            f"{subscription} cannot be saved: what it refers to, or gives up, was changed at the same time: {detail};"
            " retry the step"
        ) from error
    version: int = answer.version
    return version


def _find_tops(difference: Difference) -> list[tuple[UUID, UUID]]:
    """Return the new relations to blocks that exist, if they can be part of a circle: a new subscription has no users."""
    if difference.version is None and not difference.moved:
        return []
    return [
        (parent, block)
        for parent, _, _, block in difference.linked
        if parent is not None and block not in difference.made
    ]


def _is_clear(answer: Row[Any]) -> bool:
    return bool(answer.process) and (answer.missing, answer.users, answer.loops, answer.ended) == (None,) * 4


def _change_parameters(
    difference: Difference, process_id: UUID, tops: Sequence[tuple[UUID, UUID]], *, passes: bool
) -> tuple[object, ...]:
    columns = difference.columns
    linked = [one for one in difference.linked if one[0] is not None] if tops else []
    unlinked = difference.unlinked if tops else ()
    needed: dict[tuple[str, str | None], None] = {}
    for block in (*difference.made.values(), *difference.changed.values(), *difference.moved.values()):
        needed |= dict.fromkeys([(block.name, None), *((block.name, value) for value in block.values)])
    return (
        difference.subscription_id,
        process_id,
        difference.version,
        columns.product_id,
        columns.customer_id,
        columns.description,
        columns.status,
        difference.insync,
        columns.start_date,
        columns.end_date,
        columns.note,
        write_json(difference.changes),
        [name for name, _ in needed],
        [resource_type for _, resource_type in needed],
        list(difference.removed),
        [parent for parent, _ in tops],
        [block for _, block in tops],
        [block for _, _, _, block in difference.linked if block in difference.foreign],
        passes,
        *([row[column] for row in linked] for column in range(4)),
        *([row[column] for row in unlinked] for column in range(3)),
    )


def _block_parameters(difference: Difference) -> tuple[object, ...]:
    made, changed, moved = difference.made, difference.changed, difference.moved
    return (
        difference.subscription_id,
        list(made),
        [block.name for block in made.values()],
        [block.label for block in made.values()],
        [write_json(block.values) for block in made.values()],
        list(changed),
        [block.label for block in changed.values()],
        [write_json(block.values) for block in changed.values()],
        list(difference.removed),
        *([row[column] for row in difference.linked] for column in range(4)),
        *([row[column] for row in difference.unlinked] for column in range(3)),
        list(moved),
        [block.label for block in moved.values()],
        [write_json(block.values) for block in moved.values()],
    )


async def _refusal(session: AsyncSession, difference: Difference, answer: Row[Any], process_id: UUID) -> Exception:
    subscription = f"the subscription {difference.subscription_id}"
    if not answer.process:
        return ModelError(f"{subscription} cannot be saved: there is no process {process_id}")
    if answer.missing is not None:
        names = sorted(_missing_text(one["block"], one["resource_type"]) for one in from_json(answer.missing))
        registers = "'orchestrator db migrate-domain-models' writes the migration that registers it"
        return ModelError(
            f"{subscription} cannot be saved: the database does not know {' and '.join(dict.fromkeys(names))};"
            f" {await explain_age(session) or registers}"
        )
    if answer.users is not None:
        users = from_json(answer.users)
        blocks = ", ".join(sorted({one["depends_on_id"] for one in users}))
        others = ", ".join(sorted({one["subscription_id"] for one in users}))
        return ModelError(
            f"{subscription} cannot give up the block {blocks}: the subscription {others} uses it: change that first, or, if"
            " that is to have the block from now on, move it (block.move_to(...))"
        )
    if answer.ended is not None:
        owners = ", ".join(sorted(from_json(answer.ended)))
        return ModelError(
            f"{subscription} cannot begin to use a block of the subscription {owners}: that is terminated"
        )
    if answer.loops is not None:
        blocks = ", ".join(from_json(answer.loops))
        return ModelError(
            f"{subscription} cannot be saved: the block {blocks} would contain itself, because what it is to use has come to"
            " use it since it was loaded"
        )
    # Read again, because the snapshot of the refused statement may be older than the change it was refused for.
    connection = await get_connection(session)
    row = (await connection.exec_driver_sql(_VERSION, (difference.subscription_id,))).one_or_none()
    if difference.version is None:
        return ModelError(f"{subscription} exists already: load it with from_subscription(...) and change that")
    if row is not None and row.version == difference.version:
        return SubscriptionLockedError(
            f"{subscription} cannot be saved: the process {row.locked_by} ({row.workflow}, {row.status}) holds it."
            " Retry when it is in sync again."
        )
    now = "it is gone" if row is None else f"version {difference.version} then, {row.version} now"
    return ConcurrentChangeError(f"{subscription} was changed since it was loaded: {now}; retry the step")


def _missing_text(block: str, resource_type: str | None) -> str:
    if resource_type is None:
        return f"the product block {block!r}"
    return f"the resource type {resource_type!r} of the product block {block!r}"
