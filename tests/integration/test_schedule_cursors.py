"""Where a schedule stands after a change: no slot runs for the second time, none is lost, and none is made up for."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from orchestrator.db.session import Database
from orchestrator.engine.schedule import Missed, Overlap
from orchestrator.engine.triggers import CronTrigger, DateTrigger, IntervalTrigger
from orchestrator.errors import (
    InvalidInputError,
)
from orchestrator.services.schedule_reading import ScheduleState, describe, show_schedule
from orchestrator.services.schedules import (
    edit_schedule,
    pause_schedule,
    remove_schedule,
    resume_schedule,
    run_schedule,
)
from tests.integration.api_flows import FLOWS, register
from tests.integration.engine_bench import LIMITS
from tests.integration.schedule_bench import AMSTERDAM, GREET, add, at, edit, set_clock, set_columns
from tests.integration.waiting import until


@pytest.fixture(autouse=True)
async def _flows(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    await register(database, monkeypatch, FLOWS)


async def test_a_start_in_the_past_is_not_made_up_for(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new schedule with a start in 2020, and the policy to start all missed slots."""
    await set_clock(monkeypatch, "2026-11-25T10:05:00+00:00")
    trigger = IntervalTrigger(timedelta(hours=1), at("2020-01-01T00:00Z"))
    added = await add(database, replace(GREET, trigger=trigger, missed=Missed.ALL, overlap=Overlap.ALLOW))
    assert added.next_slot == at("2026-11-25T11:00Z")


