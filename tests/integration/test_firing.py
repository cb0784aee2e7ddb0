"""Schedules start processes: each slot once, in one commit with its record, whatever clocks and programs do."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.coordinator import scheduler as scheduler_module
from orchestrator.db.engine_lock import set_paused
from orchestrator.db.schedules import firing as rows
from orchestrator.db.session import Database
from orchestrator.engine.schedule import Missed, Overlap, ScheduleDefinition
from orchestrator.services import firing
from orchestrator.types import ProcessStatus
from orchestrator.workflow import StepList, begin, done, workflow
from tests.integration import api_flows
from tests.integration.schedule_rounds import LIMITS, Rounds, cron
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


@pytest.mark.parametrize("status", ProcessStatus)
async def test_a_slot_is_skipped_while_the_process_of_an_earlier_one_is_running(
    rounds: Rounds, status: ProcessStatus
) -> None:
    skips = status.value in {"created", "running", "resumed", "suspended", "waiting", "awaiting_callback"}
    await rounds.add()
    await rounds.at("2026-11-25T12:00")
    await rounds.set_status(status.value)
    await rounds.at("2026-11-25T13:00")
    await rounds.at("2026-11-25T14:00")
    row = await rounds.row()
    assert row["next_slot"] == utc("2026-11-25T15:00")
    if not skips:
        assert await rounds.slots() == [("12:00", "started"), ("13:00", "started"), ("14:00", "skipped")]
        return
    assert await rounds.slots() == [("12:00", "started"), ("13:00", "skipped"), ("14:00", "skipped")]
    assert row["skips"] == 2
    assert f"process {row['last_process_id']}" in row["last_reason"]


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


async def test_three_coordinators_start_each_slot_of_each_schedule_once(rounds: Rounds) -> None:
    for number in range(12):
        await rounds.add(f"s{number}", trigger=cron("*/10 * * * *"), overlap=Overlap.ALLOW, missed=Missed.ALL)
    three = [rounds.make_scheduler() for _ in range(3)]
    for now in ("11:40", "11:50:01", "12:21", "12:40"):
        await rounds.at(f"2026-11-25T{now}", *three)
    # 11:40, 11:50, 12:00, 12:10, 12:20, 12:30, 12:40 of each.
    assert await rounds.count() == 12 * 7
    assert await rounds.count("SELECT count(*) FROM schedule_slots WHERE result = 'started'") == 12 * 7
    assert await rounds.count("SELECT count(DISTINCT process_id) FROM schedule_slots") == 12 * 7


async def test_two_coordinators_start_one_process_where_one_is_allowed(rounds: Rounds) -> None:
    await rounds.add(trigger=cron("* * * * *"))
    two = [rounds.make_scheduler() for _ in range(2)]
    await rounds.at("2026-11-25T11:31", *two)
    await rounds.at("2026-11-25T11:32", *two)
    assert await rounds.slots() == [("11:31", "started"), ("11:32", "skipped")]
    assert await rounds.count() == 1


async def test_bad_schedules_say_what_is_wrong_and_stand_in_no_others_way(
    rounds: Rounds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler_module, "BATCH", 3)
    pool = rounds.database.pool
    bad = ["cron", "zone", "workflow", "input"]
    for name in bad:
        await rounds.add(name, workflow="asking" if name == "workflow" else "greeting")
    for number in range(20):
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
        assert await rounds.count() == number * 20
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


async def test_authors_code_runs_while_no_row_is_locked(
    rounds: Rounds, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked: list[Any] = []

    async def look(session: AsyncSession) -> bool:
        async with database.transaction() as other:
            locked.append((await other.execute(text("SELECT name FROM schedules FOR UPDATE NOWAIT"))).scalar_one())
        return True

    @workflow("Looks", run_predicate=look)
    def looking() -> StepList:
        return begin >> api_flows.greet >> done

    monkeypatch.setitem(vars(api_flows), "looking", looking)
    await database.pool.execute("TRUNCATE workflows CASCADE")
    await api_flows.register(database, monkeypatch, [looking])
    await rounds.add(workflow="looking")
    await rounds.at("2026-11-25T12:00")
    assert locked == ["nightly"]
    assert await rounds.slots() == [("12:00", "started")]


async def _prepare(rounds: Rounds, schedule_id: UUID) -> firing.PreparedFiring:
    async with rounds.database.transaction() as session:
        prepared = await firing.prepare_firing(session, schedule_id, LIMITS, rounds.now)
        await session.rollback()
    assert prepared is not None
    return prepared


async def test_a_start_is_wholly_of_the_old_or_wholly_of_the_new_definition(rounds: Rounds) -> None:
    schedule_id = await rounds.add()
    rounds.now = utc("2026-11-25T12:00")
    prepared = await _prepare(rounds, schedule_id)
    await rounds.database.pool.execute("UPDATE schedules SET inputs = $1", '[{"name": "Bob"}, {"tone": "cold"}]')
    async with rounds.database.transaction() as session:
        fired = await firing.fire(session, schedule_id, prepared, LIMITS, rounds.now)
    assert fired.again
    assert await rounds.count() == 0
    await rounds.at("2026-11-25T12:00")
    assert '"cold"' in str(await rounds.database.pool.fetchval("SELECT state::text FROM processes"))


async def test_a_slot_of_a_schedule_that_was_paused_in_between_does_not_start(rounds: Rounds) -> None:
    schedule_id = await rounds.add()
    rounds.now = utc("2026-11-25T12:00")
    prepared = await _prepare(rounds, schedule_id)
    await rounds.database.pool.execute("UPDATE schedules SET enabled = false")
    async with rounds.database.transaction() as session:
        assert await firing.fire(session, schedule_id, prepared, LIMITS, rounds.now) == firing.NOTHING
    assert await rounds.count() == 0


async def test_a_coordinator_that_stands_still_while_it_has_a_schedule_stops_no_other(
    rounds: Rounds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "IDLE_TIMEOUT", "500ms")
    frozen = await rounds.add("frozen")
    await rounds.add("other")
    rounds.now = utc("2026-11-25T12:00")
    prepared = await _prepare(rounds, frozen)
    session = rounds.database._sessions()
    await firing.fire(session, frozen, prepared, LIMITS, rounds.now)
    one = rounds.make_scheduler()
    await asyncio.wait_for(one.run_once(), 5)
    assert await rounds.slots("other") == [("12:00", "started")]
    async with asyncio.timeout(20):
        while not await rounds.slots("frozen"):
            await one.run_once()
            await asyncio.sleep(0.05)
    with pytest.raises(Exception, match=r"idle-in-transaction|closed"):
        await session.commit()
        await session.execute(text("SELECT 1"))
    await session.close()
    assert await rounds.slots("frozen") == [("12:00", "started")]
    assert await rounds.count() == 2


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


async def test_programs_with_other_rules_of_a_zone_start_one_slot_on_each_day(
    rounds: Rounds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A country moves its clock: by the new rules 21:00 is 10:00 in UTC, by the old ones 11:00."""
    rules = "old"

    def read(found: rows.LiveSchedule) -> ScheduleDefinition:
        zone = {"old": "Etc/GMT-10", "new": "Etc/GMT-11"}[rules]
        return ScheduleDefinition("nightly", "greeting", cron("0 21 * * *", zone), tuple(found.inputs))

    monkeypatch.setattr(firing, "_read", read)
    monkeypatch.setattr(firing, "find_rules", lambda: rules)
    monkeypatch.setattr(scheduler_module, "find_rules", lambda: rules)
    rounds.now = utc("2026-11-25T08:00")
    await rounds.add(trigger=cron("0 21 * * *", "Etc/GMT-10"))
    await rounds.database.pool.execute("UPDATE schedules SET zone_rules = 'old'")
    programs = {"old": rounds.make_scheduler(), "new": rounds.make_scheduler()}
    started = []
    for hour in (*range(1, 5), *range(25, 29), *range(49, 53)):
        rounds.now = utc("2026-11-25T08:00") + timedelta(hours=hour)
        for rules in ("old", "new") if hour < 40 else ("new", "old"):
            programs[rules]._left.clear()
            before = await rounds.count()
            await programs[rules].run_once()
            await rounds.set_status("completed")
            if await rounds.count() > before:
                started.append(f"{rounds.now:%d %H:%M}")
    assert len(started) == 3, started
    assert [one[:2] for one in started] == ["25", "26", "27"]
    assert await rounds.count("SELECT count(*) FROM schedule_slots WHERE result <> 'started'") == 0


