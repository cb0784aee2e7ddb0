"""Several coordinators fire schedules at once, stand still, lose the database, or have other rules of time zones."""

from __future__ import annotations

import asyncio
import zoneinfo
from collections.abc import Callable, Iterator
from datetime import timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.coordinator import scheduler as scheduler_module
from orchestrator.db.schedules import firing as rows
from orchestrator.db.session import Database
from orchestrator.engine.schedule import Missed, Overlap
from orchestrator.engine.zones import find_rules
from orchestrator.services import firing
from orchestrator.services.predicates import no_uncompleted_instance
from orchestrator.workflow import StepList, begin, done, workflow
from tests.integration import api_flows
from tests.integration.schedule_rounds import LIMITS, Rounds, cron
from tests.integration.waiting import until
from tests.unit.wall_clock import utc


@pytest.fixture
async def rounds(database: Database, monkeypatch: pytest.MonkeyPatch) -> Rounds:
    await api_flows.register(database, monkeypatch)
    return Rounds(database)


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


async def test_schedules_of_one_workflow_whose_predicate_allows_one_process_start_one(
    rounds: Rounds, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The predicate is asked before the schedule is locked, and others may start meanwhile."""

    @workflow("Is alone", run_predicate=no_uncompleted_instance)
    def alone() -> StepList:
        return begin >> api_flows.greet >> done

    monkeypatch.setitem(vars(api_flows), "alone", alone)
    await database.pool.execute("TRUNCATE workflows CASCADE")
    await api_flows.register(database, monkeypatch, [alone])
    ids = [await rounds.add(f"s{number}", workflow="alone") for number in range(3)]
    rounds.now = utc("2026-11-25T12:00")
    for one in [(schedule_id, await _prepare(rounds, schedule_id)) for schedule_id in ids]:
        async with database.transaction() as session:
            await firing.fire(session, *one, LIMITS, rounds.now)
    assert await rounds.count() == 1
    assert await rounds.slots("s0") == [("12:00", "started")]
    assert await rounds.slots("s2") == [("12:00", "refused")]
    assert "neither completed nor aborted" in (await rounds.row("s2"))["last_reason"]


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
    await asyncio.wait_for(one.run_once(), 60)
    assert await rounds.slots("other") == [("12:00", "started")]

    async def has_started() -> bool:
        await one.run_once()
        return bool(await rounds.slots("frozen"))

    await until(has_started, "the server has ended the transaction")
    with pytest.raises(Exception, match=r"idle-in-transaction|closed"):
        await session.commit()
        await session.execute(text("SELECT 1"))
    await session.close()
    assert await rounds.slots("frozen") == [("12:00", "started")]
    assert await rounds.count() == 2


@pytest.fixture
def tables(tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """Provide a change of the tables of time zones, as another PYTHONTZPATH is; by the old ones Sydney is at UTC+10."""
    for rules, zone in (("old", "Etc/GMT-10"), ("new", "Etc/GMT-11")):
        copied = tmp_path / rules / "Australia" / "Sydney"
        copied.parent.mkdir(parents=True)
        copied.write_bytes(files("tzdata").joinpath("zoneinfo", *zone.split("/")).read_bytes())

    def use(*paths: Path) -> None:
        zoneinfo.reset_tzpath(paths or None)
        zoneinfo.ZoneInfo.clear_cache()
        find_rules.cache_clear()

    yield lambda rules: use(tmp_path / rules)
    use()


async def test_programs_with_other_rules_of_a_zone_start_one_slot_on_each_day(
    rounds: Rounds, tables: Callable[[str], None]
) -> None:
    """A country moves its clock: by the new rules 21:00 is 10:00 in UTC, by the old ones 11:00."""
    tables("old")
    rounds.now = utc("2026-11-25T08:00")
    await rounds.add(trigger=cron("0 21 * * *", "Australia/Sydney"))
    assert (await rounds.row())["next_slot"] == utc("2026-11-25T11:00")
    programs = {"old": rounds.make_scheduler(), "new": rounds.make_scheduler()}
    started = []
    for hour in (*range(1, 5), *range(25, 29), *range(49, 53)):
        rounds.now = utc("2026-11-25T08:00") + timedelta(hours=hour)
        for rules in ("old", "new") if hour < 40 else ("new", "old"):
            tables(rules)
            programs[rules]._left.clear()
            before = await rounds.count()
            await programs[rules].run_once()
            await rounds.set_status("completed")
            if await rounds.count() > before:
                started.append(f"{rounds.now:%d %H:%M}")
    assert [one[:2] for one in started] == ["25", "26", "27"], started
    assert await rounds.count("SELECT count(*) FROM schedule_slots WHERE result <> 'started'") == 0


async def test_a_program_with_newer_rules_finds_a_slot_that_is_earlier_by_them(
    rounds: Rounds, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rounds.add(trigger=cron("0 21 * * *", "Etc/GMT-11"))
    await rounds.database.pool.execute("UPDATE schedules SET zone_rules = 'old', due_at = due_at + interval '1 hour'")
    await rounds.at("2026-11-25T12:00")
    row = await rounds.row()
    assert (row["next_slot"], row["due_at"]) == (utc("2026-11-26T10:00"), utc("2026-11-26T10:00"))


async def test_finding_what_is_due_costs_one_look_into_an_index_however_many_schedules_there_are(
    rounds: Rounds,
) -> None:
    await rounds.add()
    pool = rounds.database.pool
    columns = [
        row["column_name"]
        for row in await pool.fetch("SELECT column_name FROM information_schema.columns WHERE table_name = 'schedules'")
        if row["column_name"] not in {"schedule_id", "name", "due_at", "words"}
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
    errors: list[Exception] = [
        ZeroDivisionError("ours"),
        asyncpg.ConnectionDoesNotExistError("the server's"),
        TimeoutError(),
    ]
    find = rows.find_due

    async def fail_first(*given: Any, **named: Any) -> list[rows.Candidate]:
        if errors:
            raise errors.pop()
        return await find(*given, **named)

    monkeypatch.setattr(rows, "find_due", fail_first)
    rounds.now = utc("2026-11-25T12:00")
    stopping = asyncio.Event()
    running = asyncio.create_task(one.run(stopping))
    for _ in range(10):
        await rounds.database.pool.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()"
        )
        await asyncio.sleep(0.02)
    await until(rounds.slots, "the slot has started")
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

    async def fail(
        session: AsyncSession, schedule_id: UUID, *others: Any, **options: Any
    ) -> firing.PreparedFiring | None:
        if schedule_id == row["schedule_id"]:
            raise ZeroDivisionError("oh")
        return await prepare(session, schedule_id, *others, **options)

    monkeypatch.setattr(scheduler_module, "prepare_firing", fail)
    await rounds.at("2026-11-25T12:00")
    assert await rounds.slots("sound") == [("12:00", "started")]
    row = await rounds.row("defective")
    assert "ZeroDivisionError" in row["broken"]
    assert row["due_at"] == utc("2026-11-25T12:00:30")
    monkeypatch.undo()
