"""Steps and forms that fork their program, with multiprocessing or without."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import UUID

from tests.acceptance.conftest import MakeInstallation
from tests.acceptance.installation import Installation
from tests.acceptance.programs import measured
from tests.acceptance.waiting import until

OUTCOMES = {"terminated": [-signal.SIGTERM], "squares": [0, 1, 4, 9, 16], "returned": os.EX_SOFTWARE}
"""What comes of a function that forks in all ways."""


def test_what_steps_do_to_their_children_does_not_happen_to_the_consumer(installations: MakeInstallation) -> None:
    """Signals to a fork reach the fork alone, and a fork that returns into the engine ends; each step runs once."""
    engine = installations()
    engine.coordinator().ready()
    consumer = engine.consumer().ready()

    assert engine.state(engine.finish("terminates_children")) == {"in_thread": [-15], "on_loop": [-15]}
    for _ in range(3):
        assert engine.state(engine.finish("leaves_pools_busy")) == {"squares": [0, 1, 4, 9, 16], "again": []}
    returned = engine.finish("returns_from_forks")
    assert engine.state(returned) == dict.fromkeys(("in_thread", "on_loop", "awaits"), os.EX_SOFTWARE)
    assert consumer.output().count("a forked process has returned from the function that forked it") == 3
    assert engine.state(engine.finish("uses_start_methods")) == {"spawn": [9], "forkserver": [9]}
    assert consumer.runs
    assert engine.value("SELECT count(*) FROM process_steps WHERE name = 'attempt lost'") == 0
    assert (
        engine.query(
            "SELECT name FROM process_steps WHERE status = 'success' GROUP BY process_id, name HAVING count(*) > 1"
        )
        == []
    )
    assert consumer.stop() == 0


def test_what_forms_do_to_their_children_does_not_happen_to_the_coordinator(installations: MakeInstallation) -> None:
    """In a thread and on the loop: each form is answered, the coordinator goes on, and ends when it is told to."""
    engine = installations()
    coordinator = engine.coordinator().ready()
    engine.consumer().ready()
    for workflow, where in (("asks_and_forks", "in a thread"), ("asks_and_forks_on_loop", "on the loop")):
        engine.wait_for(engine.start(workflow, {}), "completed")
        # The fork takes a note as well before it returns into the engine.
        (said,) = [one for one in engine.journal("form", where) if one["returned"] is not None]
        assert all(said[what] == outcome for what, outcome in OUTCOMES.items())
    assert coordinator.output().count("a forked process has returned from the function that forked it") == 2
    assert engine.client.dead_letters() == []
    assert coordinator.stop() == 0
    assert "processes that user code has left behind were terminated" in coordinator.output()


def test_a_step_that_runs_apart_may_fork_as_well(installations: MakeInstallation) -> None:
    """In the child process of a consumer: it stores the step's outcome, and ends although a pool is busy."""
    engine = installations(ORCHESTRATOR_PRESUMED_DEAD_AFTER="2", **measured())
    engine.coordinator().ready()
    engine.consumer().ready()
    process_id = engine.start("forks_apart")
    engine.wait_for_note(process_id, "forks")
    engine.open_gate("killed once")
    consumer = engine.consumer().ready()
    engine.wait_for(process_id, "completed")
    state = engine.state(process_id)
    assert {what: state[what] for what in OUTCOMES} == OUTCOMES
    pid = engine.journal(process_id, "forks")[-1]["pid"]
    assert pid != consumer.pid
    until(lambda: not is_alive(pid), "the child has ended")
    engine.finish("one_step")
    assert consumer.stop() == 0


def test_a_consumer_that_stops_terminates_what_its_steps_have_left(installations: MakeInstallation) -> None:
    """Python waits for such processes at its end, however long they run."""
    engine = installations()
    engine.coordinator().ready()
    consumer = engine.consumer().ready()
    with child_of(engine, engine.start("leaves_child", {"name": "ends"})) as child:
        engine.finish("one_step")
        assert consumer.stop() == 0
        until(lambda: not is_alive(child), "its child has ended")
    assert "processes that user code has left behind were terminated" in consumer.output()


def test_a_child_that_outlives_its_consumer_keeps_none_of_its_connections(installations: MakeInstallation) -> None:
    """To both servers the consumer that was killed alone is gone at once; its queue's commands go to the next consumer."""
    engine = installations()
    engine.coordinator().ready()
    consumer = engine.consumer().ready()
    process_id = engine.start("leaves_child", {"name": "outlives"})
    with child_of(engine, process_id) as child:
        consumer.signal(signal.SIGKILL)
        until(lambda: connections(engine) == 0, "PostgreSQL has no connection of the consumer")
        until(lambda: readers(engine) == 0, "RabbitMQ has no consumer of its queue")
        assert is_alive(child)
        engine.consumer().ready()
        engine.finish("one_step")
        engine.open_gate("grown up")
        engine.wait_for(process_id, "completed")
        with child_of(engine, process_id, number=2):
            pass


@contextmanager
def child_of(engine: Installation, process_id: UUID, number: int = 1) -> Iterator[int]:
    """Provide the child that a step of a process has left, and end it."""
    engine.wait_for_note(process_id, "child", number)
    child = int(engine.journal(process_id, "child")[number - 1]["child"])
    try:
        yield child
    finally:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended may wait for its parent to ask."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def connections(engine: Installation) -> int:
    """Return how many connections of consumers PostgreSQL has."""
    count: int = engine.value(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name LIKE 'orchestrator-consumer%'"
    )
    return count


def readers(engine: Installation) -> int:
    """Return how many consumers RabbitMQ has of the default queue."""
    (queue,) = [one for one in engine.json("status")["queues"] if one["name"] == "orchestrator.steps.default"]
    return int(queue["consumers"])
