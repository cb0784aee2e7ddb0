"""Each cause that ends steps that run ahead, before, in and after the last one: one command or none, and every step once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from consumers.run_ahead import Stretch
from consumers.runner import Runner
from orchestrator.db.processes.advance import Advance, advance_many
from orchestrator.db.processes.claims import lock_lost_claims
from orchestrator.db.session import Database
from orchestrator.messages import MessageType, encode
from orchestrator.services.control import abort
from orchestrator.services.reconcile import release_lost_claim
from tests.integration import run_ahead_bench
from tests.integration.engine_bench import LIMITS, Bench, bench_of, delivery
from tests.integration.run_ahead_bench import MANY, WORKFLOWS, Sent, consumer, gates, ran, rest, take
from tests.integration.waiting import until


@pytest.fixture
async def bench(database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    ran.clear()
    gates.clear()
    async with bench_of(database, amqp_url, monkeypatch, run_ahead_bench.__name__, *WORKFLOWS) as one:
        yield one
        for gate in gates.values():
            gate.set()


class Scene:
    """A consumer in the middle of a process, for a cause to act on."""

    def __init__(self, bench: Bench, one: Runner, process_id: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bench, self.one, self.process_id, self.monkeypatch = bench, one, process_id, monkeypatch

    @property
    def stretch(self) -> Any:
        """What its step belongs to."""
        return self.one._running[self.process_id].stretch

    async def execute(self, statement: str) -> None:
        await self.bench.database.pool.execute(statement)


async def spend_the_steps(scene: Scene) -> None:
    scene.stretch._steps = 1000


async def spend_the_time(scene: Scene) -> None:
    scene.stretch._began -= 1000


async def drain(scene: Scene) -> None:
    scene.one.refuse()


async def pause(scene: Scene) -> None:
    await scene.execute("UPDATE engine_settings SET global_lock = true")


async def be_forgotten(scene: Scene) -> None:
    """The consumer's heartbeat is overdue, so its next claim fails; that of the present step is still there."""
    await scene.execute("UPDATE consumers SET seen_at = now() - interval '1 hour'")


async def fail_in_our_loop(scene: Scene) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a defect of ours")

    scene.monkeypatch.setattr(Stretch, "hold", fail)


