"""Changes of schedules while coordinators start what is due: nothing is missed, doubled or mixed."""

from __future__ import annotations

import asyncio
from itertools import count

import pytest

from orchestrator.db.session import Database
from orchestrator.services.schedules import edit_schedule
from tests.integration import api_flows
from tests.integration.schedule_rounds import LIMITS, Rounds


async def test_edits_around_a_slot_make_no_schedule_miss_it_and_each_start_is_of_one_version(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are 50 schedules due at 12:00; a row is edited all the time from 11:59:58 to 12:00:02, some of the 50 as well."""
    await api_flows.register(database, monkeypatch)
    rounds = Rounds(database)
    due = [await rounds.add(f"schedule {number}", inputs=({"name": "0"}, {"tone": "0"})) for number in range(50)]
    other = await rounds.add("another", enabled=False)
    done = asyncio.Event()

    async def edit_all_the_time() -> int:
        for number in count(1):
            if done.is_set():
                break
            version = str(number)
            pages = ({"name": version}, {"tone": version})
            async with database.transaction() as session:
                await edit_schedule(session, other, {"note": version}, "ann", LIMITS)
            async with database.transaction() as session:
                await edit_schedule(session, due[number % 5], {"inputs": pages, "note": version}, "ann", LIMITS)
        return number

    editing = asyncio.create_task(edit_all_the_time())
    schedulers = [rounds.make_scheduler() for _ in range(2)]
    for second in ("11:59:58", "11:59:59", "12:00", "12:00:01", "12:00:02"):
        await rounds.at(f"2026-11-25T{second}", *schedulers)
    done.set()
    assert await editing > 1
    # What has lost against an edit, or had no time on a busy machine, comes with the next rounds.
    for later in range(3, 8):
        await rounds.at(f"2026-11-25T12:00:0{later}", *schedulers)
    started = await database.pool.fetch(
        "SELECT started_by, state ->> 'name' AS name, state ->> 'tone' AS tone FROM processes"
    )
    assert sorted(row["started_by"] for row in started) == sorted(f"schedule:schedule {number}" for number in range(50))
    assert [row for row in started if row["name"] != row["tone"]] == []
    assert await rounds.count("SELECT count(*) FROM schedules WHERE enabled AND next_slot = '2026-11-25T13:00Z'") == 50