async def test_a_program_with_newer_rules_finds_a_slot_that_is_earlier_by_them(
    rounds: Rounds, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rounds.add(trigger=cron("0 21 * * *", "Etc/GMT-11"))
    await rounds.database.pool.execute("UPDATE schedules SET zone_rules = 'old', due_at = due_at + interval '1 hour'")
    await rounds.at("2026-11-25T12:00")
    row = await rounds.row()
    assert (row["next_slot"], row["due_at"]) == (utc("2026-11-26T10:00"), utc("2026-11-26T10:00"))


@pytest.mark.parametrize("zone", ["UTC", "Europe/Amsterdam", "Australia/Lord_Howe"])
async def test_slots_are_the_same_whatever_the_zone_of_the_sessions(
    database_url: str, monkeypatch: pytest.MonkeyPatch, zone: str
) -> None:
    database = Database(database_url, pool_size=3, connect_timeout=5, application_name="tests")
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


async def test_finding_what_is_due_costs_one_look_into_an_index_however_many_schedules_there_are(
    rounds: Rounds,
) -> None:
    await rounds.add()
    pool = rounds.database.pool
    columns = [
        row["column_name"]
        for row in await pool.fetch("SELECT column_name FROM information_schema.columns WHERE table_name = 'schedules'")
        if row["column_name"] not in {"schedule_id", "name", "due_at"}
    ]
    await pool.execute(
        f"INSERT INTO schedules (name, due_at, {', '.join(columns)})"
        f" SELECT 's' || n, due_at + n * interval '1 minute', {', '.join(columns)} FROM schedules, generate_series(1, 10000) n"
    )
    await pool.execute("ANALYZE schedules")
    async with rounds.database.transaction() as session:
        plan = await session.scalars(
            text(f"EXPLAIN (ANALYZE, BUFFERS) {rows._FIND.text}"),
            {
                "known": ["greeting"],
                "except": [],
                "running": ["running"],
                "ahead": 1.0,
                "batch": 100,
                "now": utc("2026-11-25T12:05"),
            },
        )
        lines = "\n".join(plan)
    assert "Index Scan using ix_schedules_due_at" in lines
    assert "Seq Scan on schedules" not in lines
    assert "Rows Removed" not in lines


async def test_the_loop_goes_on_after_every_error(rounds: Rounds, monkeypatch: pytest.MonkeyPatch) -> None:
    await rounds.add()
    one = rounds.make_scheduler()
    monkeypatch.setattr(one, "_interval", 0.01)
    errors: list[Exception] = [ZeroDivisionError("ours"), ConnectionResetError("the server's"), TimeoutError()]
    find = rows.find_due

    async def fail_first(*given: Any, **named: Any) -> list[rows.Candidate]:
        if errors:
            raise errors.pop()
        return await find(*given, **named)

    monkeypatch.setattr(rows, "find_due", fail_first)
    rounds.now = utc("2026-11-25T12:00")
    stopping = asyncio.Event()
    running = asyncio.create_task(one.run(stopping))
    async with asyncio.timeout(20):
        while not await rounds.slots():
            await rounds.database.pool.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid() AND random() < 0.3"
            )
            await asyncio.sleep(0.02)
    stopping.set()
    await running
    assert await rounds.slots() == [("12:00", "started")]
    assert await rounds.count() == 1


async def test_a_defect_about_one_schedule_postpones_it_and_stands_on_its_row(
    rounds: Rounds, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rounds.add("defective")
    await rounds.add("sound")
    prepare = firing.prepare_firing
    row = await rounds.row("defective")

    async def fail(session: AsyncSession, schedule_id: UUID, *others: Any) -> firing.PreparedFiring | None:
        if schedule_id == row["schedule_id"]:
            raise ZeroDivisionError("oh")
        return await prepare(session, schedule_id, *others)

    monkeypatch.setattr(scheduler_module, "prepare_firing", fail)
    await rounds.at("2026-11-25T12:00")
    assert await rounds.slots("sound") == [("12:00", "started")]
    row = await rounds.row("defective")
    assert "ZeroDivisionError" in row["broken"]
    assert row["due_at"] == utc("2026-11-25T12:00:30")
    monkeypatch.undo()


async def test_it_wakes_at_the_next_slot_and_sleeps_no_longer_than_its_interval(rounds: Rounds) -> None:
    await rounds.add()
    one = rounds.make_scheduler()
    rounds.now = utc("2026-11-25T11:59:50")
    assert await one.run_once() == pytest.approx(10)
    rounds.now = utc("2026-11-25T11:59")
    assert await one.run_once() <= 20
