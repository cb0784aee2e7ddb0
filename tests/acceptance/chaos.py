"""What every chaos test does: put load on, wait until all is done, and count."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from tests.acceptance.installation import Installation
from tests.acceptance.waiting import until
from tests.acceptance.workflows.basic import LINKS

# An innocent process may be lost with its consumer again and again where everything is killed all the time.
PATIENT = {
    "ORCHESTRATOR_MAX_LOST_ATTEMPTS": "1000",
    "ORCHESTRATOR_PRESUMED_DEAD_AFTER": "2",
    "ORCHESTRATOR_CONNECT_TIMEOUT": "3",
}
ALL_LINKS = [f"Link {number}" for number in range(LINKS)]


def flood(engine: Installation, number: int = 40, workflow: str = "chain", key: str = "") -> list[UUID]:
    """Start many processes, each message with a key, so that repeating it is harmless."""
    return [engine.start(workflow, key=f"{workflow}-{engine.folder.name}-{key}{one}") for one in range(number)]


def half_done(engine: Installation) -> None:
    """Wait until the load is in full swing."""
    until(lambda: engine.value("SELECT count(*) FROM effects") > 20, "the load is in full swing")


def all_done(engine: Installation, process_ids: Sequence[UUID], seconds: float = 200) -> None:
    """Wait until all are completed; then no row may be missing and none there twice."""

    def left() -> list[tuple[str, int]]:
        rows = engine.query(
            "SELECT status, count(*) FROM processes WHERE process_id = ANY($1::uuid[]) GROUP BY 1", process_ids
        )
        return [(row[0], row[1]) for row in rows]

    until(lambda: left() == [("completed", len(process_ids))], f"all {len(process_ids)} are completed", seconds)
    exactly_once(engine)


def exactly_once(engine: Installation) -> None:
    """No step of any process has succeeded twice, no row was written twice, no log has a gap."""
    twice = engine.query(
        """SELECT process_id, position, count(*) FROM process_steps
            WHERE kind = 'step' AND status IN ('success', 'complete') GROUP BY 1, 2 HAVING count(*) > 1"""
    )
    assert twice == []
    twice = engine.query("SELECT process_id, step, count(*) FROM effects GROUP BY 1, 2 HAVING count(*) > 1")
    assert twice == []
    gaps = engine.query(
        "SELECT process_id FROM process_steps GROUP BY 1 HAVING count(*) <> max(sequence) OR min(sequence) <> 1"
    )
    assert gaps == []
    wrong = engine.query(
        """SELECT process_id FROM processes p WHERE status = 'completed' AND workflow = 'chain'
            AND (SELECT array_agg(step ORDER BY effect_id) FROM effects e WHERE e.process_id = p.process_id)
                IS DISTINCT FROM $1::text[]""",
        ALL_LINKS,
    )
    assert wrong == []
