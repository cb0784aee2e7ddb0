"""A step of a process with a large state writes and fetches what it changes, and the state is always what the steps have made."""

from __future__ import annotations

import random
from dataclasses import replace
from uuid import UUID, uuid4

import pytest

from orchestrator.db.processes.advance import Advance, advance
from orchestrator.db.processes.bases import LIMIT, Base, Bases
from orchestrator.db.processes.claims import Claim, claim_many
from orchestrator.db.processes.due import take_lost
from orchestrator.db.processes.queries import read_state
from orchestrator.db.processes.rows import load_process
from orchestrator.db.session import Database
from orchestrator.engine.decide import decide
from orchestrator.engine.events import StepSucceeded
from orchestrator.engine.plan import Plan
from orchestrator.engine.process import Process
from orchestrator.types import State
from orchestrator.workflow import Step, StepList, done, init, step, workflow
from tests.benchmarks.statements import CountingProxy
from tests.integration.test_claim_and_advance import STAMP, Bench, bench, command_for

MANY = 40
LARGE = 1_000_000
SMALL_CHANGE = 20_000
"""Bytes: more than a step that changes little writes or fetches, and far less than its state."""

__all__ = ["bench"]


def _count(number: int) -> Step:
    @step(f"step {number}")
    async def count() -> State:
        return {}

    return count


@workflow("Many steps")
def two_steps() -> StepList:
    return init >> StepList(_count(number) for number in range(MANY)) >> done


PLAN = Plan.of(two_steps)

_PIECES = "SELECT pg_stat_get_xact_tuples_inserted(reltoastrelid) FROM pg_class WHERE oid = 'processes'::regclass"


