"""What people do to schedules: every change is whole, checked before it is stored, and recorded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest

from orchestrator.db.schedules.rows import StoredSchedule, Wanted
from orchestrator.db.session import Database
from orchestrator.engine.schedule import Missed, Overlap, ScheduleDefinition
from orchestrator.engine.triggers import CronTrigger, DateTrigger, IntervalTrigger
from orchestrator.errors import (
    ConflictError,
    ForbiddenError,
    FormIncompleteError,
    InvalidInputError,
    NotFoundError,
)
from orchestrator.services.schedule_reading import ScheduleState, describe, list_schedules, show_schedule
from orchestrator.services.schedules import (
    ScheduleChanges,
    find_schedule,
    pause_schedule,
    remove_schedule,
    reset_schedule,
    resume_schedule,
    run_schedule,
)
from tests.integration.api_flows import FLOWS, register
from tests.integration.engine_bench import LIMITS
from tests.integration.schedule_bench import AMSTERDAM, GREET, PAGES, add, at, edit, set_clock


@pytest.fixture(autouse=True)
async def _flows(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    await register(database, monkeypatch, FLOWS)


async def test_a_schedule_is_stored_as_it_was_wanted_and_stands_at_its_next_slot(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await set_clock(monkeypatch, "2026-11-25T10:05:00+00:00")
    added = await add(database, replace(GREET, note=" by hand "))

    assert (added.origin, added.created_by, added.enabled, added.note) == ("person", "ann", True, "by hand")
    assert (added.inputs, added.touched, added.declared) == (list(PAGES), [], None)
    assert added.settled_through == at("2026-11-25T10:05Z")
    assert added.next_slot == added.due_at == at("2026-11-25T11:00Z")
    async with database.transaction() as session:
        shown = await show_schedule(session, added.schedule_id, coming=2)
        assert await find_schedule(session, "nightly") == added.schedule_id
        assert await find_schedule(session, str(added.schedule_id)[:8]) == added.schedule_id
    assert [(one.action, one.author) for one in shown.changes] == [("added", "ann")]
    assert (shown.listed.state, len(shown.coming), shown.slots) == (ScheduleState.ENABLED, 2, [])


@pytest.mark.parametrize(
    ("wrong", "error", "names"),
    [
        (lambda d: replace(d, name=" "), InvalidInputError, "^name: "),
        (lambda d: replace(d, name="a\nb"), InvalidInputError, "^name: "),
        (lambda d: replace(d, name="n" * 201), InvalidInputError, "^name: "),
        (lambda d: replace(d, trigger=DateTrigger(at("2020-01-01T00:00Z"))), InvalidInputError, "^run_date: .*past"),
        (
            lambda d: replace(d, trigger=CronTrigger("0 3 * * *", ZoneInfo("UTC"), end=at("2020-01-01T00:00Z"))),
            InvalidInputError,
            "^end_date: ",
        ),
        (
            lambda d: replace(
                d, trigger=IntervalTrigger(timedelta(minutes=5), at("2020-01-01T00:00Z")), jitter=timedelta(minutes=5)
            ),
            InvalidInputError,
            "^jitter: ",
        ),
        (lambda d: replace(d, inputs=({"name": "ann"}, {"tone": 1})), InvalidInputError, "tone|form"),
        (lambda d: replace(d, inputs=({"name": "ann"},)), FormIncompleteError, "not complete"),
        (lambda d: replace(d, inputs=({"name": float("nan")},)), InvalidInputError, "page 1"),
        (
            lambda d: replace(d, workflow="asking"),
            InvalidInputError,
            "no form",
        ),
        (lambda d: replace(d, workflow="nothing"), NotFoundError, "neither in the code nor in the database"),
        (lambda d: replace(d, workflow="forbidden", inputs=()), ForbiddenError, "'ann' may not start"),
        (lambda d: replace(d, note="\0"), InvalidInputError, "the note"),
    ],
)
async def test_what_cannot_work_is_refused_by_name_and_nothing_is_stored(
    database: Database, wrong: Callable[[ScheduleDefinition], ScheduleDefinition], error: type[Exception], names: str
) -> None:
    with pytest.raises(error, match=names):
        await add(database, wrong(GREET))
    assert await database.pool.fetchval("SELECT count(*) FROM schedules") == 0


@pytest.mark.parametrize("overlap", [Overlap.SKIP, Overlap.QUEUE])
async def test_policies_that_contradict_each_other_are_refused_when_one_is_changed(
    database: Database, overlap: Overlap
) -> None:
    """Of five missed slots four would be lost."""
    added = await add(database, replace(GREET, missed=Missed.ALL, missed_limit=5, overlap=Overlap.ALLOW))
    with pytest.raises(InvalidInputError, match=r"^missed: .*overlap"):
        await edit(database, added.schedule_id, {"overlap": overlap})


async def test_a_workflow_that_only_the_code_knows_is_refused(database: Database) -> None:
    await database.pool.execute("UPDATE workflows SET deleted_at = now() WHERE name = 'greeting'")
    with pytest.raises(NotFoundError, match="not in the database"):
        await add(database)


async def test_a_name_is_taken_until_its_schedule_is_removed(database: Database) -> None:
    first = await add(database)
    with pytest.raises(ConflictError, match="there is a schedule 'nightly' already"):
        await add(database)
    async with database.transaction() as session:
        await remove_schedule(session, first.schedule_id, "bob")
        assert await list_schedules(session, Wanted()) == []
        with pytest.raises(NotFoundError, match="no schedule 'nightly'"):
            await find_schedule(session, "nightly")
        with pytest.raises(NotFoundError, match="removed by 'bob'"):
            await pause_schedule(session, first.schedule_id, "ann")
    again = await add(database, replace(GREET, inputs=({"name": "bob"}, {"tone": "kind"})), "eve")
    assert (again.schedule_id, again.deleted_at, again.inputs[0]["name"]) == (first.schedule_id, None, "bob")
    async with database.transaction() as session:
        shown = await show_schedule(session, first.schedule_id)
    assert [(one.action, one.author) for one in shown.changes] == [
        ("added", "eve"),
        ("removed", "bob"),
        ("added", "ann"),
    ]


async def test_an_edit_changes_only_what_is_given_and_records_it(database: Database) -> None:
    added = await add(database)
    edited = await edit(database, added.schedule_id, {"note": "why not", "missed": Missed.SKIP})
    assert (edited.note, edited.missed, edited.changed_by) == ("why not", "skip", "bob")
    changed = {"note", "missed", "changed_by", "changed_at"}
    for name in StoredSchedule.__dataclass_fields__.keys() - changed:
        assert getattr(edited, name) == getattr(added, name), name
    async with database.transaction() as session:
        newest = (await show_schedule(session, added.schedule_id)).changes[0]
    assert (newest.action, newest.author) == ("edited", "bob")
    assert newest.changes == {"note": [None, "why not"], "missed": ["once", "skip"]}


async def test_an_edit_that_cannot_work_leaves_everything_as_it_is(database: Database) -> None:
    added = await add(database)
    for changes, names in (
        (ScheduleChanges(inputs=({"name": "x"}, {"tone": 1}), note="new"), "form"),
        (ScheduleChanges(trigger=DateTrigger(at("2020-01-01T00:00Z")), note="new"), "run_date"),
        (ScheduleChanges(missed_limit=0, note="new"), "missed_limit"),
    ):
        with pytest.raises(InvalidInputError, match=names):
            await edit(database, added.schedule_id, changes)
    async with database.transaction() as session:
        assert (await show_schedule(session, added.schedule_id)).listed.stored == added


async def test_run_now_starts_the_pages_of_the_schedule_and_is_recorded(database: Database) -> None:
    added = await add(database)
    async with database.transaction() as session:
        await pause_schedule(session, added.schedule_id, "bob")
        outcome = await run_schedule(session, added.schedule_id, "bob", LIMITS, key="once")
    async with database.transaction() as session:
        again = await run_schedule(session, added.schedule_id, "bob", LIMITS, key="once")
        shown = await show_schedule(session, added.schedule_id)
    assert (outcome.created, again.created, again.process_id) == (True, False, outcome.process_id)
    assert [(one.result, one.reason, one.process_id) for one in shown.slots] == [
        ("started", "run by bob", outcome.process_id)
    ]
    assert shown.listed.stored.last_process_id == outcome.process_id
    started = await database.pool.fetchrow("SELECT started_by, workflow FROM processes")
    assert started is not None
    assert tuple(started) == ("bob", "greeting")


async def test_a_schedule_that_was_run_by_hand_is_not_broken_any_more(database: Database) -> None:
    added = await add(database)
    await database.pool.execute("UPDATE schedules SET broken = 'its workflow is not registered'")
    async with database.transaction() as session:
        await run_schedule(session, added.schedule_id, "bob", LIMITS)
        shown = await show_schedule(session, added.schedule_id)
    assert shown.listed.stored.broken is None


async def test_run_now_does_not_overlap_where_the_schedule_forbids_it(database: Database) -> None:
    """The scheduled one and the one by hand are two of the same."""
    added = await add(database)
    async with database.transaction() as session:
        first = await run_schedule(session, added.schedule_id, "bob", LIMITS)
    with pytest.raises(ConflictError, match=f"process {first.process_id} .* is running"):
        async with database.transaction() as session:
            await run_schedule(session, added.schedule_id, "bob", LIMITS)
    assert await database.pool.fetchval("SELECT count(*) FROM processes") == 1
    await edit(database, added.schedule_id, {"overlap": Overlap.ALLOW})
    async with database.transaction() as session:
        await run_schedule(session, added.schedule_id, "bob", LIMITS)
    await edit(database, added.schedule_id, {"overlap": Overlap.SKIP})
    await database.pool.execute("UPDATE processes SET status = 'failed'")
    async with database.transaction() as session:
        await run_schedule(session, added.schedule_id, "bob", LIMITS)


async def test_a_schedule_of_a_removed_workflow_is_shown_as_broken(database: Database) -> None:
    added = await add(database)
    await database.pool.execute("UPDATE workflows SET deleted_at = now() WHERE name = 'greeting'")
    async with database.transaction() as session:
        (listed,) = await list_schedules(session, Wanted(workflow="greeting"))
    assert listed.state is ScheduleState.BROKEN
    assert "'greeting' is not registered in the database" in str(listed.why)
    assert listed.stored.schedule_id == added.schedule_id


async def test_a_stored_trigger_that_no_longer_works_is_shown_as_broken_and_can_be_replaced(database: Database) -> None:
    added = await add(database)
    for trigger in ('{"kind": "moon"}', '{"kind": "cron", "expression": "0 3 * * *", "zone": "Mars"}'):
        await database.pool.execute("UPDATE schedules SET trigger = $1", trigger)
        async with database.transaction() as session:
            shown = await show_schedule(session, added.schedule_id)
            await pause_schedule(session, added.schedule_id, "bob")
        assert (shown.listed.state, shown.coming) == (ScheduleState.BROKEN, [])
        edited = await edit(database, added.schedule_id, {"trigger": AMSTERDAM})
        async with database.transaction() as session:
            resumed = await resume_schedule(session, edited.schedule_id, "bob")
        assert describe(resumed).state is ScheduleState.ENABLED


async def test_a_list_is_filtered_and_comes_in_pages(database: Database) -> None:
    for name in ("b%", "a_", "c"):
        await add(database, replace(GREET, name=name, enabled=name != "c"))

    async def names(wanted: Wanted, **window: Any) -> list[str]:
        async with database.transaction() as session:
            return [one.stored.name for one in await list_schedules(session, wanted, **window)]

    assert await names(Wanted()) == ["a_", "b%", "c"]
    assert await names(Wanted(), first=1, count=1) == ["b%"]
    assert await names(Wanted(enabled=False)) == ["c"]
    assert await names(Wanted(name="%")) == ["b%"]
    assert await names(Wanted(origin="code")) == []
    assert await names(Wanted(workflow="asking")) == []


async def test_what_no_code_declares_cannot_go_back_to_code(database: Database) -> None:
    added = await add(database)
    async with database.transaction() as session:
        with pytest.raises(ConflictError, match="not declared by the code"):
            await reset_schedule(session, added.schedule_id, "bob")
        with pytest.raises(NotFoundError, match="no schedule"):
            await reset_schedule(session, uuid4(), "bob")
