"""Programs that are killed, stopped, frozen and started again, while processes run."""

from __future__ import annotations

import random
import signal
import time
from functools import partial
from itertools import cycle, islice
from uuid import UUID

from tests.acceptance.chaos import ALL_LINKS, PATIENT, all_done, exactly_once, flood
from tests.acceptance.conftest import MakeInstallation
from tests.acceptance.programs import Program
from tests.acceptance.waiting import throughout, until


def test_a_consumer_that_is_killed_inside_a_step_leaves_nothing_and_another_runs_it(
    in_both_modes: MakeInstallation,
) -> None:
    """B8: kill -9 between the step's writes and its commit; the loss is in the log; the step is run again by itself."""
    engine = in_both_modes(**PATIENT)
    engine.coordinator().ready()
    consumer = engine.consumer().ready()
    process_id = engine.start("holds")
    engine.wait_for_note(process_id, "held")
    consumer.kill()
    assert engine.effects(process_id) == []
    assert engine.status(process_id) == "running"
    engine.consumer().ready()
    engine.wait_for_note(process_id, "held", 2)
    (lost,) = engine.log(process_id, "attempt lost")
    assert lost.note is not None
    assert "is presumed dead" in lost.note
    engine.open_gate(f"hold-{process_id}")
    engine.wait_for(process_id, "completed")
    assert engine.effects(process_id) == ["Hold", "After the hold"]
    exactly_once(engine)


def test_a_coordinator_that_is_killed_stops_no_running_step(installations: MakeInstallation) -> None:
    """B8: the step commits without it; the next coordinator goes on from the rows."""
    engine = installations(**PATIENT, ORCHESTRATOR_RUN_AHEAD="0")
    coordinator = engine.coordinator().ready()
    engine.consumer().ready()
    process_id = engine.start("holds")
    engine.wait_for_note(process_id, "held")
    coordinator.kill()
    engine.open_gate(f"hold-{process_id}")
    until(lambda: engine.effects(process_id) == ["Hold"], "the step commits without a coordinator")
    assert engine.status(process_id) == "running"
    engine.coordinator().ready()
    engine.wait_for(process_id, "completed")
    assert len(engine.journal(process_id, "held")) == 1
    assert engine.effects(process_id) == ["Hold", "After the hold"]


def test_programs_that_are_killed_again_and_again_do_everything_exactly_once(in_both_modes: MakeInstallation) -> None:
    """B8: a coordinator or a consumer is killed every second while forty processes run."""
    engine = in_both_modes(**PATIENT)
    coordinators = [engine.coordinator(), engine.coordinator()]
    consumers = [engine.consumer("--concurrency", "4"), engine.consumer("--concurrency", "4")]
    for program in coordinators + consumers:
        program.ready()
    process_ids = flood(engine)
    for kind in islice(cycle(["consumer", "consumer", "coordinator"]), 10):
        time.sleep(random.uniform(0.2, 0.8))  # the moment of a crash is nobody's event
        running, start = (consumers, engine.consumer) if kind == "consumer" else (coordinators, engine.coordinator)
        running.pop(0).kill()
        running.append(start())
    for program in coordinators + consumers:
        program.ready()
    all_done(engine, process_ids)
    assert engine.value("SELECT count(*) FROM process_steps WHERE name = 'attempt lost'") > 0, "a kill has hit a step"


def test_a_consumer_drains_on_sigterm(in_both_modes: MakeInstallation) -> None:
    """B8: the running step finishes and is stored, nothing new is claimed, exit code 0, nothing is lost."""
    engine = in_both_modes(**PATIENT)
    engine.coordinator().ready()
    consumer = engine.consumer().ready()
    process_id = engine.start("holds")
    engine.wait_for_note(process_id, "held")
    consumer.signal(signal.SIGTERM)
    until(lambda: "draining" in consumer.output(), "the consumer drains")
    later = engine.start("one_step")
    throughout(lambda: consumer.runs and engine.journal(later) == [], "it waits and claims nothing", 0.7)
    engine.open_gate(f"hold-{process_id}")
    assert consumer.exit_code() == 0
    assert engine.effects(process_id) == ["Hold"]
    engine.consumer().ready()
    for one in (process_id, later):
        engine.wait_for(one, "completed")
    assert [one.name for one in engine.log(process_id, kind="process")] == ["created", "running", "completed"]
    assert len(engine.journal(process_id, "held")) == 1


def test_a_step_that_outlasts_the_grace_is_given_back_at_once(in_both_modes: MakeInstallation) -> None:
    """B8: not after the heartbeat's silence, here ten minutes; another consumer runs it, and nothing was stored twice."""
    engine = in_both_modes(ORCHESTRATOR_DRAIN_GRACE="0.5", ORCHESTRATOR_PRESUMED_DEAD_AFTER="600")
    engine.coordinator().ready()
    consumer = engine.consumer().ready()
    process_id = engine.start("holds")
    engine.wait_for_note(process_id, "held")
    assert consumer.stop() == 0
    engine.consumer().ready()
    engine.wait_for_note(process_id, "held", 2)
    (given,) = engine.log(process_id, "given back")
    assert given.note is not None
    assert "was given back by the consumer" in given.note
    engine.open_gate(f"hold-{process_id}")
    engine.wait_for(process_id, "completed")
    assert engine.effects(process_id) == ["Hold", "After the hold"]


