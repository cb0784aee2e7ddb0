"""End the sessions of steps whose consumer is presumed dead, because others wait for what they have written and not committed.

A consumer that the network has cut off cannot end them, and the server keeps them. Nothing is lost that could be stored: the
fence refuses what such a step would commit. A step's session has no limit of time, so only that its consumer is silent counts.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.db.session import DriverPool
from orchestrator.db.status import IS_SILENT
from orchestrator.hosts import OWNER_DIGITS

# Only what waits for its client in a transaction, and has for as long as the consumer may be silent. A role may end its own
# sessions, and those of roles to which it belongs.
_END = f"""
WITH dead AS MATERIALIZED (
    SELECT left(c.consumer_id::text, {OWNER_DIGITS}) AS owner, c.name, c.presumed_dead_after
      FROM consumers c WHERE {IS_SILENT} AND c.presumed_dead_after <= $1::float8
)
SELECT dead.name AS consumer, a.pid AS server_process,
       EXTRACT(EPOCH FROM clock_timestamp() - a.state_change)::float8 AS silent_for, pg_terminate_backend(a.pid)
  FROM dead JOIN pg_stat_activity a ON split_part(a.application_name, ' ', 3) = dead.owner
 WHERE a.datname = current_database() AND a.application_name LIKE 'orchestrator-%' AND pg_has_role(a.usesysid, 'USAGE')
   AND a.xact_start IS NOT NULL AND a.wait_event_type = 'Client'
   AND a.state_change < clock_timestamp() - dead.presumed_dead_after * interval '1 second'
"""  # noqa: S608 - built from constants


@dataclass(frozen=True, slots=True)
class EndedSession:
    """A session that was ended.

    Args:
        consumer: the name of its consumer.
        server_process: its process in the server, which PostgreSQL's log names.
        silent_for: seconds for which it had waited for its client.
    """

    consumer: str
    server_process: int
    silent_for: float


async def end_silent_sessions(pool: DriverPool, reads_for: float) -> list[EndedSession]:
    """End the sessions of dead consumers that are silent in a transaction.

    Args:
        reads_for: for how many seconds the caller has been able to read heartbeats.
    """
    rows = await pool.fetch(_END, reads_for)
    return [EndedSession(row["consumer"], row["server_process"], row["silent_for"]) for row in rows]
