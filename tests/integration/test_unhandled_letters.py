"""Messages from outside that come back again and again while PostgreSQL is away, and those that bring programs down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from uuid import UUID, uuid4

import pytest
import tenacity

from orchestrator.broker import connection as broker_connection
from orchestrator.broker.connection import close, connect, measure
from orchestrator.broker.incoming import Delivery
from orchestrator.broker.publisher import Publisher
from orchestrator.broker.topology import Exchanges, Queues, Topology
from orchestrator.coordinator import unhandled
from orchestrator.coordinator.dead_letters import LetterKeeper
from orchestrator.coordinator.program import run_coordinator
from orchestrator.coordinator.unhandled import MAX_BEGUN, UnhandledLetters
from orchestrator.db.session import Database
from orchestrator.errors import MessageError
from orchestrator.settings import Settings
from orchestrator.workflow import StepList, callback_step, done, init, step, workflow
from tests.forwarder import Forwarder, Place, place_of, through
from tests.integration.engine_bench import LIMITS, Bench, bench_of
from tests.integration.letter_bench import SENT, kept, publish
from tests.integration.test_broker import address, letters
from tests.integration.waiting import until

BREAKS = 50
STARTS, ANSWERS = 10, 5


@step("Send")
def send(callback_token: str) -> None:
    """Send a job."""


@step("Check")
def check() -> None:
    """Do nothing."""


@workflow("Waits for another system")
def wait_for_it() -> StepList:
    return init >> callback_step("Delivery", send, check) >> done


@workflow("Does nothing")
def do_nothing() -> StepList:
    return init >> check >> done


@pytest.fixture
async def bench(database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    await Publisher(address(amqp_url), Topology.of("quorum"), 5).check()  # only these have a delivery limit
    async with bench_of(database, amqp_url, monkeypatch, __name__, wait_for_it, do_nothing) as made:
        yield made


async def _park(bench: Bench) -> tuple[UUID, str]:
    process_id = await bench.start("wait_for_it")
    token = await bench.database.pool.fetchval("SELECT token FROM callbacks WHERE process_id = $1", process_id)
    await bench.run_step(process_id, await bench.runner(), "awaiting_callback")
    return process_id, str(token)


async def test_no_start_and_no_answer_is_lost_by_fifty_broken_connections_while_postgresql_is_away(
    bench: Bench, amqp_url: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_connection, "SERVER_AWAY", tenacity.wait_fixed(0.01))
    parked = [await _park(bench) for _ in range(ANSWERS)]
    is_away = is_cut = False

    def postgresql() -> Place | None:
        return None if is_away else place_of(database_url)

    def rabbitmq() -> Place | None:
        return None if is_cut else place_of(amqp_url)

    async with (
        Forwarder(postgresql) as server,
        Forwarder(rabbitmq) as broker,
        asyncio.TaskGroup() as tasks,
    ):
        # Otherwise it would stop reading after some seconds, and the messages would come back no more.
        settings = Settings(  # the others have defaults
            database_url=through(database_url, server.port),
            amqp_url=through(amqp_url, broker.port),
            queue_type="quorum",
            presumed_dead_after=3600,
        )
        stopping = asyncio.Event()
        watcher = await connect(address(amqp_url), "watch")

        async def reads(expected: bool) -> bool:
            commands, last = [await measure(watcher, one) for one in (Queues.COMMANDS, Queues.LETTERS)]
            if commands is None or last is None:
                return False
            return last.consumers == 1 and commands.ready == 0 if expected else last.consumers == 0

        tasks.create_task(run_coordinator(settings, stopping))
        await until(lambda: reads(True), "the coordinator reads")
        is_away = True
        server.cut()
        for number in range(STARTS):
            named = {"message_id": f"start {number}"} if number % 2 else {}
            await publish(amqp_url, Exchanges.COMMANDS, "workflow.start", b'{"workflow": "do_nothing"}', **named)
        for _, token in parked:
            await publish(amqp_url, Exchanges.CALLBACKS, "callback.completed", b"{}", correlation_id=token)
        for _ in range(BREAKS):
            await until(lambda: reads(True), "the coordinator has the messages again")
            is_cut = True  # until it is seen: the coordinator comes back at once
            broker.cut()
            await until(lambda: reads(False), "the broker has noticed it")
            is_cut = False
        assert await bench.database.pool.fetchval("SELECT count(*) FROM processes") == ANSWERS
        is_away = False

        async def all_done() -> bool:
            statuses = [(await bench.row(process_id))["status"] for process_id, _ in parked]
            started = await bench.database.pool.fetchval("SELECT count(*) FROM processes WHERE workflow = 'do_nothing'")
            return "awaiting_callback" not in statuses and started >= STARTS

        await until(all_done, "each start is a process, and each answer has completed its step")
        await kept(bench.database, 0)
        replayed = await bench.database.pool.fetch("SELECT outcome, closed_by FROM dead_letters")
        assert {tuple(one) for one in replayed} == {("replayed", "SYSTEM")}
        assert len(replayed) >= STARTS + ANSWERS, "the broker has given them up"
        await close(watcher)
        stopping.set()
    used = "SELECT count(*) FROM process_steps WHERE name = 'Delivery' AND status = 'success'"
    assert await bench.database.pool.fetchval(used) == ANSWERS
    assert await bench.database.pool.fetchval("SELECT count(*) FROM processes") == STARTS + ANSWERS
    assert await letters(amqp_url, Queues.DEAD) == [], "people see none of them"


def _from_the_broker(key: str, token: str | None = None) -> Delivery:
    """Return a letter that the broker has made, of a message that came back too often."""
    return Delivery(
        Queues.LETTERS.value,
        b'{"workflow": "do_nothing"}',
        None,
        key,
        str(uuid4()),
        token,
        None,
        redelivered=False,
        exchange=Exchanges.DEAD.value,
        properties={
            "correlation_id": token,
            "headers": {"x-death": [{"reason": "delivery_limit", "time": SENT}]},
        },
    )


def _coordinator(bench: Bench) -> UnhandledLetters:
    return UnhandledLetters(bench.database, bench.publisher, LIMITS, interval=1)


async def test_a_command_that_brings_down_each_program_that_begins_it_ends_in_the_dead_letters(
    bench: Bench, amqp_url: str
) -> None:
    woken = asyncio.Event()
    await LetterKeeper(bench.database, bench.publisher, woken.set).take(_from_the_broker("workflow.start"))
    assert woken.is_set()
    assert await _coordinator(bench).run_once() == 1
    await kept(bench.database, 0)
    (message,) = await letters(amqp_url, Queues.COMMANDS)
    again = replace(_from_the_broker("workflow.start"), properties={"headers": dict(message.headers)})
    survivor = _coordinator(bench)
    for _ in range(3):
        await survivor.admit(again)
    for _ in range(MAX_BEGUN - 1):
        await _coordinator(bench).admit(again)
    await survivor.admit(again)
    with pytest.raises(MessageError, match="3 did not live to its end"):
        await _coordinator(bench).admit(again)
    await _coordinator(bench).admit(replace(again, properties={"headers": {"x-replay-of": str(uuid4())}}))
    await _coordinator(bench).admit(replace(again, properties={"headers": {"x-replay-of": 7}}))


async def test_an_answer_that_brings_down_each_program_that_takes_it_is_left_to_people(
    bench: Bench, amqp_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, token = await _park(bench)

    async def die(*_: object) -> None:
        raise asyncio.CancelledError

    keeper = LetterKeeper(bench.database, bench.publisher, lambda: None)
    await keeper.take(_from_the_broker("callback.completed", token))
    monkeypatch.setattr(unhandled, "send_again", die)
    for _ in range(MAX_BEGUN):
        with pytest.raises(asyncio.CancelledError):
            await _coordinator(bench).run_once()
    assert await _coordinator(bench).run_once() == 1
    assert await _coordinator(bench).run_once() == 0
    (stored,) = await kept(bench.database, 1)
    assert "3 did not live to its end" in stored.summary.reason
    assert len(await letters(amqp_url, Queues.DEAD)) == 1, "people see it"


async def test_an_answer_that_is_refused_when_it_is_put_back_is_left_to_people(bench: Bench, amqp_url: str) -> None:
    keeper = LetterKeeper(bench.database, bench.publisher, lambda: None)
    await keeper.take(_from_the_broker("callback.completed", "a token that nobody has"))
    await keeper.take(_from_the_broker("callback.completed"))
    assert await _coordinator(bench).run_once() == 2
    assert await _coordinator(bench).run_once() == 0
    reasons = {one.summary.reason for one in await kept(bench.database, 2)}
    assert any("there is no such callback token" in one for one in reasons)
    assert any("no correlation_id" in one for one in reasons)
    assert len(await letters(amqp_url, Queues.DEAD)) == 2