def test_rolling_restarts_under_load_lose_nothing(installations: MakeInstallation) -> None:
    """B8: every program is replaced by SIGTERM while forty processes run; all exit with 0, no attempt is lost."""
    engine = installations(**PATIENT | {"ORCHESTRATOR_PRESUMED_DEAD_AFTER": "20"})
    old = [engine.coordinator(), engine.coordinator(), engine.consumer(), engine.consumer()]
    for program in old:
        program.ready()
    process_ids = flood(engine)
    for program, start in zip(old, [engine.coordinator] * 2 + [engine.consumer] * 2, strict=True):
        new = start().ready()
        assert program.stop() == 0
        assert new.runs
    all_done(engine, process_ids)
    assert engine.value("SELECT count(*) FROM process_steps WHERE name IN ('attempt lost', 'failed')") == 0


REFUSED = ("attempt overtaken", "its claim is gone", "database lost during the step", "no claim to release")
"""How a consumer finds out that it may not commit any more; the last two when the server has ended its connection meanwhile."""


def _is_refused(consumer: Program, process_id: UUID) -> bool:
    lines = consumer.output().splitlines()
    return any(str(process_id) in line and any(one in line for one in REFUSED) for line in lines)


def test_a_frozen_consumer_that_wakes_up_is_refused(in_both_modes: MakeInstallation) -> None:
    """B8: SIGSTOP beyond the presumed-dead time, another consumer commits, SIGCONT: the late commit is fenced."""
    engine = in_both_modes(**PATIENT)
    engine.coordinator().ready()
    frozen = engine.consumer().ready()
    process_ids = [engine.start("holds") for _ in range(3)]
    for process_id in process_ids:
        engine.wait_for_note(process_id, "held")
    frozen.signal(signal.SIGSTOP)
    engine.consumer().ready()
    for process_id in process_ids:
        engine.wait_for_note(process_id, "held", 2)
        engine.open_gate(f"hold-{process_id}")
    for process_id in process_ids:
        engine.wait_for(process_id, "completed")
    frozen.signal(signal.SIGCONT)
    for process_id in process_ids:
        until(partial(_is_refused, frozen, process_id), "the consumer that was frozen finds itself overtaken")
    again = engine.finish("one_step")
    assert frozen.runs
    assert engine.status(again) == "completed"
    for process_id in process_ids:
        assert engine.effects(process_id) == ["Hold", "After the hold"]
        assert len([one for one in engine.log(process_id, "Hold") if one.status == "success"]) == 1
    exactly_once(engine)


def test_two_coordinators_and_three_consumers_share_the_work(installations: MakeInstallation) -> None:
    """B8, B3: everything exactly once, on all three consumers, with every event in order."""
    engine = installations()
    programs = [engine.coordinator(), engine.coordinator()]
    programs += [engine.consumer("--concurrency", "5") for _ in range(3)]
    for program in programs:
        program.ready()
    engine.client.listen()
    process_ids = flood(engine) + flood(engine, 20, "steady")
    all_done(engine, process_ids)
    consumers = engine.query("SELECT DISTINCT consumer FROM process_steps WHERE consumer IS NOT NULL")
    assert len(consumers) == 3
    lost = engine.value("SELECT count(*) FROM process_steps WHERE name IN ('attempt lost', 'given back', 'due again')")
    assert lost == 0
    for process_id in process_ids:
        newest = len(engine.log(process_id))
        until(lambda p=process_id, n=newest: len(engine.client.events_of(p)) >= n, "all events have come")  # type: ignore[misc]
        sequences = [event.body["sequence"] for event in engine.client.events_of(process_id)]
        assert list(dict.fromkeys(sequences)) == list(range(1, newest + 1)), "in order, repeated at most"
    assert [one["what"] for one in engine.journal(process_ids[0])] == [name.lower() for name in ALL_LINKS]


def test_plain_steps_that_sleep_for_an_hour_hold_up_no_stop(installations: MakeInstallation) -> None:
    """One in its thread, one in a query: both are given back, no connection is left, and the exit is a success."""
    engine = installations(ORCHESTRATOR_DRAIN_GRACE="0.5", ORCHESTRATOR_PRESUMED_DEAD_AFTER="600")
    engine.coordinator().ready()
    consumer = engine.consumer().ready()
    process_ids = [engine.start("sleeps"), engine.start("sleeps_in_a_query")]
    for process_id in process_ids:
        engine.wait_for_note(process_id, "asleep")
    assert consumer.stop(30) == 0
    left = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE '%consumer%'"
    until(lambda: engine.value(left) == 0, "no connection of the consumer is left")
    engine.open_gate("morning")
    engine.consumer().ready()
    for process_id in process_ids:
        engine.wait_for(process_id, "completed")
        (given,) = engine.log(process_id, "given back")
        assert "was given back by the consumer" in (given.note or "")
        assert len(engine.effects(process_id)) == 1
