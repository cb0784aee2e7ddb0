"""Schedules that code declares meet what people do: nobody's change is lost, and nothing comes back that was removed."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from orchestrator import declared_schedules
from orchestrator.coordinator.declarations import Declarations
from orchestrator.db.schedules.rows import StoredSchedule, Wanted
from orchestrator.db.session import Database
from orchestrator.engine.schedule import Missed, Overlap
from orchestrator.engine.triggers import CronTrigger
from orchestrator.engine.zones import find_zone
from orchestrator.errors import InvalidInputError
from orchestrator.services.schedule_reading import ScheduleState, ShownSchedule, describe, list_schedules, show_schedule
from orchestrator.services.schedule_reconciliation import NOT_DECLARED, Reconciliation, list_reconciliations
from orchestrator.services.schedules import (
    ScheduleChanges,
    edit_schedule,
    find_schedule,
    pause_schedule,
    remove_schedule,
    reset_schedule,
    resume_schedule,
)
from orchestrator.workflows import Schedule
from tests.integration.api_flows import FLOWS, register
from tests.integration.engine_bench import LIMITS
from tests.integration.schedule_bench import GREET, PAGES, add, set_clock

Declared = dict[str, dict[str, Any]]
V1: Declared = {"nightly": {"cron": "0 3 * * *", "inputs": PAGES}}


@pytest.fixture(autouse=True)
async def _flows(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    await register(database, monkeypatch, FLOWS)


def program(declared: Declared, patience: float = 1000) -> list[Reconciliation]:
    """Return what a program declares with this code."""
    declared_schedules._declared.clear()
    found = [Schedule(name, **{"workflow": "greeting", **arguments}) for name, arguments in declared.items()]
    declared_schedules._declared.clear()
    reconciliations = list_reconciliations("a test", found)
    for one in reconciliations:
        one.patience = patience
    return reconciliations


async def restart(database: Database, declared: Declared, patience: float = 1000) -> None:
    """Start a program with this code."""
    await Declarations(database, program(declared, patience), LIMITS).run_once()


async def show(database: Database, name: str) -> ShownSchedule:
    async with database.transaction() as session:
        return await show_schedule(session, await find_schedule(session, name, removed=True))


async def read(database: Database, name: str = "nightly") -> StoredSchedule:
    return (await show(database, name)).listed.stored


async def names(database: Database) -> list[str]:
    async with database.transaction() as session:
        return [one.stored.name for one in await list_schedules(session, Wanted())]


async def edit(database: Database, changes: ScheduleChanges, name: str = "nightly") -> None:
    async with database.transaction() as session:
        await edit_schedule(session, await find_schedule(session, name), changes, "ann", LIMITS)


async def test_what_code_declares_is_stored_once(database: Database) -> None:
    for _ in range(3):
        await restart(database, V1)
    shown = await show(database, "nightly")
    stored = shown.listed.stored
    assert (stored.origin, stored.workflow, stored.inputs, stored.touched) == ("code", "greeting", list(PAGES), [])
    assert (stored.created_by, shown.listed.state) == ("code", ScheduleState.ENABLED)
    assert [(one.action, one.author) for one in shown.changes] == [("declared", "code")]
    assert await names(database) == ["nightly"]


async def test_a_new_version_of_the_code_changes_what_it_declares(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await restart(database, V1)
    before = await read(database)
    await restart(database, {"nightly": {**V1["nightly"], "note": "new", "overlap": "queue"}})
    after = await read(database)
    assert (after.note, after.overlap) == ("new", "queue")
    assert (after.settled_through, after.next_slot) == (before.settled_through, before.next_slot)
    await restart(database, {"nightly": {**V1["nightly"], "cron": "0 4 * * *"}})
    assert (await read(database)).trigger["expression"] == "0 4 * * *"
    assert [one.action for one in (await show(database, "nightly")).changes] == ["changed", "changed", "declared"]


V2: Declared = {
    "nightly": {
        "cron": "0 5 * * *",
        "zone": "Europe/Berlin",
        "inputs": ({"name": "code"}, {"tone": "gruff"}),
        "missed": "skip",
        "overlap": "queue",
        "missed_limit": 3,
        "jitter": timedelta(seconds=7),
        "note": "of the code",
    }
}


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("trigger", {"trigger": CronTrigger("0 9 * * *", find_zone("Europe/Amsterdam"))}),
        ("inputs", {"inputs": ({"name": "eve"}, {"tone": "kind"})}),
        ("missed", {"missed": Missed.ALL, "overlap": Overlap.ALLOW}),
        ("overlap", {"overlap": Overlap.ALLOW}),
        ("missed_limit", {"missed_limit": 5}),
        ("jitter", {"jitter": timedelta(seconds=9)}),
        ("note", {"note": "of ann"}),
    ],
)
async def test_a_person_wins_for_the_fields_that_he_has_changed_and_code_for_the_others(
    database: Database, field: str, change: ScheduleChanges
) -> None:
    """Code v1, a person edits, restart with v1, restart with v2, back to code."""
    await restart(database, V1)
    await edit(database, change)
    edited = await read(database)
    assert edited.touched == sorted(change)
    await restart(database, V1)
    assert await read(database) == edited

    await restart(database, V2)
    v2 = await read(database)
    expected = program(V2)[1].written["nightly"]
    for name in ("trigger", "inputs", "missed", "overlap", "missed_limit", "jitter", "note"):
        assert getattr(v2, name) == (getattr(edited, name) if name in change else expected[name]), name
    assert field in v2.touched

    async with database.transaction() as session:
        reset = await reset_schedule(session, v2.schedule_id, "ann")
    for name in ("trigger", "inputs", "missed", "overlap", "missed_limit", "jitter", "note"):
        assert getattr(reset, name) == expected[name], name
    assert (reset.touched, (await show(database, "nightly")).changes[0].action) == ([], "reset")


async def test_a_paused_one_stays_paused_after_any_restart(database: Database) -> None:
    await restart(database, V1)
    async with database.transaction() as session:
        await pause_schedule(session, await find_schedule(session, "nightly"), "ann", "holidays")
    for version in (V1, V2, {"nightly": {**V2["nightly"], "enabled": True, "note": "v3"}}):
        await restart(database, version)
        stored = await read(database)
        assert (stored.enabled, stored.disabled_reason) == (False, "paused by ann: holidays")
    assert stored.note == "v3"


async def test_what_code_disables_is_disabled_until_it_enables_it(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await set_clock(monkeypatch, "2026-11-25T10:05:00+00:00")
    await restart(database, V1)
    await restart(database, {"nightly": {**V1["nightly"], "enabled": False}})
    stored = await read(database)
    assert (stored.enabled, stored.next_slot, stored.disabled_reason) == (False, None, "disabled by code")
    await restart(database, {"nightly": {**V1["nightly"], "note": "v3"}})
    stored = await read(database)
    assert (stored.enabled, stored.disabled_reason) == (True, None)
    assert stored.next_slot is not None


async def test_dropping_a_declaration_disables_it_and_touches_no_other(database: Database) -> None:
    """Three of the code, three of people."""
    three = dict.fromkeys(("a", "b", "c"), V1["nightly"])
    await restart(database, three)
    for name in ("x", "y", "z"):
        await add(database, replace(GREET, name=name))
    others = [await read(database, name) for name in ("a", "c", "x", "y", "z")]
    await database.pool.execute(
        "INSERT INTO schedule_slots (schedule_id, slot, result) SELECT schedule_id, now(), 'started' FROM schedules"
    )
    two = {name: three[name] for name in ("a", "c")}
    for _ in range(2):
        await restart(database, two)
    shown = await show(database, "b")
    assert (shown.listed.state, shown.listed.why) == (ScheduleState.DISABLED, NOT_DECLARED)
    assert (shown.listed.stored.declared, shown.listed.stored.next_slot, len(shown.slots)) == (None, None, 1)
    assert [(one.action, one.author) for one in shown.changes] == [("dropped", "code"), ("declared", "code")]
    assert [await read(database, name) for name in ("a", "c", "x", "y", "z")] == others

    await restart(database, {**three, "d": V1["nightly"]})
    again = await show(database, "b")
    assert (again.listed.state, len(again.slots), again.changes[0].action) == (
        ScheduleState.ENABLED,
        1,
        "declared again",
    )
    assert again.listed.stored.schedule_id == shown.listed.stored.schedule_id


async def test_what_a_person_enables_after_the_code_has_dropped_it_is_kept(database: Database) -> None:
    await restart(database, {**V1, "other": V1["nightly"]})
    await restart(database, V1)
    async with database.transaction() as session:
        await resume_schedule(session, await find_schedule(session, "other"), "ann")
    await restart(database, {"nightly": {**V1["nightly"], "note": "v3"}})
    assert (await read(database, "other")).enabled


async def test_what_a_person_removes_stays_removed_until_it_goes_back_to_code(database: Database) -> None:
    """A tombstone, also when the declaration changes or comes again."""
    await restart(database, {**V1, "other": V1["nightly"]})
    async with database.transaction() as session:
        await remove_schedule(session, await find_schedule(session, "nightly"), "ann")
    other = {"other": V1["nightly"]}
    for version in ({**V1, **other}, {**V2, **other}, other, {**V2, **other, "more": V1["nightly"]}):
        await restart(database, version)
        assert "nightly" not in await names(database)
    async with database.transaction() as session:
        schedule_id = await find_schedule(session, "nightly", removed=True)
        reset = await reset_schedule(session, schedule_id, "ann")
    assert (reset.note, reset.deleted_at, reset.enabled) == ("of the code", None, True)
    assert "nightly" in await names(database)


async def test_a_removed_one_that_a_person_adds_again_is_as_he_wants_it(database: Database) -> None:
    await restart(database, V1)
    async with database.transaction() as session:
        await remove_schedule(session, await find_schedule(session, "nightly"), "ann")
    added = await add(database, replace(GREET, note="of ann"))
    await restart(database, V2)
    stored = await read(database)
    assert (stored.note, stored.trigger, stored.inputs) == ("of ann", added.trigger, added.inputs)


async def test_a_start_without_declarations_disables_nothing(database: Database) -> None:
    """A failed import, or a module that is missing in ORCHESTRATOR_WORKFLOWS."""
    await restart(database, V1)
    before = await read(database)
    with capture_logs() as logs:
        await restart(database, {})
    assert await read(database) == before
    assert [one["schedules"] for one in logs if "declares no schedules" in one["event"]] == [1]


async def test_the_engines_own_schedules_and_the_projects_come_and_go_by_themselves(database: Database) -> None:
    await restart(database, V1)
    engines = Reconciliation(declared_schedules.Source.ENGINE, {"own": replace(GREET, name="own")}, "a test")
    await engines.reconcile(database, LIMITS)
    assert await names(database) == ["nightly", "own"]
    await restart(database, V2)
    assert [(await read(database, name)).enabled for name in ("nightly", "own")] == [True, True]


async def test_an_old_program_that_restarts_during_a_rolling_deploy_changes_nothing(database: Database) -> None:
    old, new = V1, {**V2, "new": V1["nightly"]}
    await restart(database, old)
    await restart(database, new)
    after = [await read(database, name) for name in ("nightly", "new")]
    for _ in range(3):
        with capture_logs() as logs:
            await restart(database, old)
        assert [one["source"] for one in logs if "newer version" in one["event"]] == ["project"]
        assert [await read(database, name) for name in ("nightly", "new")] == after


async def test_a_rollback_comes_into_force_when_no_newer_program_is_seen_any_more(database: Database) -> None:
    """No command is needed; in development, taking back a change of a declaration is the same."""
    await restart(database, V1)
    await restart(database, {**V2, "new": V1["nightly"]})
    (_, old) = program(V1, patience=0.0)
    await database.pool.execute("UPDATE schedule_declarations SET seen_at = now() - interval '1 s' WHERE number = 2")
    await old.reconcile(database, LIMITS)
    assert old.in_force
    assert (await read(database)).note is None
    assert (await read(database, "new")).disabled_reason == NOT_DECLARED
    await restart(database, {**V2, "new": V1["nightly"]})
    assert (await read(database, "new")).disabled_reason == NOT_DECLARED, "it is the older one now, and the other runs"


async def test_of_two_older_versions_the_newer_one_comes_into_force(database: Database) -> None:
    versions = [V1, {"nightly": {**V1["nightly"], "note": "2"}}, {"nightly": {**V1["nightly"], "note": "3"}}]
    for version in versions:
        await restart(database, version)
    await database.pool.execute("UPDATE schedule_declarations SET seen_at = now() - interval '1 hour' WHERE number = 3")
    await restart(database, versions[0], patience=600)
    assert (await read(database)).note == "3"
    await restart(database, versions[1], patience=600)
    assert (await read(database)).note == "2"


async def test_twenty_programs_that_start_at_once_make_one_row_each_and_no_error(database: Database) -> None:
    declared = {f"schedule {number}": V1["nightly"] for number in range(5)}
    with capture_logs() as logs:
        await asyncio.gather(*(restart(database, declared) for _ in range(20)))
    assert [one for one in logs if one["log_level"] not in ("info", "debug")] == []
    assert await names(database) == sorted(declared)
    assert await database.pool.fetchval("SELECT count(*) FROM schedule_changes") == 5


async def test_a_name_that_a_person_has_taken_stays_his_and_the_log_says_so(database: Database) -> None:
    mine = await add(database)
    with capture_logs() as logs:
        await restart(database, {**V1, "other": V1["nightly"]})
    assert await read(database) == mine
    assert [one["schedule"] for one in logs if "a person has made one" in one["event"]] == ["nightly"]
    assert await names(database) == ["nightly", "other"]
    async with database.transaction() as session:
        await remove_schedule(session, mine.schedule_id, "ann")
    await restart(database, {**V1, "other": V1["nightly"], "third": V1["nightly"]})
    assert ((await read(database)).origin, (await read(database)).deleted_at) == ("code", None)


async def test_a_person_that_takes_a_name_at_the_same_moment_makes_no_error(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    (_, project) = program(V1)
    with monkeypatch.context() as patched, capture_logs() as logs:

        async def none(*_: object) -> dict[str, StoredSchedule]:
            patched.undo()
            await add(database)
            return {}

        patched.setattr("orchestrator.services.schedule_reconciliation.lock_schedules", none)
        await project.reconcile(database, LIMITS)
    assert any("a person has made one" in one["event"] for one in logs)
    assert (await read(database)).origin == "person"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"inputs": ({"name": "ann"}, {"tone": 1})}, "form"),
        ({"inputs": ({"name": "ann"},)}, "a page more"),
        ({"workflow": "asking", "inputs": ({"name": "ann"},)}, "no form"),
        ({"workflow": "forbidden", "inputs": ()}, "may not start"),
    ],
)
async def test_a_declaration_that_does_not_fit_its_workflow_is_shown_as_broken(
    database: Database, arguments: dict[str, Any], why: str
) -> None:
    with capture_logs() as logs:
        await restart(database, {"nightly": {**V1["nightly"], **arguments}, "fine": V1["nightly"]})
    listed = describe(await read(database))
    assert listed.state is ScheduleState.BROKEN
    assert why in str(listed.why)
    assert [one["schedule"] for one in logs if one["event"] == "schedule is broken"] == ["nightly"]
    assert (await show(database, "fine")).listed.state is ScheduleState.ENABLED


@pytest.mark.parametrize("is_another_program", [False, True])
async def test_a_declaration_works_again_when_what_was_missing_has_come(
    database: Database, is_another_program: bool
) -> None:
    await database.pool.execute("UPDATE workflows SET name = 'not_yet' WHERE name = 'greeting'")
    first = Declarations(database, program(V1, 1000), LIMITS)
    with capture_logs() as logs:
        await first.run_once()
        await first.run_once()
    assert [one["event"] for one in logs].count("schedule is broken") == 1
    assert describe(await read(database)).state is ScheduleState.BROKEN
    await database.pool.execute("UPDATE workflows SET name = 'greeting' WHERE name = 'not_yet'")
    if is_another_program:
        await restart(database, V1)
    else:
        await first.run_once()
    assert describe(await read(database)).state is ScheduleState.ENABLED


async def test_a_declaration_that_contradicts_what_a_person_has_changed_leaves_the_schedule_as_it_is(
    database: Database,
) -> None:
    await restart(database, {"nightly": {**V1["nightly"], "overlap": "allow"}})
    await edit(database, {"overlap": Overlap.QUEUE})
    before = await read(database)
    with capture_logs() as logs:
        await restart(database, {"nightly": {**V1["nightly"], "overlap": "allow", "missed": "all"}})
    assert replace(await read(database), declared=before.declared) == before
    assert any("contradicts" in one["event"] for one in logs)
    with pytest.raises(InvalidInputError, match="missed"):
        await edit(database, {"missed": Missed.ALL})
