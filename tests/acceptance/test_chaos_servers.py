"""Servers that stop, crash, come back and lose their data, while processes run. Each test breaks a private pair."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast
from urllib.parse import quote, urlsplit
from uuid import UUID

import aio_pika
import pytest

from tests.acceptance.chaos import PATIENT, all_done, exactly_once, flood, half_done
from tests.acceptance.conftest import MakeInstallation, make_installations
from tests.acceptance.installation import Installation
from tests.acceptance.pair import Pair
from tests.acceptance.test_many_starts import all_ran_once
from tests.acceptance.waiting import until
from tests.databases import Databases
from tests.servers import Servers

ACKNOWLEDGED_WITHIN = (
    "application:set_env(rabbit, consumer_timeout, {}), application:set_env(rabbit, channel_tick_interval, {})."
)
"""Erlang: for how many milliseconds channels that are opened from now on wait, and how often they look."""


@pytest.fixture(scope="module")
def module_pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Started once; each start of RabbitMQ takes ten seconds."""
    pair = Pair(tmp_path_factory.mktemp("chaos") / "services")
    try:
        pair.run("up")
        yield pair
    finally:
        pair.run("down", "--wipe")


@pytest.fixture
def pair(module_pair: Pair) -> Pair:
    """Running, whatever the test before has done."""
    module_pair.run("up")
    return module_pair


@pytest.fixture(scope="module")
def breakable_databases(module_pair: Pair) -> Iterator[Databases]:
    """The databases of the private pair; they go with it."""
    databases = Databases(module_pair.servers())
    yield databases
    module_pair.run("up")
    databases.close()


