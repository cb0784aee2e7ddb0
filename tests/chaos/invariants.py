"""What must be true when everything has come to rest, and how often it was looked at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from tests.acceptance.installation import Installation
from tests.acceptance.waiting import until
from tests.chaos.audit import Recorder
from tests.chaos.load import Load
from tests.chaos.world import World
from tests.cluster.audit import compare

REST_SECONDS = 240.0
"""When what has not ended is taken never to end; a minute of faults leaves seconds of work."""

PROVOKED = (
    "callback refused (used)",
    "callback refused (superseded)",
    "IllegalTransitionError",
    "ConflictError",
    "WorkflowNotUsableError",
)
"""How the reasons begin for which the load must be refused: it repeats answers, and starts what may not start. A refusal
becomes a letter when the connection of its sender has broken meanwhile, or nobody asked for an answer."""

BEGUN_BESIDE = """
WITH held AS (
    SELECT s.subscription_id, s.process_id,
           min(l.started_at) FILTER (WHERE l.kind = 'step' AND l.name = 'Count' AND l.status = 'success') AS counted,
           max(l.finished_at) FILTER (WHERE l.name = 'completed') AS ended
      FROM processes_subscriptions s JOIN process_steps l USING (process_id) JOIN processes p USING (process_id)
     WHERE p.workflow = 'modify_thing' AND p.status = 'completed' GROUP BY 1, 2)
SELECT a.process_id, b.process_id FROM held a JOIN held b USING (subscription_id)
 WHERE a.process_id <> b.process_id AND a.counted < b.counted AND b.counted < a.ended
