"""Schedules start processes: each slot once, in one commit with its record, whatever clocks and programs do."""

from __future__ import annotations

from datetime import timedelta

import pytest

from orchestrator.coordinator import scheduler as scheduler_module
from orchestrator.db.engine_lock import set_paused
from orchestrator.db.session import Database
from orchestrator.engine.schedule import Missed, Overlap
from orchestrator.types import ProcessStatus
from tests.integration import api_flows
from tests.integration.schedule_rounds import Rounds, cron
from tests.unit.wall_clock import utc


@pytest.fixture
async def rounds(database: Database, monkeypatch: pytest.MonkeyPatch) -> Rounds:
    await api_flows.register(database, monkeypatch)
    return Rounds(database)


async def test_a_slot_its_process_and_its_record_are_stored_once(rounds: Rounds) -> None:
    await rounds.add()
    await rounds.at("2026-11-25T11:59:59.999999")
    assert await rounds.count() == 0, "not a microsecond early"
    for now in ("2026-11-25T12:00", "2026-11-25T12:00", "2026-11-25T12:00:30"):
        await rounds.at(now)
    assert await rounds.slots() == [("12:00", "started")]
    (process,) = await rounds.database.pool.fetch("SELECT process_id, started_by, state::text FROM processes")
    assert process["started_by"] == "schedule:nightly"
    assert '"tone": "warm"' in process["state"]
    row = await rounds.row()
    assert (row["last_process_id"], row["last_result"]) == (process["process_id"], "started")
    assert (row["settled_through"], row["next_slot"]) == (utc("2026-11-25T12:00"), utc("2026-11-25T13:00"))
    assert [one.process_id for one in rounds.published.messages] == [process["process_id"]]
    note = await rounds.database.pool.fetchval("SELECT note FROM process_steps WHERE note IS NOT NULL")
    assert note == "for the slot 2026-11-25T12:00:00+00:00 of the schedule 'nightly'"


@pytest.mark.parametrize(
    ("missed", "slots"),
    [
        (Missed.SKIP, [("06:00", "missed", 72)]),
        (Missed.ONCE, [("05:55", "missed", 71), ("06:00", "started", 1)]),
        (
            Missed.ALL,
            [
                ("05:10", "missed", 62),
                *((f"05:{minute}", "started", 1) for minute in range(15, 60, 5)),
                ("06:00", "started", 1),
            ],
        ),
    ],
    ids=str,
)
async def test_after_an_outage_each_policy_starts_its_number_of_slots_and_records_the_rest(
    rounds: Rounds, missed: Missed, slots: list[tuple[str, str, int]]
) -> None:
    rounds.now = utc("2026-11-25T00:01")
    await rounds.add(trigger=cron("*/5 * * * *"), missed=missed, overlap=Overlap.ALLOW)
    await rounds.at("2026-11-25T06:01")
    found = await rounds.database.pool.fetch("SELECT slot, result, slots FROM schedule_slots ORDER BY slot")
    assert [(f"{one['slot']:%H:%M}", one["result"], one["slots"]) for one in found] == slots
    assert (await rounds.row())["next_slot"] == utc("2026-11-25T06:05")


async def test_when_the_clock_steps_back_a_slot_does_not_start_again_even_if_everything_about_it_was_deleted(
    rounds: Rounds,
) -> None:
    await rounds.add()
    await rounds.at("2026-11-25T12:00:05")
    await rounds.database.pool.execute("DELETE FROM processes")
    await rounds.database.pool.execute("DELETE FROM schedule_slots")
    await rounds.at("2026-11-25T11:00:10")
    await rounds.at("2026-11-25T12:00:10")
    assert await rounds.count() == 0
    await rounds.at("2026-11-25T13:00:01")
    assert await rounds.slots() == [("13:00", "started")]


async def test_a_slot_that_has_a_record_does_not_start_again_when_the_cursor_was_set_back(rounds: Rounds) -> None:
    """The clock stepped back, and then the schedule was paused and resumed."""
    await rounds.add()
    await rounds.at("2026-11-25T12:00")
    await rounds.database.pool.execute(
        "UPDATE schedules SET settled_through = $1, next_slot = $2, due_at = $2",
        utc("2026-11-25T11:10"),
        utc("2026-11-25T12:00"),
    )
    await rounds.at("2026-11-25T12:00:05")
    assert await rounds.count() == 1
    assert (await rounds.row())["next_slot"] == utc("2026-11-25T13:00")


