"""The schedules of the tasks that ship: which start something by themselves, and the setting that turns them off."""

from __future__ import annotations

import pytest

from orchestrator import declared_schedules, registry
from orchestrator.coordinator.declarations import Declarations
from orchestrator.db.session import Database
from orchestrator.services.schedule_reconciliation import list_reconciliations
from orchestrator.services.schedules import find_schedule, resume_schedule
from orchestrator.workflows.shipped import load_workflows
from tests.integration.engine_bench import LIMITS
from tests.shipped import SHIPPED

BY_DEFAULT = {
    "Clean up finished tasks": True,
    "Resume waiting workflows": False,
    "Validate all subscriptions": False,
    "Validate products": True,
}


@pytest.fixture(autouse=True)
def _nothing_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_instances", {})
    monkeypatch.setattr(declared_schedules, "_declared", {})


async def restart(database: Database, *, shipped_schedules: bool) -> dict[str, bool]:
    """Start a coordinator with this setting; return which schedules there are, and whether they start anything."""
    declared_schedules._declared.clear()
    load_workflows((), shipped_schedules=shipped_schedules)
    reconciliations = list_reconciliations("a test")
    for one in reconciliations:
        one.patience = 0  # the coordinator with the other setting has ended
    await Declarations(database, reconciliations, LIMITS).run_once()
    rows = await database.pool.fetch("SELECT name, enabled, broken FROM schedules ORDER BY name")
    assert [row["broken"] for row in rows] == [None] * len(rows)
    return {row["name"]: row["enabled"] for row in rows}


async def test_what_only_looks_or_deletes_what_has_expired_is_scheduled_by_default(database: Database) -> None:
    """B14, B15."""
    assert await restart(database, shipped_schedules=True) == BY_DEFAULT
    workflows = await database.pool.fetch("SELECT workflow FROM schedules")
    assert {row["workflow"] for row in workflows} <= set(SHIPPED)


async def test_one_setting_turns_all_of_them_off_and_on_again_but_for_those_that_a_person_has_enabled(
    database: Database,
) -> None:
    await restart(database, shipped_schedules=True)
    assert await restart(database, shipped_schedules=False) == dict.fromkeys(BY_DEFAULT, False)
    async with database.transaction() as session:
        await resume_schedule(session, await find_schedule(session, "Validate products"), "ann")
    only_one = dict.fromkeys(BY_DEFAULT, False) | {"Validate products": True}
    assert await restart(database, shipped_schedules=False) == only_one
    assert await restart(database, shipped_schedules=True) == BY_DEFAULT