"""


@dataclass(frozen=True)
class Invariant:
    """One line of the report."""

    name: str
    number: int
    wrong: list[str]

    def __str__(self) -> str:
        return f"{self.name:<58}{self.number:>8}   {'VIOLATED' if self.wrong else 'holds'}"


def rest(engine: Installation, load: Load) -> None:
    """Wait until nothing is left to do; whoever asks is answered meanwhile."""
    load.end()
    left = "SELECT count(*) FROM processes WHERE NOT status IN ('completed', 'aborted')"
    until(lambda: engine.value(left) == 0, "every process has ended", REST_SECONDS, every=0.2)


def check(world: World, load: Load, recorder: Recorder) -> list[Invariant]:
    """Look at everything that was left; the programs still run."""
    engine = world.engine
    found: list[Invariant] = []

    def add(name: str, number: int, wrong: list[str]) -> None:
        found.append(Invariant(name, number, wrong))

    def rows(statement: str, *arguments: object) -> list[str]:
        return [" ".join(map(str, row)) for row in engine.query(statement, *arguments)]

    add("every start was answered", len(load.process_ids) + load.refused, load.unanswered())
    known: set[UUID] = {row[0] for row in engine.query("SELECT process_id FROM processes")}
    add(
        "no process that was started is lost", len(known), [str(o) for o in load.process_ids.values() if o not in known]
    )
    several = len(load.process_ids) - len(set(load.process_ids.values()))
    add("each key has started one process", len(load.process_ids), [f"{several} keys share one"] if several else [])
    add(
        "every process has completed",
        engine.value("SELECT count(*) FROM processes WHERE status = 'completed'"),
        rows("SELECT process_id, workflow, status FROM processes WHERE status <> 'completed'"),
    )
    add(
        "no process is claimed or running at the end",
        len(known),
        rows("SELECT process_id, status FROM processes WHERE status = 'running' OR claimed_by IS NOT NULL"),
    )
    add(
        "no step has succeeded twice",
        engine.value("SELECT count(*) FROM process_steps WHERE kind = 'step' AND status IN ('success', 'complete')"),
        rows(
            """SELECT process_id, name, count(*) FROM process_steps WHERE kind = 'step'
                AND status IN ('success', 'complete') GROUP BY 1, 2 HAVING count(*) > 1"""
        ),
    )
    add(
        "each effect is there once, with its step's entry",
        engine.value("SELECT count(*) FROM effects"),
        rows("SELECT process_id, step, count(*) FROM effects GROUP BY 1, 2 HAVING count(*) > 1")
        + rows(
            """SELECT e.process_id, e.step FROM effects e WHERE e.step LIKE 'Link _' AND NOT EXISTS (
                SELECT FROM process_steps s WHERE s.process_id = e.process_id AND s.name = e.step AND s.status = 'success')"""
        )
        + rows(
            """SELECT s.process_id, s.name FROM process_steps s WHERE s.name LIKE 'Link _' AND s.status = 'success'
                AND NOT EXISTS (SELECT FROM effects e WHERE e.process_id = s.process_id AND e.step = s.name)"""
        ),
    )
    add(
        "no log has a gap",
        len(known),
        rows("SELECT process_id FROM process_steps GROUP BY 1 HAVING count(*) <> max(sequence) OR min(sequence) <> 1"),
    )
    add(
        "each subscription has had one holder at a time",
        engine.value("SELECT count(*) FROM processes WHERE workflow = 'modify_thing'"),
        rows(BEGUN_BESIDE),
    )
    add(
        "no subscription is held at the end",
        engine.value("SELECT count(*) FROM subscriptions"),
        rows("SELECT subscription_id, locked_by FROM subscriptions WHERE NOT insync OR locked_by IS NOT NULL"),
    )
    add(
        "each subscription was changed as often as its processes say",
        engine.value("SELECT count(*) FROM effects WHERE step = 'Count'"),
        changes(engine, rows),
    )
    add_events(engine, recorder, add)
    letters = [str(one.headers.get("x-reason")) for one in engine.client.dead_letters()]
    provoked = [one for one in letters if one.startswith(PROVOKED)]
    add("no message was given up", len(known), [one for one in letters if one not in provoked])
    add("letters about what the load must not do", len(provoked), [])
    ended = [slot.name for slot in world.slots if not slot.program.runs]
    add("programs end on SIGTERM, and only then", len(engine.programs), [*world.wrong, *ended])
    add("no program reports a defect", len(engine.programs), engine.defects())
    add("no log holds a secret", len(engine.programs), engine.leaks())
    return found


def changes(engine: Installation, rows: Callable[..., list[str]]) -> list[str]:
    """Compare the count that each block holds with the steps that have counted."""
    counted = engine.query(
        """SELECT s.subscription_id, count(*) AS number FROM processes_subscriptions s JOIN effects e USING (process_id)
            WHERE e.step = 'Count' GROUP BY 1"""
    )
    wrong = []
    for subscription_id, number in counted:
        held = engine.value(
            "SELECT (resources ->> 'changed')::int FROM subscription_instances WHERE subscription_id = $1",
            subscription_id,
        )
        if held != number:
            wrong.append(f"{subscription_id}: {held} instead of {number}")
    return wrong + rows(
        """SELECT subscription_id, count(*) FROM subscription_changes WHERE note IS NULL
            GROUP BY 1 HAVING count(*) <> max(version)"""
    )


def add_events(engine: Installation, recorder: Recorder, add: Callable[[str, int, list[str]], None]) -> None:
    """Compare the events that another service has had with the logs."""
    behind = """SELECT count(*) FROM processes p
                 WHERE announced < (SELECT max(sequence) FROM process_steps s WHERE s.process_id = p.process_id)"""
    until(lambda: engine.value(behind) == 0, "the coordinators have announced everything", REST_SECONDS, every=0.2)
    recorder.drain()
    newest = engine.query("SELECT process_id, max(sequence) AS newest FROM process_steps GROUP BY 1")
    result = compare(recorder.events, {row["process_id"]: row["newest"] for row in newest})
    missing = [f"{process_id}: {sequences}" for process_id, sequences in result.missing.items()]
    unknown = [f"{process_id}: {sequences} are in no log" for process_id, sequences in result.unknown.items()]
    add("another service has had an event for every log entry", result.entries, missing + unknown)
    add("the first of each came in order", result.entries, [f"{result.late} came late"] if result.late else [])
    add("events that came more than once, which may be", result.twice, [])