async def test_another_zone_moves_the_next_slot(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a day: `0 21 * * *` in Sydney becomes one in Berlin at 10:00Z: one run that day, at 19:00Z."""
    await set_clock(monkeypatch, "2026-05-19T09:00:00+00:00")
    added = await add(database, replace(GREET, trigger=CronTrigger("0 21 * * *", ZoneInfo("Australia/Sydney"))))
    assert added.next_slot == at("2026-05-19T11:00Z")
    await set_clock(monkeypatch, "2026-05-19T10:00:00+00:00")
    edited = await edit(database, added.schedule_id, {"trigger": CronTrigger("0 21 * * *", ZoneInfo("Europe/Berlin"))})
    assert edited.next_slot == edited.due_at == at("2026-05-19T19:00Z")


async def test_an_edit_between_a_slot_and_its_jitter_does_not_lose_it(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every 5 minutes with a jitter of 60 s; the edit comes at 12:20:10."""
    await set_clock(monkeypatch, "2026-11-25T12:17:00+00:00")
    every = IntervalTrigger(timedelta(minutes=5), at("2026-11-25T00:00Z"))
    added = await add(database, replace(GREET, trigger=every, jitter=timedelta(seconds=60)))
    assert added.next_slot == at("2026-11-25T12:20Z")
    assert added.due_at is not None
    assert at("2026-11-25T12:20Z") <= added.due_at < at("2026-11-25T12:21Z")

    await set_clock(monkeypatch, "2026-11-25T12:20:00.000001+00:00")
    noted = await edit(database, added.schedule_id, {"note": "changed"})
    assert (noted.next_slot, noted.due_at) == (added.next_slot, added.due_at)
    bounded = await edit(database, added.schedule_id, {"trigger": replace(every, end=at("2027-01-01T00:00Z"))})
    assert (bounded.next_slot, bounded.due_at) == (added.next_slot, added.due_at)
    other = await edit(database, added.schedule_id, {"trigger": IntervalTrigger(timedelta(minutes=7), every.start)})
    assert other.next_slot == at("2026-11-25T12:22Z")
    async with database.transaction() as session:
        (slot,) = (await show_schedule(session, added.schedule_id)).slots
    assert (slot.slot, slot.result) == (at("2026-11-25T12:20Z"), "withdrawn")


async def test_slots_during_a_pause_are_not_missed_ones(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paused at 10:05, resumed at 14:20: the next run is at 15:00, with every policy."""
    for missed, overlap in ((Missed.SKIP, Overlap.SKIP), (Missed.ONCE, Overlap.SKIP), (Missed.ALL, Overlap.ALLOW)):
        await set_clock(monkeypatch, "2026-11-25T09:30:00+00:00")
        added = await add(database, replace(GREET, name=missed.value, missed=missed, overlap=overlap))
        await set_clock(monkeypatch, "2026-11-25T10:05:00+00:00")
        async with database.transaction() as session:
            paused = await pause_schedule(session, added.schedule_id, "bob", "maintenance")
            again = await pause_schedule(session, added.schedule_id, "eve")
        assert (paused.enabled, paused.next_slot, paused.due_at) == (False, None, None)
        assert paused.disabled_reason == again.disabled_reason == "paused by bob: maintenance"
        assert describe(paused).state is ScheduleState.DISABLED
        await set_clock(monkeypatch, "2026-11-25T14:20:00+00:00")
        async with database.transaction() as session:
            resumed = await resume_schedule(session, added.schedule_id, "bob")
        assert (resumed.enabled, resumed.disabled_reason) == (True, None)
        assert (resumed.settled_through, resumed.next_slot) == (at("2026-11-25T14:20Z"), at("2026-11-25T15:00Z"))


async def test_the_phase_of_an_interval_never_moves(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every 6 h from 01:00Z; run by hand at 11:30Z, paused and resumed at 14:00Z."""
    await set_clock(monkeypatch, "2026-11-25T02:00:00+00:00")
    added = await add(database, replace(GREET, trigger=IntervalTrigger(timedelta(hours=6), at("2026-11-25T01:00Z"))))
    await set_clock(monkeypatch, "2026-11-25T11:30:00+00:00")
    async with database.transaction() as session:
        await run_schedule(session, added.schedule_id, "bob", LIMITS)
        after_run = (await show_schedule(session, added.schedule_id)).listed.stored
    assert (after_run.next_slot, after_run.settled_through) == (added.next_slot, added.settled_through)
    await set_clock(monkeypatch, "2026-11-25T14:00:00+00:00")
    async with database.transaction() as session:
        await pause_schedule(session, added.schedule_id, "bob")
        resumed = await resume_schedule(session, added.schedule_id, "bob")
    assert resumed.next_slot == at("2026-11-25T19:00Z")


async def test_what_is_over_cannot_be_resumed(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    soon = DateTrigger(datetime.now(UTC) + timedelta(days=1))
    added = await add(database, replace(GREET, trigger=soon, enabled=False))
    assert (added.enabled, added.next_slot, added.disabled_reason) == (False, None, "made so by ann")
    await set_clock(monkeypatch, (datetime.now(UTC) + timedelta(days=2)).isoformat())
    async with database.transaction() as session:
        with pytest.raises(InvalidInputError, match=r"run_date: .*past"):
            await resume_schedule(session, added.schedule_id, "bob")


@pytest.mark.parametrize("how", ["pause", "remove", "edit"])
async def test_a_queued_slot_does_not_start_after_a_change_and_says_why(database: Database, how: str) -> None:
    added = await add(database, replace(GREET, overlap=Overlap.QUEUE))
    slot = at("2026-11-25T10:00Z")
    await set_columns(database, added.schedule_id, queued_slot=slot)
    await database.pool.execute(
        "INSERT INTO schedule_slots (schedule_id, slot, result) VALUES ($1, $2, 'queued')", added.schedule_id, slot
    )
    async with database.transaction() as session:
        if how == "pause":
            await pause_schedule(session, added.schedule_id, "bob")
        elif how == "remove":
            await remove_schedule(session, added.schedule_id, "bob")
        else:
            await edit_schedule(session, added.schedule_id, {"overlap": Overlap.SKIP}, "bob", LIMITS)
        shown = await show_schedule(session, added.schedule_id)
    assert shown.listed.stored.queued_slot is None
    assert [(one.slot, one.result) for one in shown.slots] == [(slot, "withdrawn")]
    assert "by bob" in str(shown.slots[0].reason)


async def test_an_edit_and_a_claim_at_once_see_the_row_wholly_old_or_wholly_new(database: Database) -> None:
    """Whoever has the row's lock goes first; the edit waits for it and reads what the claim has settled."""
    added = await add(database)
    async with database.transaction() as claim:
        settled = at("2030-01-01T00:00Z")
        connection = await claim.connection()
        await connection.exec_driver_sql(
            f"UPDATE schedules SET settled_through = '{settled.isoformat()}', next_slot = NULL, due_at = NULL"
        )
        editing = asyncio.create_task(edit(database, added.schedule_id, {"trigger": AMSTERDAM, "note": "new"}))
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )

        async def is_waiting() -> bool:
            return bool(await database.pool.fetchval(waiting))

        await until(is_waiting, "the edit waits for the claim")

    edited = await editing
    assert (edited.settled_through, edited.note) == (settled, "new")
    assert edited.next_slot == at("2030-01-01T20:00Z")


async def test_a_program_that_stands_still_in_a_change_does_not_keep_a_schedule_for_long(database: Database) -> None:
    """Others pass over the locked row, so the server ends the transaction."""
    added = await add(database)
    show = "SHOW idle_in_transaction_session_timeout"
    async with database.transaction() as session:
        await pause_schedule(session, added.schedule_id, "bob")
        connection = await session.connection()
        assert (await connection.exec_driver_sql(show)).scalar_one() == "5s"
    async with database.transaction() as session:
        connection = await session.connection()
        assert (await connection.exec_driver_sql(show)).scalar_one() == "10s", "of every session"