CAUSES = [spend_the_steps, spend_the_time, drain, pause, be_forgotten, fail_in_our_loop]


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: str(cause.__name__))
async def test_after_its_end_one_command_follows_and_every_step_has_run_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, cause: Callable[[Scene], Awaitable[None]]
) -> None:
    for at in (1, MANY // 2, MANY - 1, MANY):
        ran.clear()
        gates[f"Step {at}"] = asyncio.Event()
        one, sent = await consumer(bench, 100)
        process_id = await bench.start("many")
        await take(one, await bench.command(process_id))
        await until(lambda n=at: f"Step {n}" in ran, "the step runs")  # type: ignore[misc]
        with monkeypatch.context() as patches:
            await cause(Scene(bench, one, process_id, patches))
            gates.pop(f"Step {at}").set()
            await rest(one)
        assert ran == names(at), "nothing has begun after the cause"
        assert [command.step for command in sent.commands] == names(MANY)[at : at + 1], "at once, not when it is due"
        row = await bench.row(process_id)
        assert (row["claimed_by"], row["lost"], row["interruptions"]) == (None, 0, 0)
        if at < MANY:
            (command,) = sent.commands
            given_back = cause is fail_in_our_loop
            assert command.attempt == at + given_back, "each attempt but one that was given back has run"
            await bench.database.pool.execute("UPDATE engine_settings SET global_lock = false")
            await finish(bench, sent)
        assert ran == names(MANY)
        assert (await bench.row(process_id))["status"] == "completed"


async def test_a_claim_that_was_lost_in_a_step_ends_it_without_a_command(bench: Bench) -> None:
    """Whoever has released the claim publishes the next command."""
    for at in (1, MANY // 2, MANY):
        ran.clear()
        gates[f"Step {at}"] = asyncio.Event()
        one, sent = await consumer(bench, 100)
        process_id = await bench.start("many")
        await take(one, await bench.command(process_id))
        await until(lambda n=at: f"Step {n}" in ran, "the step runs")  # type: ignore[misc]
        await bench.database.pool.execute("DELETE FROM consumers")
        async with bench.database.transaction() as session:
            await session.execute(
                text("UPDATE processes SET claimed_at = now() - interval '1 minute' WHERE claimed_by IS NOT NULL")
            )
            (lost,) = await lock_lost_claims(session, reads_for=60, presumed_dead_after=10, limit=9)
            message = await release_lost_claim(session, lost, LIMITS)
        gates.pop(f"Step {at}").set()
        await rest(one)
        assert sent.commands == []
        assert ran == names(at)
        assert message.next is not None
        assert (message.next.step, message.next.attempt) == (f"Step {at}", at)


async def test_the_seconds_of_a_budget_are_looked_at_between_steps_whatever_their_timeout(bench: Bench) -> None:
    """A step whose timeout is longer than what is left begins; the next one does not when it has taken it all."""
    one, sent = await consumer(bench, 100, seconds=2.0)
    process_id = await bench.start("many")
    gates["Step 2"] = asyncio.Event()
    await take(one, await bench.command(process_id))
    await until(lambda: "Step 2" in ran, "the second step runs, with a timeout of sixty seconds")
    Scene(bench, one, process_id, pytest.MonkeyPatch()).stretch._began -= 2.0
    gates["Step 2"].set()
    await rest(one)
    assert ran == names(2)
    assert [command.step for command in sent.commands] == ["Step 3"]


@pytest.mark.parametrize(
    ("name", "status"),
    [("asks", "suspended"), ("mixed", "awaiting_callback"), ("retries_later", "waiting"), ("breaks", "failed")],
)
async def test_a_process_that_waits_holds_no_slot_and_no_connection(bench: Bench, name: str, status: str) -> None:
    one, _ = await consumer(bench, 100, slots=1)
    process_id = await bench.start(name)
    await take(one, await bench.command(process_id))
    await rest(one)
    assert (await bench.row(process_id))["status"] == status
    assert one._slots.take("default"), "the only slot is free"
    one._slots.release("default")
    await take(one, await bench.command(await bench.start("many")))
    await rest(one)
    pool = bench.database.pool
    assert pool.get_idle_size() == pool.get_size()
    open_ones = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'"
    assert await pool.fetchval(open_ones) == 0


MOMENTS = 50


async def test_nothing_begins_after_an_abort_at_any_moment(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    one, sent = await consumer(bench, 100)
    chance = random.Random(14)
    moments = {await bench.start("many"): chance.randrange(1, MANY + 1) for _ in range(MOMENTS)}
    aborts: list[asyncio.Task[None]] = []

    async def abort_soon(process_id: UUID) -> None:
        await turns(chance.randrange(20))
        async with bench.database.transaction() as session:
            await abort(session, process_id, "me", LIMITS)

    async def store(connection: Any, advances: list[Advance], **options: Any) -> Any:
        here = [one.before.process_id for one in advances if moments.get(one.before.process_id) == one.before.attempt]
        aborts.extend(asyncio.create_task(abort_soon(process_id)) for process_id in here)
        await turns(chance.randrange(20))
        return await advance_many(connection, advances, **options)

    gates[f"Step {MANY}"] = asyncio.Event()
    monkeypatch.setattr("consumers.completion.advance_many", store)
    last_ones = {process_id for process_id, moment in moments.items() if moment == MANY}
    for process_id in moments:
        await take(one, await bench.command(process_id))
    await until(lambda: len(aborts) == MOMENTS - len(last_ones), "all but the last ones are aborted")
    await asyncio.gather(*aborts)
    await asyncio.gather(*map(abort_soon, last_ones))
    gates.pop(f"Step {MANY}").set()
    await rest(one)
    assert sent.commands == []
    late = await bench.database.pool.fetch(
        """SELECT * FROM process_steps s WHERE consumer IS NOT NULL AND started_at >
           (SELECT max(finished_at) FROM process_steps a WHERE a.process_id = s.process_id AND a.status = 'aborted')"""
    )
    assert late == []
    last = await bench.database.pool.fetch(
        "SELECT DISTINCT ON (process_id) status FROM process_steps ORDER BY process_id, sequence DESC"
    )
    assert [row["status"] for row in last] == ["aborted"] * MOMENTS
    stored = await bench.database.pool.fetchval("SELECT count(*) FROM process_steps WHERE consumer IS NOT NULL")
    assert stored <= len(ran) <= stored + MOMENTS, "of each process at most the step has run in which the abort came"


async def test_nothing_begins_after_a_pause_at_any_moment_and_nothing_is_lost(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(41)
    pauses: list[asyncio.Task[datetime]] = []
    left = 0

    async def pause_soon() -> datetime:
        await turns(chance.randrange(20))
        await bench.database.pool.execute("UPDATE engine_settings SET global_lock = true")
        paused: datetime = await bench.database.pool.fetchval("SELECT clock_timestamp()")
        return paused

    async def store(connection: Any, advances: list[Advance], **options: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            pauses.append(asyncio.create_task(pause_soon()))
        return await advance_many(connection, advances, **options)

    monkeypatch.setattr("consumers.completion.advance_many", store)
    for number in range(1, 11):
        ran.clear()
        one, sent = await consumer(bench, 100)
        process_ids = [await bench.start("many") for _ in range(5)]
        left = chance.randrange(1, MANY)
        gates["Step 1"] = asyncio.Event()
        for process_id in process_ids:
            await take(one, await bench.command(process_id))
        await until(lambda: len(ran) == 5, "all have begun")
        gates.pop("Step 1").set()
        await rest(one)
        assert len(pauses) == number
        paused_at = await pauses[-1]
        late = await bench.database.pool.fetchval(
            "SELECT count(*) FROM process_steps WHERE consumer IS NOT NULL AND started_at > $1", paused_at
        )
        assert late == 0
        await bench.database.pool.execute("UPDATE engine_settings SET global_lock = false")
        await finish(bench, sent)
        assert sorted(ran) == sorted(names(MANY) * 5)
        assert {(await bench.row(process_id))["status"] for process_id in process_ids} == {"completed"}


async def turns(number: int) -> None:
    """Let others go on for so many turns of the loop."""
    for _ in range(number):
        await asyncio.sleep(0)


def names(last: int) -> list[str]:
    return [f"Step {number}" for number in range(1, last + 1)]


async def finish(bench: Bench, sent: Sent) -> None:
    """Deliver the commands to another consumer, and what it sends as well."""
    other, more = await consumer(bench, 100)
    for command in sent.commands:
        await take(other, delivery("default", encode(command), kind=MessageType.STEP_COMMAND))
    await rest(other)
    assert more.commands == []