async def test_a_slot_is_skipped_while_the_process_of_an_earlier_one_is_running(rounds: Rounds) -> None:
    """With a schedule for each status that a process can have."""
    for status in ProcessStatus:
        await rounds.add(status.value)
    await rounds.at("2026-11-25T12:00")
    await rounds.database.pool.execute(
        "UPDATE processes SET status = split_part(started_by, ':', 2), claimed_by = NULL"
    )
    await rounds.at("2026-11-25T13:00")
    skipping = set()
    for status in ProcessStatus:
        row = await rounds.row(status.value)
        assert row["next_slot"] == utc("2026-11-25T14:00")
        last = (await rounds.slots(status.value))[-1]
        if last == ("13:00", "skipped"):
            skipping.add(status.value)
            assert row["skips"] == 1
            assert f"process {row['last_process_id']}" in row["last_reason"]
        else:
            assert last == ("13:00", "started")
    assert skipping == {"created", "running", "resumed", "suspended", "waiting", "awaiting_callback"}


async def test_the_newest_slot_waits_and_starts_when_the_process_has_ended(rounds: Rounds) -> None:
    await rounds.add(overlap=Overlap.QUEUE)
    for hour in (12, 13, 14):
        await rounds.at(f"2026-11-25T{hour}:00")
    assert await rounds.slots() == [("12:00", "started"), ("13:00", "skipped"), ("14:00", "queued")]
    await rounds.set_status("completed")
    await rounds.at("2026-11-25T14:20")
    assert (await rounds.slots())[-1] == ("14:00", "started")
    assert (await rounds.row())["queued_slot"] is None
    await rounds.at("2026-11-25T14:30")
    assert await rounds.count() == 2
    await rounds.at("2026-11-25T15:00")
    assert (await rounds.slots())[-1] == ("15:00", "queued")


async def test_a_paused_schedule_does_not_start_its_queued_slot(rounds: Rounds) -> None:
    await rounds.add(overlap=Overlap.QUEUE)
    await rounds.at("2026-11-25T12:00")
    await rounds.at("2026-11-25T13:00")
    await rounds.database.pool.execute("UPDATE schedules SET enabled = false")
    await rounds.set_status("completed")
    await rounds.at("2026-11-25T13:30")
    assert await rounds.count() == 1