def _ballast(size: int) -> str:
    """Return a text that does not become shorter when it is compressed."""
    return random.Random(1).randbytes(size // 2).hex()


async def _claim(bench: Bench, process: Process, bases: Bases) -> Claim:
    async with bench.database.pool.acquire() as connection:
        wanted = command_for(process, process.attempt)
        (claimed,) = await claim_many(connection, [wanted], consumer_id=bench.consumer, consumer="test", bases=bases)
    assert claimed is not None
    return claimed


async def _end(bench: Bench, claim: Claim, delta: State, *, goes_on: bool) -> tuple[Process, Claim | None, int]:
    """End a step; return the process, the claim of the next step, and how many pieces of large values were written."""
    decision = decide(PLAN, claim.process, StepSucceeded(claim.process.attempt, delta), STAMP)
    async with bench.database.pool.acquire() as connection, connection.transaction():
        # The count goes on from that of earlier transactions of this connection until the server has reported them.
        before = await connection.fetchval(_PIECES)
        receipt = await advance(connection, Advance(claim.process, decision, 5, claim, goes_on=goes_on))
        written = await connection.fetchval(_PIECES) - before
    assert receipt is not None
    return decision.process, receipt.following, written


@pytest.mark.parametrize("goes_on", [False, True], ids=["a command for each step", "run ahead"])
async def test_a_small_change_of_a_large_state_writes_nothing_of_the_rest(bench: Bench, goes_on: bool) -> None:
    process = await bench.start(PLAN)
    bases = Bases()
    claim: Claim | None = await _claim(bench, process, bases)
    written, whole = [], {"ballast": _ballast(LARGE)}
    for number in range(5):
        delta: State = dict(whole) if number == 0 else {"counter": number}
        assert claim is not None
        process, claim, pieces = await _end(bench, claim, delta, goes_on=goes_on)
        written.append(pieces)
        claim = claim or await _claim(bench, process, bases)
        assert claim.process.state == {**whole, **({"counter": number} if number else {})}
    assert written[0] > LARGE / 2 / 2000, "the large value itself is written"
    assert written[1:] == [0, 0, 0, 0]


@pytest.mark.parametrize("goes_on", [False, True], ids=["a command for each step", "run ahead"])
async def test_a_large_state_is_fetched_once_by_a_consumer(bench: Bench, database_url: str, goes_on: bool) -> None:
    process = await bench.start(PLAN, {"ballast": _ballast(LARGE)})
    async with CountingProxy(database_url) as proxy:
        database = Database(proxy.url, pool_size=1, connect_timeout=10, application_name="test")
        await database.open()
        through = Bench(database, bench.workflow_id, bench.consumer)
        bases = Bases()
        try:
            claim: Claim | None = await _claim(through, process, bases)
            assert proxy.counts["received"] > LARGE
            assert claim is not None
            process, claim, _ = await _end(through, claim, {"counter": 0}, goes_on=goes_on)
            claim = claim or await _claim(through, process, bases)
            proxy.counts.clear()
            for number in range(1, 4):
                process, claim, _ = await _end(through, claim, {"counter": number}, goes_on=goes_on)
                claim = claim or await _claim(through, process, bases)
            assert proxy.counts["received"] < SMALL_CHANGE
            assert proxy.counts["sent"] < SMALL_CHANGE
            assert claim.process.state.keys() == {"ballast", "counter"}
        finally:
            await database.close()


async def test_commands_that_were_lost_are_taken_without_the_states(bench: Bench, database_url: str) -> None:
    """Hundreds are taken at once, and a command has nothing of the state."""
    process = await bench.start(PLAN, {"ballast": _ballast(LARGE)})
    await bench.database.pool.execute("UPDATE processes SET due_at = now()")
    async with CountingProxy(database_url) as proxy:
        database = Database(proxy.url, pool_size=1, connect_timeout=10, application_name="test")
        await database.open()
        try:
            async with database.transaction() as session:
                (taken,) = await take_lost(session, [process.process_id], lease=5)
        finally:
            await database.close()
    assert (taken.process.step, taken.process.state) == (process.step, {})
    assert proxy.counts["received"] < SMALL_CHANGE


@pytest.mark.parametrize("seed", range(4))
async def test_the_state_is_what_the_steps_have_made_of_it_whatever_their_sizes(bench: Bench, seed: int) -> None:
    """Values are stored, replaced and removed at random, small and large, with and without a claim of its own."""
    chance = random.Random(seed)
    expected: State = {"start": _ballast(chance.choice([10, 3 * LIMIT]))}
    process = await bench.start(PLAN, expected)
    bases = Bases(most=chance.choice([0, 10 * LIMIT, 1_000_000]))
    claim: Claim | None = await _claim(bench, process, bases)
    for number in range(MANY - 1):
        assert claim is not None
        sizes = chance.choices([1, 200, LIMIT - 100, 2 * LIMIT, 30 * LIMIT], weights=[8, 8, 4, 2, 1], k=2)
        delta: State = {f"key {chance.randrange(6)}": [number, _ballast(size)] for size in sizes}
        removed = tuple(sorted(key for key in expected if key not in delta and chance.random() < 0.1))
        decision = decide(PLAN, claim.process, StepSucceeded(claim.process.attempt, delta), STAMP)
        entries = tuple(
            replace(entry, removed=removed) if entry.kind.value == "step" and entry.delta else entry
            for entry in decision.entries
        )
        decision = replace(decision, entries=entries)
        expected = {key: value for key, value in {**expected, **delta}.items() if key not in removed}
        async with bench.database.pool.acquire() as connection:
            receipt = await advance(
                connection, Advance(claim.process, decision, 5, claim, goes_on=chance.random() < 0.5)
            )
        assert receipt is not None
        async with bench.database.transaction() as session:
            assert (await load_process(session, process.process_id)).state == expected
            shown = await read_state(session, process.process_id)
        assert list(shown) == sorted(expected, key=lambda key: (len(key), key))
        claim = receipt.following or await _claim(bench, decision.process, bases)
        assert claim.process.state == expected
        assert list(claim.process.state) == sorted(expected, key=lambda key: (len(key), key))


def test_bases_are_remembered_up_to_a_size_the_latest_ones_first() -> None:
    bases = Bases(most=10)
    ids = [UUID(int=number) for number in range(4)]
    for one in ids[:3]:
        bases.keep(one, Base(1, "123"))
    assert bases.find(ids[0]) is not None
    bases.keep(ids[3], Base(2, "1234"))
    assert [bases.find(one) is not None for one in ids] == [True, False, True, True]
    bases.keep(ids[2], None)
    bases.keep(ids[0], Base(3, "1"))
    assert bases.find(ids[0]) == Base(3, "1")
    assert bases.find(ids[2]) is None
    bases.keep(uuid4(), Base(1, "x" * 11))
    assert [bases.find(one) for one in ids] == [None] * 4
