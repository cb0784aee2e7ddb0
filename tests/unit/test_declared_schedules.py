"""Schedules in code: what cannot work fails where it is declared, and names the argument."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from orchestrator import declared_schedules
from orchestrator.declared_schedules import Source, check_workflows, list_declared
from orchestrator.engine.schedule import Missed, Overlap, ScheduleDefinition, read_definition, write_definition
from orchestrator.engine.triggers import CronTrigger, DateTrigger, IntervalTrigger
from orchestrator.errors import DefinitionError
from orchestrator.workflows import Schedule

NEW_YEAR = datetime(2027, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(declared_schedules, "_declared", {})


def test_a_declaration_says_what_the_schedule_is() -> None:
    made = Schedule(
        "nightly",
        "validate",
        cron="30 2 * * *",
        zone="Europe/Amsterdam",
        start="2026-11-25T00:00+01:00",
        end=NEW_YEAR,
        inputs=[{"product": "Node"}],
        enabled=False,
        missed="all",
        missed_limit=3,
        overlap="allow",
        jitter=timedelta(minutes=5),
        note="for the NOC",
    )
    trigger = CronTrigger("30 2 * * *", ZoneInfo("Europe/Amsterdam"), datetime(2026, 11, 24, 23, tzinfo=UTC), NEW_YEAR)
    assert made.definition == ScheduleDefinition(
        "nightly",
        "validate",
        trigger,
        ({"product": "Node"},),
        enabled=False,
        missed=Missed.ALL,
        missed_limit=3,
        overlap=Overlap.ALLOW,
        jitter=timedelta(minutes=5),
        note="for the NOC",
    )
    assert made.source is Source.PROJECT
    assert list_declared() == [made]
    assert repr(made) == "Schedule('nightly', 'validate')"
    assert read_definition("nightly", write_definition(made.definition)) == made.definition


def test_an_interval_without_a_start_is_the_same_in_each_program() -> None:
    made = Schedule("rhythm", "validate", every=timedelta(hours=6))
    assert made.definition.trigger == IntervalTrigger(timedelta(hours=6), datetime(2001, 1, 1, tzinfo=UTC))


def test_a_date_that_is_over_still_can_be_declared() -> None:
    """The code stays when its date has passed; programs that start later must not fail by it."""
    made = Schedule("once", "validate", at="2020-01-01T00:00Z")
    assert made.definition.trigger == DateTrigger(datetime(2020, 1, 1, tzinfo=UTC))


def test_two_schedules_of_one_workflow_are_two() -> None:
    """The key is the name."""
    for name in ("b", "a"):
        Schedule(name, "validate", cron="0 3 * * *", inputs=[{"product": name}])
    assert [one.definition.name for one in list_declared()] == ["a", "b"]


def test_a_module_may_be_imported_twice_but_a_name_has_one_meaning() -> None:
    for _ in range(2):
        Schedule("nightly", "validate", cron="0 3 * * *")
    with pytest.raises(DefinitionError, match="'nightly' is declared twice"):
        Schedule("nightly", "validate", cron="0 4 * * *")
    assert len(list_declared()) == 1


def test_a_schedule_of_a_workflow_that_the_code_does_not_register_is_refused() -> None:
    Schedule("nightly", "validate", cron="0 3 * * *")
    check_workflows(["validate"])
    with pytest.raises(DefinitionError, match=r"'nightly': workflow: .* no workflow 'validate'"):
        check_workflows(["other"])


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({"name": ""}, "name: "),
        ({"name": 5}, "the name of a schedule"),
        ({"name": " nightly"}, "name: "),
        ({"workflow": ""}, "workflow: "),
        ({"workflow": print}, "workflow: "),
        ({}, "give one of cron, every and at"),
        ({"cron": "0 3 * * *", "every": timedelta(hours=1)}, "give one of cron, every and at"),
        ({"cron": "0 25 * * *"}, "cron: hour"),
        ({"cron": "0 0 12 * * 1"}, "cron"),
        ({"cron": "0 0 30 2 *"}, "cron"),
        ({"cron": "0 0 31 4,6 *"}, "cron"),
        ({"cron": "@daily"}, "cron"),
        ({"cron": "0 0 * * SAT-MON"}, "cron"),
        ({"cron": "*/90 * * * *"}, "cron"),
        ({"cron": ",".join(["0"] * 700_000) + " * * * *"}, "cron"),
        ({"cron": 5}, "cron: "),
        ({"cron": "0 3 * * *", "zone": "Mars"}, "zone: "),
        *(
            ({"cron": "0 3 * * *", "zone": zone}, "zone: ")
            for zone in ("", "../UTC", "zone.tab", "localtime", "posixrules", "Factory", "europe/amsterdam", "UTC+2", 5)
        ),
        ({"cron": "0 3 * * *", "start": "noon"}, "start: "),
        ({"cron": "0 3 * * *", "start": NEW_YEAR.replace(tzinfo=None)}, "start: "),
        ({"cron": "0 3 * * *", "end": "2026-01-01"}, "end: "),
        ({"cron": "0 3 * * *", "start": NEW_YEAR, "end": NEW_YEAR - timedelta(days=1)}, "end: "),
        ({"cron": "0 3 * * *", "start": NEW_YEAR, "end": NEW_YEAR}, "end: .*never"),
        ({"every": timedelta(0)}, "every: "),
        ({"every": timedelta(seconds=1.5)}, "every: "),
        ({"every": 60}, "every: "),
        ({"at": "2026-11-25T09:00"}, "at: "),
        ({"at": NEW_YEAR, "end": NEW_YEAR}, "start, end: "),
        ({"every": timedelta(hours=1), "inputs": {"product": "Node"}}, "inputs: "),
        ({"every": timedelta(hours=1), "inputs": ["Node"]}, "inputs: "),
        ({"every": timedelta(hours=1), "inputs": [{"day": NEW_YEAR}, {"node": float("inf")}]}, "inputs: page 2"),
        ({"every": timedelta(hours=1), "missed": "sometimes"}, "missed: .*'skip', 'once', 'all'"),
        ({"every": timedelta(hours=1), "overlap": 3}, "overlap: "),
        ({"every": timedelta(hours=1), "missed": "all"}, "missed: .*overlap"),
        ({"every": timedelta(hours=1), "missed_limit": 0}, "missed_limit: "),
        ({"every": timedelta(hours=1), "missed_limit": "3"}, "missed_limit: "),
        ({"every": timedelta(hours=1), "jitter": timedelta(seconds=-1)}, "jitter: "),
        ({"every": timedelta(hours=1), "jitter": timedelta(hours=1)}, "jitter: .*interval"),
        ({"every": timedelta(hours=1), "jitter": 5}, "jitter: "),
        ({"every": timedelta(hours=1), "enabled": "no"}, "enabled: "),
        ({"every": timedelta(hours=1), "note": 5}, "note: "),
    ],
)
def test_what_cannot_work_names_the_argument(arguments: dict[str, Any], names: str) -> None:
    given = {"name": "nightly", "workflow": "validate"} | arguments
    with pytest.raises(DefinitionError, match=names) as caught:
        Schedule(**given)
    assert len(str(caught.value).splitlines()) == 1
    assert list_declared() == []
