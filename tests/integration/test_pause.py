"""Who pauses the engine, since when and why, as the database keeps it and as programs report it."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from orchestrator.broker.connection import BrokerAddress
from orchestrator.broker.publisher import Publisher
from orchestrator.broker.topology import Topology
from orchestrator.coordinator.announcer import Announcer
from orchestrator.coordinator.dispatcher import Dispatcher
from orchestrator.coordinator.reconciler import Reconciler
from orchestrator.db.session import Database
from orchestrator.db.status import EngineStatus
from orchestrator.errors import InvalidInputError
from orchestrator.services.pause import set_paused
from orchestrator.services.plans import ProgramPlans
from orchestrator.text import MAX_REASON
from tests.integration.engine_bench import LIMITS, Bench
from tests.integration.waiting import until


async def switch(database: Database, paused: bool, user: str, reason: str | None = None) -> EngineStatus:
    async with database.transaction() as session:
        return await set_paused(session, paused, user, reason)


async def test_who_paused_since_when_and_why_is_kept_and_repeating_it_changes_nothing(database: Database) -> None:
    before = await switch(database, False, "zoe")
    assert (before.word, before.changed_by, before.changed_at) == ("RUNNING", None, None)

    first = await switch(database, True, "ana", " the IMS is upgraded ")
    again = await switch(database, True, "bob", "me too")

    assert (first.word, first.changed_by, first.reason) == ("PAUSED", "ana", "the IMS is upgraded")
    assert again == first
    await switch(database, False, "bob", "done")
    log = await database.pool.fetch("SELECT global_lock, author, reason FROM engine_settings_log ORDER BY change_id")
    assert [tuple(row) for row in log] == [(True, "ana", "the IMS is upgraded"), (False, "bob", "done")]


async def test_of_twenty_who_pause_at_once_one_is_recorded(database: Database) -> None:
    found = await asyncio.gather(*(switch(database, True, f"user {number}") for number in range(20)))

    authors = await database.pool.fetch("SELECT author FROM engine_settings_log")
    assert {one.changed_by for one in found} == {row["author"] for row in authors}
    assert len(authors) == 1


@pytest.mark.parametrize("reason", ["x" * (MAX_REASON + 1), "a\0b", "\ud800"], ids=["long", "NUL", "half a character"])
async def test_a_reason_that_cannot_be_kept_is_refused_and_nothing_is_paused(database: Database, reason: str) -> None:
    with pytest.raises(InvalidInputError, match="the reason has"):
        await switch(database, True, "ana", reason)
    assert not await database.pool.fetchval("SELECT global_lock FROM engine_settings")


async def test_a_coordinator_logs_once_that_the_engine_was_paused_and_unpaused(
    database: Database, amqp_url: str
) -> None:
    address = BrokerAddress(amqp_url, "test", 3)
    dispatcher = Dispatcher(publisher := Publisher(address, Topology(), 5), Announcer(publisher, database.pool))
    one = Reconciler(database, dispatcher, address, LIMITS, ProgramPlans({}), interval=1, presumed_dead_after=10)
    with capture_logs() as logs:
        await one.run_once()
        await switch(database, True, "ana", "the IMS is upgraded")
        await one.run_once()
        await one.run_once()
        await switch(database, False, "bob")
        await one.run_once()

    assert [(log["event"].split(":")[0], log["by"], log["reason"]) for log in logs if "by" in log] == [
        ("engine paused", "ana", "the IMS is upgraded"),
        ("engine unpaused", "bob", None),
    ]
    assert not dispatcher.paused


async def test_a_consumer_logs_that_the_engine_was_paused(database: Database, amqp_url: str) -> None:
    """Its heartbeat reads it, which a step that blocks the event loop does not stop."""
    bench = Bench(database, amqp_url)
    runner = await bench.runner(interval=0.05)
    await switch(database, True, "ana", "the IMS is upgraded")
    with capture_logs() as logs:
        beating = asyncio.create_task(bench.heartbeat.run(runner.compare))
        try:
            await until(lambda: any(log.get("by") == "ana" for log in logs), "the pause is logged")
        finally:
            await bench.heartbeat.stop()
            beating.cancel()
            await asyncio.wait({beating})
    assert [log["reason"] for log in logs if log.get("by") == "ana"] == ["the IMS is upgraded"]
