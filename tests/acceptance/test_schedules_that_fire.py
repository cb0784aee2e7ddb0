"""Coordinators that are killed or stand still while they start what schedules are due for."""

from __future__ import annotations

import json
import signal
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from orchestrator.engine.schedule import write_trigger
from orchestrator.engine.triggers import DateTrigger
from tests.acceptance.conftest import MakeInstallation
from tests.acceptance.installation import Installation
from tests.acceptance.waiting import until
from tests.forwarder import Forwarder, place_of, through

ADD = """
INSERT INTO schedules (schedule_id, name, origin, workflow, inputs, trigger, enabled, missed, missed_limit, overlap, jitter,
                       settled_through, next_slot, due_at, zone_rules, created_by, changed_by)
VALUES ($1, $2, 'person', $3, '[]', $4::text::jsonb, true, 'skip', 1, 'skip', 0, $5::timestamptz - interval '1 second', $5, $5,
        'some', 'ann', 'ann')
"""
HOLD = "SELECT 1 FROM workflows WHERE name = $1 FOR UPDATE"
"""Lets nobody insert a process of a workflow: whoever is about to, has locked the schedule, and waits."""


def add(engine: Installation, name: str, workflow: str = "one_step") -> UUID:
    """Add a schedule that is due once, now."""
    schedule_id = uuid4()
    now: datetime = engine.value("SELECT date_trunc('second', clock_timestamp())")
    trigger = json.dumps(write_trigger(DateTrigger(now + timedelta(seconds=1))))
    engine.write(ADD, schedule_id, name, workflow, trigger, now + timedelta(seconds=1))
    return schedule_id


def started_by(engine: Installation, schedule: str) -> list[UUID]:
    """Return the processes that a schedule has started."""
    rows = engine.query("SELECT process_id FROM processes WHERE started_by = $1", f"schedule:{schedule}")
    return [row["process_id"] for row in rows]


def results(engine: Installation, schedule_id: UUID) -> list[str]:
    """Return what became of a schedule's slots."""
    rows = engine.query("SELECT result FROM schedule_slots WHERE schedule_id = $1", schedule_id)
    return [row["result"] for row in rows]


def test_a_slot_starts_once_when_its_coordinator_is_killed_inside_its_commit_or_before_it_has_published(
    installations: MakeInstallation,
) -> None:
    engine = installations()
    engine.consumer().ready()
    forwarder = Forwarder(lambda: place_of(engine.amqp_url))
    engine.background.run(forwarder.listen(0))

    first = engine.coordinator(TZ="Australia/Lord_Howe").ready()
    with engine.holding(HOLD, "one_step") as holder:
        inside = add(engine, "inside")
        until(lambda: engine.waits_for(holder), "the coordinator is about to store the process")
        first.kill()
    second = engine.coordinator(
        TZ="America/Santiago", ORCHESTRATOR_AMQP_URL=through(engine.amqp_url, forwarder.port)
    ).ready()
    (process_id,) = until(lambda: started_by(engine, "inside"), "the other coordinator starts the slot")
    engine.wait_for(process_id, "completed")

    engine.background.run(_freeze(forwarder))
    after = add(engine, "after")
    (unpublished,) = until(lambda: started_by(engine, "after"), "the process is stored")
    second.kill()
    engine.background.run(forwarder.close())
    engine.coordinator(TZ="Europe/Amsterdam").ready()
    engine.wait_for(unpublished, "completed")

    for name, schedule_id in (("inside", inside), ("after", after)):
        assert len(started_by(engine, name)) == 1
        assert results(engine, schedule_id) == ["started"]
    assert engine.value("SELECT count(*) FROM schedules WHERE next_slot IS NOT NULL OR due_at IS NOT NULL") == 0


def test_a_coordinator_that_stands_still_inside_its_commit_holds_up_no_other(installations: MakeInstallation) -> None:
    engine = installations()
    engine.consumer().ready()
    first = engine.coordinator().ready()
    with engine.holding(HOLD, "one_step") as holder:
        frozen = add(engine, "frozen")
        until(lambda: engine.waits_for(holder), "the coordinator is about to store the process")
        first.signal(signal.SIGSTOP)
    second = engine.coordinator().ready()
    add(engine, "other", "chain")
    (process_id,) = until(lambda: started_by(engine, "other"), "another schedule is served")
    engine.wait_for(process_id, "completed")
    (process_id,) = until(lambda: started_by(engine, "frozen"), "the server has ended the transaction")
    engine.wait_for(process_id, "completed")

    second.stop()
    first.signal(signal.SIGCONT)
    add(engine, "later")
    (process_id,) = until(lambda: started_by(engine, "later"), "the first one goes on")
    engine.wait_for(process_id, "completed")
    assert len(started_by(engine, "frozen")) == 1
    assert results(engine, frozen) == ["started"]
    assert first.runs


async def _freeze(forwarder: Forwarder) -> None:
    forwarder.freeze()