async def test_bad_schedules_say_what_is_wrong_and_stand_in_no_others_way(
    rounds: Rounds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four of a hundred are bad, and would fill a batch."""
    monkeypatch.setattr(scheduler_module, "BATCH", 3)
    pool = rounds.database.pool
    bad = ["cron", "zone", "workflow", "input"]
    for name in bad:
        await rounds.add(name, workflow="asking" if name == "workflow" else "greeting")
    for number in range(96):
        await rounds.add(f"s{number}")
    await pool.execute(
        """UPDATE schedules SET trigger = trigger || '{"expression": "61 * * * *"}' WHERE name = 'cron'"""
    )
    await pool.execute("""UPDATE schedules SET trigger = trigger || '{"zone": "Mars/Base"}' WHERE name = 'zone'""")
    await pool.execute("UPDATE schedules SET inputs = '[{}]' WHERE name = 'input'")
    await pool.execute("UPDATE workflows SET deleted_at = now() WHERE name = 'asking'")
    one = rounds.make_scheduler()
    for number, now in enumerate(("2026-11-25T12:00", "2026-11-25T13:00"), start=1):
        await rounds.at(now, one)
        await rounds.set_status("completed")
        assert await rounds.count() == number * 96
    shown = {name: (await rounds.row(name))["broken"] for name in bad}
    assert "minute" in shown["cron"]
    assert "Mars/Base" in shown["zone"]
    assert "not in the database" in shown["workflow"]
    assert "name" in shown["input"]
    assert await rounds.slots("input") == [("12:00", "refused"), ("13:00", "refused")]
    await pool.execute("UPDATE schedules SET inputs = $1 WHERE name = 'input'", '[{"name": "Ann"}, {"tone": "warm"}]')
    await rounds.at("2026-11-25T14:00", one)
    assert (await rounds.row("input"))["broken"] is None, "it can start again"


@pytest.mark.parametrize(("workflow", "why"), [("refusing", "not on Fridays"), ("forbidden", "schedule:nightly")])
async def test_a_refused_start_is_recorded_with_its_reason_and_later_slots_go_on(
    rounds: Rounds, workflow: str, why: str
) -> None:
    await rounds.add(workflow=workflow)
    await rounds.at("2026-11-25T12:00")
    await rounds.at("2026-11-25T13:00")
    assert await rounds.slots() == [("12:00", "refused"), ("13:00", "refused")]
    row = await rounds.row()
    assert why in row["last_reason"]
    assert (row["broken"] is None) is (workflow == "refusing"), "a predicate may say yes the next time"


async def test_slots_of_a_paused_engine_are_refused_and_not_made_up_for(rounds: Rounds) -> None:
    await rounds.add(missed=Missed.ALL, overlap=Overlap.ALLOW)
    async with rounds.database.transaction() as session:
        await set_paused(session, True, "ann", None)
    await rounds.at("2026-11-25T12:00")
    await rounds.at("2026-11-25T13:00")
    async with rounds.database.transaction() as session:
        await set_paused(session, False, "ann", None)
    await rounds.at("2026-11-25T13:40")
    await rounds.at("2026-11-25T14:00")
    assert await rounds.slots() == [("12:00", "refused"), ("13:00", "refused"), ("14:00", "started")]


async def test_a_schedule_without_code_here_is_left_to_others_and_marked_when_there_are_none(rounds: Rounds) -> None:
    await rounds.add()
    old = rounds.make_scheduler(workflows=["asking"])
    await rounds.at("2026-11-25T12:00:30", old)
    assert (await rounds.row())["broken"] is None
    old._reported_at -= 61
    await rounds.at("2026-11-25T12:01:30", old)
    row = await rounds.row()
    assert "no running coordinator" in row["broken"]
    assert row["due_at"] == utc("2026-11-25T12:00"), "one that has it finds it"
    await rounds.at("2026-11-25T12:01:40")
    assert await rounds.slots() == [("12:00", "started")]
    assert (await rounds.row())["broken"] is None


async def test_a_note_that_is_changed_while_a_slot_waits_for_its_jitter_does_not_change_the_slot(
    rounds: Rounds,
) -> None:
    await rounds.add(trigger=cron("*/5 * * * *"), jitter=timedelta(seconds=60))
    row = await rounds.row()
    assert row["next_slot"] < row["due_at"] < row["next_slot"] + timedelta(seconds=60)
    await rounds.at(row["next_slot"].isoformat()[:19])
    assert await rounds.count() == 0
    await rounds.database.pool.execute("UPDATE schedules SET note = 'new'")
    await rounds.at(row["due_at"].isoformat()[:26])
    assert await rounds.slots() == [("11:35", "started")]
    assert (await rounds.row())["next_slot"] == utc("2026-11-25T11:40")


@pytest.mark.parametrize("zone", ["UTC", "Europe/Amsterdam", "Australia/Lord_Howe"])
async def test_slots_are_the_same_whatever_the_zone_of_the_sessions(
    database_url: str, monkeypatch: pytest.MonkeyPatch, zone: str
) -> None:
    database = Database(database_url, pool_size=3, connect_timeout=30, application_name="tests")
    await database.open()
    name = await database.pool.fetchval("SELECT current_database()")
    await database.pool.execute(f"ALTER DATABASE \"{name}\" SET timezone = '{zone}'")
    await database.close()
    await database.open()
    try:
        assert await database.pool.fetchval("SHOW timezone") == zone
        await api_flows.register(database, monkeypatch)
        rounds = Rounds(database, utc("2026-10-24T20:00"))
        await rounds.add(trigger=cron("30 2 * * *", "Europe/Amsterdam"), overlap=Overlap.ALLOW)
        for now in ("2026-10-25T00:30", "2026-10-25T01:30", "2026-10-26T01:30"):
            await rounds.at(now)
        found = await database.pool.fetch("SELECT slot FROM schedule_slots ORDER BY 1")
        assert [one["slot"] for one in found] == [utc("2026-10-25T00:30"), utc("2026-10-26T01:30")]
        assert str(await database.pool.fetchval("SELECT settled_wall FROM schedules")) == "2026-10-26 02:30:00"
    finally:
        await database.pool.execute(f'ALTER DATABASE "{name}" RESET timezone')
        await database.close()


async def test_it_wakes_at_the_next_slot_and_sleeps_no_longer_than_its_interval(rounds: Rounds) -> None:
    await rounds.add()
    one = rounds.make_scheduler()
    rounds.now = utc("2026-11-25T11:59:50")
    assert await one.run_once() == pytest.approx(10)
    rounds.now = utc("2026-11-25T11:59")
    assert await one.run_once() <= 20