@pytest.fixture
def breakable(
    pair: Pair, breakable_databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """A running installation on the private pair: two coordinators and two consumers."""
    with make_installations(breakable_databases, tmp_path_factory.mktemp, vhost="/") as make:
        engine = make(**PATIENT)
        start(engine)
        yield engine
        engine.kill_all()
        pair.run("up")  # a test that failed half-way may have left a server down
        engine.background.run(drop_queues(engine))


async def drop_queues(engine: Installation) -> None:
    """Leave an empty broker to the next test."""
    connection = await aio_pika.connect(engine.amqp_url, timeout=60)
    async with connection:
        channel = await connection.channel()
        for name in ("commands", "control", "results", "callbacks", "dead", "steps.default", "steps.tasks"):
            await channel.queue_delete(f"orchestrator.{name}")


def start(engine: Installation) -> None:
    """Start its programs and wait until they consume."""
    programs = [engine.coordinator(), engine.coordinator()]
    programs += [engine.consumer("--concurrency", "4") for _ in range(2)]
    for program in programs:
        program.ready()


def noticed(engine: Installation, *words: str) -> None:
    """Wait until every program has noticed that a server is gone."""
    until(
        lambda: all(any(word in program.output() for word in words) for program in engine.programs),
        f"every program logs {' or '.join(words)!r}",
    )


def nothing_buried(engine: Installation) -> None:
    """No valid message was given up, and no program has ended."""
    assert [one.headers.get("x-reason") for one in engine.client.dead_letters()] == []
    assert all(program.runs for program in engine.programs)


@pytest.mark.parametrize("verb", ["stop", "kill"])
def test_the_broker_goes_away_under_load_and_comes_back(breakable: Installation, pair: Pair, verb: str) -> None:
    """B8: RabbitMQ is stopped, or killed by SIGKILL: running steps commit meanwhile; then all complete, nothing twice."""
    held = breakable.start("holds")
    breakable.wait_for_note(held, "held")
    process_ids = [*flood(breakable), held]
    half_done(breakable)
    pair.run(verb, "rabbitmq")
    breakable.open_gate(f"hold-{held}")
    until(lambda: "Hold" in breakable.effects(held), "the running step commits without a broker")
    noticed(breakable, "broker connection lost")
    pair.run("start", "rabbitmq")
    all_done(breakable, process_ids)
    assert len(breakable.journal(held, "held")) == 1
    nothing_buried(breakable)


@pytest.mark.parametrize("trouble", ["stop", "alarm"])
def test_processes_that_a_step_starts_while_the_broker_is_away_or_blocked_all_run_once(
    breakable: Installation, pair: Pair, trouble: str
) -> None:
    """B16: RabbitMQ is stopped, or takes no messages because its memory is used up; then it is back."""
    parent = breakable.start("task_starts_many", {"number": 300})
    breakable.wait_for_note(parent, "half")
    if trouble == "stop":
        pair.run("stop", "rabbitmq")
    else:
        pair.run("ctl", "--", "set_vm_memory_high_watermark", "0.000001")
    breakable.open_gate(f"start-{parent}")
    until(
        lambda: breakable.value("SELECT count(*) FROM processes WHERE parent_id = $1", parent) == 300,
        "the step commits without a broker",
    )
    noticed_by_one = "broker is away" if trouble == "stop" else "not published"
    until(
        lambda: noticed_by_one in breakable.logs() or "broker is away" in breakable.logs(),
        "a coordinator has tried in vain",
    )
    if trouble == "stop":
        pair.run("start", "rabbitmq")
    else:
        pair.run("ctl", "--", "set_vm_memory_high_watermark", "0.6")
    all_ran_once(breakable, parent, 300)
    nothing_buried(breakable)


def test_a_broker_that_has_lost_everything_costs_no_process(breakable: Installation, pair: Pair) -> None:
    """B42: wiped while processes run, wait, are suspended and parked: all complete, and no commit happens twice."""
    suspended, waiting, parked, held = (breakable.start(one) for one in ("asks", "tried_again", "calls_out", "holds"))
    breakable.open_gate(f"order-{parked}")
    for process_id, status in ((suspended, "suspended"), (parked, "awaiting_callback")):
        breakable.wait_for(process_id, status)
    breakable.wait_for_note(waiting, "try", 2)
    breakable.wait_for_note(held, "held")
    process_ids = flood(breakable)
    half_done(breakable)

    pair.run("wipe", "rabbitmq")
    breakable.open_gate(f"mended-{waiting}")
    breakable.open_gate(f"hold-{held}")
    breakable.answer(breakable.token(parked), {"ok": True})
    answer = breakable.resume(suspended, {"choice": "red"}, {"sure": True})
    assert answer.type == "process.resumed"
    all_done(breakable, [*process_ids, suspended, waiting, parked, held])
    assert breakable.effects(parked) == ["Order", "Check"]
    assert len(breakable.journal(held, "held")) == 1
    breakable.finish("one_step")
    nothing_buried(breakable)


def test_a_broker_that_waits_no_longer_for_an_acknowledgement_is_quoted_and_the_start_is_kept(
    breakable: Installation, pair: Pair
) -> None:
    """RabbitMQ closes the channel after half an hour; here after a second. The log has its words, not only 'connection lost'."""
    for program in breakable.programs[:2]:
        program.kill()
    pair.run("ctl", "--", "eval", ACKNOWLEDGED_WITHIN.format(1000, 500))
    try:
        coordinator = breakable.coordinator().ready()
        breakable.client.send(
            "orchestrator.commands", "workflow.start", {"workflow": "asks_for_long", "inputs": [{}], "user": "patient"}
        )
        until(lambda: "delivery acknowledgement" in coordinator.output(), "the log has the broker's words")
        (said, *_) = [line for line in coordinator.output().splitlines() if "delivery acknowledgement" in line]
        assert "broker connection lost" in said
        assert "PRECONDITION_FAILED" in said
    finally:
        pair.run("ctl", "--", "eval", ACKNOWLEDGED_WITHIN.format(1_800_000, 60_000))
    breakable.open_gate("form")
    done = "SELECT count(*) FROM processes WHERE started_by = 'patient' AND status = 'completed'"
    until(lambda: breakable.value(done) == 1, "it is started once, and completes")
    assert breakable.client.dead_letters() == []


def test_the_database_crashes_under_load_and_comes_back(breakable: Installation, pair: Pair) -> None:
    """B8: PostgreSQL is killed by SIGKILL and recovers; nothing is buried, nothing is done twice, all complete."""
    held = breakable.start("holds")
    breakable.wait_for_note(held, "held")
    process_ids = flood(breakable)
    half_done(breakable)
    pair.run("kill", "postgres")
    breakable.open_gate(f"hold-{held}")
    breakable.client.send("orchestrator.commands", "workflow.start", {"workflow": "chain", "user": "patient"})
    noticed(breakable, "the database is away", "heartbeat failed")
    assert all(program.runs for program in breakable.programs)
    pair.run("start", "postgres")
    until(lambda: reconnected(breakable), "the database answers")
    late = until(
        lambda: breakable.query("SELECT process_id FROM processes WHERE started_by = 'patient'"),
        "the start that was sent meanwhile is carried out",
    )
    all_done(breakable, [*process_ids, held, late[0][0]])
    nothing_buried(breakable)


def test_the_database_restarts_under_load(breakable: Installation, pair: Pair) -> None:
    """B8: an orderly restart cuts every connection, also of steps that run; those are run again."""
    process_ids = flood(breakable)
    half_done(breakable)
    for _ in range(2):
        pair.run("stop", "postgres")
        pair.run("start", "postgres")
        until(lambda: reconnected(breakable), "the database answers")
    all_done(breakable, process_ids)
    nothing_buried(breakable)


def reconnected(engine: Installation) -> bool:
    """Whether the database can be read again."""
    try:
        return bool(engine.value("SELECT 1") == 1)
    except Exception:
        return False


def test_everything_dies_at_once_and_comes_back(breakable: Installation, pair: Pair) -> None:
    """B8: a power cut: both servers and all programs."""
    process_ids = flood(breakable)
    half_done(breakable)
    breakable.kill_all()
    pair.run("kill", "rabbitmq")
    pair.run("kill", "postgres")
    pair.run("up")
    until(lambda: reconnected(breakable), "the database answers")
    exactly_once(breakable)
    start(breakable)
    all_done(breakable, process_ids)


def test_queues_that_an_operator_deletes_are_made_again_and_work_goes_on(
    installations: MakeInstallation, servers: Servers
) -> None:
    """B41, B42: each queue in turn, through the management API, under load."""
    engine = installations(**PATIENT)
    for program in (engine.coordinator(), engine.consumer("--concurrency", "4")):
        program.ready()
    vhost = quote(urlsplit(engine.amqp_url).path[1:], safe="")
    names = [f"orchestrator.{name}" for name in ("steps.default", "results", "commands", "callbacks")]
    process_ids: list[UUID] = []
    for name in names:
        process_ids += [engine.start("chain") for _ in range(15)]
        servers.call("DELETE", f"queues/{vhost}/{name}")

    def declared() -> bool:
        found = cast("list[dict[str, Any]]", servers.call("GET", f"queues/{vhost}"))
        return set(names) <= {one["name"] for one in found if one.get("consumers")}

    all_done(engine, process_ids)
    until(declared, "all queues are there again, with their readers")
    parked = engine.start("calls_out")
    engine.open_gate(f"order-{parked}")
    engine.answer(engine.token(parked), {"ok": True})
    engine.wait_for(parked, "completed")
    assert all(program.runs for program in engine.programs)


def test_a_queue_without_a_leader_does_not_keep_a_program_from_reading_the_others(
    breakable: Installation, pair: Pair
) -> None:
    """B42: so a crash may leave one queue; who asks to read it has no answer, and then loses the connection."""
    queue = '{list_to_atom("%2F_orchestrator.steps.tasks"), node()}'
    pair.run("ctl", "--", "eval", f"ra:stop_server(quorum_queues, {queue}).")
    for program in breakable.programs[2:]:
        program.kill()
    consumer = breakable.consumer("--concurrency", "4")
    until(lambda: "a queue does not answer" in consumer.output(), "it says which queue does not answer")
    until(lambda: "consuming" in consumer.output(), "it reads the others")
    task = breakable.start("task_one")
    breakable.wait_for(breakable.start("chain"), "completed")
    pair.run("ctl", "--", "eval", f"ra:restart_server(quorum_queues, {queue}), ra:trigger_election({queue}).")
    breakable.wait_for(task, "completed")
    assert "a queue answers again" in consumer.output()
