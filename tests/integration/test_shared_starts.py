"""Starts of one moment share a statement: what each of them notices of the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import asyncpg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from orchestrator.db.session import Database, is_connection_error
from orchestrator.errors import ConflictError, EnginePausedError, NotFoundError
from orchestrator.services.plans import ProgramPlans
from orchestrator.services.start import StartOutcome, StartRequest, start
from orchestrator.services.starter import AT_ONCE, LARGEST, Starter
from orchestrator.workflow import StepList, done, init, step, workflow
from tests.integration.engine_bench import LIMITS, Bench, bench_of
from tests.integration.waiting import until

STATEMENTS = "SELECT count(DISTINCT xmin::text) FROM processes"
STARTED = "SELECT count(*) FROM processes"
WAITING = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
END = "SELECT pg_terminate_backend($1)"


@step("Work")
async def work() -> None:
    return None


@workflow("Works")
def works() -> StepList:
    return init >> work >> done


@workflow("Has nothing to do")
def idles() -> StepList:
    return init >> done


async def may_run() -> bool:
    return True


@workflow("Asks its author", run_predicate=may_run)
def asks() -> StepList:
    return init >> work >> done


PLAIN = StartRequest("works", (), "ana")
KEYED = replace(PLAIN, key="order-1")
SENT = replace(KEYED, sender="svc")


@pytest.fixture
async def bench(database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    async with bench_of(database, amqp_url, monkeypatch, __name__, works, idles, asks) as made:
        async with database.transaction() as session:
            await ProgramPlans.load().register(session, "the test")
        yield made


async def start_together(starter: Starter, requests: Sequence[StartRequest]) -> list[StartOutcome | BaseException]:
    """Start some in one statement; return the outcomes."""
    # The first ones are on their way, each alone, before anything can answer.
    first = [PLAIN] * AT_ONCE
    found = await asyncio.gather(*map(starter.start, [*first, *requests]), return_exceptions=True)
    return found[AT_ONCE:]


@asynccontextmanager
async def key_in_use(database: Database) -> AsyncIterator[None]:
    """Use the key of an order in a transaction that ends with the block."""
    async with database.transaction() as session:
        await start(session, KEYED, LIMITS)
        yield


async def test_starts_that_come_while_others_are_on_their_way_share_statements(bench: Bench) -> None:
    outcomes = await start_together(Starter(bench.database, LIMITS), [PLAIN] * (LARGEST + 5))
    assert all(isinstance(one, StartOutcome) and one.created for one in outcomes)
    assert await bench.database.pool.fetchval(STARTED) == AT_ONCE + LARGEST + 5
    assert await bench.database.pool.fetchval(STATEMENTS) == AT_ONCE + 2


async def test_starts_one_after_the_other_share_none(bench: Bench) -> None:
    starter = Starter(bench.database, LIMITS)
    for _ in range(3):
        await starter.start(PLAIN)
    assert await bench.database.pool.fetchval(STATEMENTS) == 3


async def test_a_key_that_an_open_transaction_holds_keeps_no_other_start_waiting(bench: Bench) -> None:
    """Whether they share its statement, come later, or have a workflow that asks its authors."""
    database, starter = bench.database, Starter(bench.database, LIMITS)
    others = [replace(PLAIN, key=f"order-{number}") for number in range(2, 8)]
    async with key_in_use(database):
        held = [asyncio.create_task(starter.start(KEYED)) for _ in range(12)]
        together = asyncio.create_task(start_together(starter, [*others[:3], KEYED, *others[3:], SENT]))
        stored = f"{STARTED} WHERE request_key = ANY($1)"

        async def are_stored() -> bool:
            return bool(await database.pool.fetchval(stored, [one.key for one in others]) == len(others))

        await until(are_stored, "the others are stored")
        assert isinstance(await starter.start(replace(PLAIN, key="later")), StartOutcome)
        assert isinstance(await starter.start(StartRequest("asks")), StartOutcome)
        assert not any(one.done() for one in held)
    outcomes = [*await asyncio.gather(*held), (await together)[3]]
    assert len({one.process_id for one in outcomes if isinstance(one, StartOutcome) and not one.created}) == 1
    assert await database.pool.fetchval(f"{STARTED} WHERE request_key = 'order-1'") == 1


async def test_of_starts_with_one_key_in_a_statement_one_starts_the_process_and_a_different_one_is_refused(
    bench: Bench,
) -> None:
    other = replace(KEYED, workflow="idles")
    first, repeated, different = await start_together(Starter(bench.database, LIMITS), [KEYED, KEYED, other])
    assert isinstance(first, StartOutcome)
    assert isinstance(repeated, StartOutcome)
    assert isinstance(different, ConflictError)
    assert (first.created, repeated.created) == (True, False)
    assert first.process_id == repeated.process_id


@pytest.mark.parametrize("requests", [(KEYED, SENT), (SENT, KEYED)], ids=["older first", "older last"])
async def test_a_key_and_the_same_as_older_versions_stored_it_in_one_statement_are_one_request(
    bench: Bench, requests: tuple[StartRequest, ...]
) -> None:
    outcomes = dict(zip(requests, await start_together(Starter(bench.database, LIMITS), requests), strict=True))
    older, sent = outcomes[KEYED], outcomes[SENT]
    assert isinstance(older, StartOutcome)
    assert isinstance(sent, StartOutcome)
    assert older.created
    assert sent == StartOutcome(older.process_id, None)


async def test_the_same_keys_of_two_programs_in_opposite_order_start_each_process_once(bench: Bench) -> None:
    programs = [Starter(bench.database, LIMITS), Starter(bench.database, LIMITS)]
    for turn in range(10):
        requests = [replace(PLAIN, key=f"order-{turn}-{number}") for number in range(30)]
        ways = zip(programs, (requests, requests[::-1]), strict=True)
        one, other = await asyncio.gather(*(start_together(starter, keys) for starter, keys in ways))
        for first, second in zip(one, reversed(other), strict=True):
            assert isinstance(first, StartOutcome)
            assert isinstance(second, StartOutcome)
            assert first.process_id == second.process_id
            assert first.created is not second.created


async def test_a_start_that_the_database_refuses_fails_alone(bench: Bench) -> None:
    bad = replace(PLAIN, key="not a text \0")
    outcomes = await start_together(Starter(bench.database, LIMITS), [PLAIN, bad, KEYED])
    assert [type(one) for one in outcomes] == [StartOutcome, asyncpg.CharacterNotInRepertoireError, StartOutcome]


async def test_of_starts_in_a_statement_only_those_are_refused_whose_workflow_is_removed(bench: Bench) -> None:
    starter = Starter(bench.database, LIMITS)
    await bench.database.pool.execute("UPDATE workflows SET deleted_at = now() WHERE name = 'idles'")
    outcomes = await start_together(starter, [PLAIN, StartRequest("idles"), KEYED])
    assert [type(one) for one in outcomes] == [StartOutcome, NotFoundError, StartOutcome]
    await bench.database.pool.execute("UPDATE engine_settings SET global_lock = true")
    outcomes = await start_together(starter, [PLAIN, StartRequest("idles"), KEYED])
    assert [type(one) for one in outcomes] == [EnginePausedError, NotFoundError, StartOutcome]


async def test_a_lost_connection_is_one_for_every_start_of_its_statement(bench: Bench) -> None:
    database, starter = bench.database, Starter(bench.database, LIMITS)
    watching = await database.connect()
    pids: list[int] = []

    async def wait_for(count: int) -> bool:
        pids[:] = [row["pid"] for row in await watching.fetch(WAITING)]
        return len(pids) == count

    async with database.transaction() as session:
        await (await session.connection()).exec_driver_sql("LOCK TABLE processes IN EXCLUSIVE MODE")
        starts = [asyncio.create_task(starter.start(PLAIN)) for _ in range(AT_ONCE + 3)]
        await until(lambda: wait_for(AT_ONCE), "the first are on their way")
        await watching.fetchval(END, pids[0])
        await until(lambda: starts[0].done() or starts[1].done(), "one is lost")
        await until(lambda: wait_for(AT_ONCE), "those that gathered are on their way")
        for pid in pids:
            await watching.fetchval(END, pid)
        await asyncio.wait(starts)
    await watching.close()
    errors = [one.exception() for one in starts]
    assert all(one is not None and is_connection_error(one) for one in errors)
    assert await database.pool.fetchval(STARTED) == 0
    assert (await starter.start(PLAIN)).created


def draw_rounds() -> list[list[list[StartRequest]]]:
    """Return requests that two programs get at once, for some rounds; those of a round have a few keys in common."""
    requests = st.builds(
        StartRequest,
        workflow=st.sampled_from(["works", "works", "idles"]),
        user=st.sampled_from(["ana", "bob"]),
        key=st.sampled_from([None, "a", "b", "c"]),
        sender=st.sampled_from([None, "svc", "ana"]),
    )
    rounds = list[list[list[StartRequest]]]()

    @settings(
        max_examples=25, phases=[Phase.generate], database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )
    @given(st.lists(st.lists(requests, min_size=1, max_size=12), min_size=2, max_size=2))
    def draw(found: list[list[StartRequest]]) -> None:
        rounds.append(found)

    draw()
    return rounds


async def test_whatever_two_programs_start_at_once_each_key_is_one_request(bench: Bench) -> None:
    programs = [Starter(bench.database, LIMITS), Starter(bench.database, LIMITS)]
    for number, drawn in enumerate(draw_rounds()):
        given_keys = [
            [one if one.key is None else replace(one, key=f"{one.key} {number}") for one in requests]
            for requests in drawn
        ]
        found = await asyncio.gather(*map(start_together, programs, given_keys))
        rows = {
            row["process_id"]: row
            for row in await bench.database.pool.fetch("SELECT process_id, request_key, request_digest FROM processes")
        }
        by_key = {row["request_key"]: row for row in rows.values()}
        for request, outcome in (
            (one, two) for pair in zip(given_keys, found, strict=True) for one, two in zip(*pair, strict=True)
        ):
            key = request.stored_key
            if isinstance(outcome, StartOutcome):
                row = rows[outcome.process_id]
                assert outcome.created or key is not None
                allowed = (
                    {None}
                    if key is None
                    else {key.text, None if key.older is None or outcome.created else key.older.text}
                )
                assert row["request_key"] in allowed
                assert row["request_digest"] == (None if key is None else request.digest())
            else:
                assert isinstance(outcome, ConflictError)
                assert key is not None
                assert by_key[key.text]["request_digest"] != request.digest()
        created = [one.process_id for pair in found for one in pair if isinstance(one, StartOutcome) and one.created]
        assert len(set(created)) == len(created)
