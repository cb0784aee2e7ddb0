"""What the API's fields become, and what is refused with the name of the field."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from orchestrator.engine.cron import check_expression
from orchestrator.engine.trigger_input import build_trigger
from orchestrator.engine.triggers import CronTrigger, DateTrigger, IntervalTrigger, Trigger
from orchestrator.engine.zones import find_zone
from orchestrator.errors import InvalidInputError
from tests.unit.wall_clock import utc

NOW = utc("2026-11-25T12:00:00.25")
UTC_ZONE = ZoneInfo("UTC")


def build(kind: str, **fields: Any) -> Trigger:
    return build_trigger(kind, fields, zone=UTC_ZONE, now=NOW)


@pytest.mark.parametrize(
    ("fields", "expression"),
    [
        ({"minute": "0", "hour": "3", "day": "*", "month": "*", "day_of_week": "mon-fri"}, "0 3 * * MON-FRI"),
        ({"minute": 5, "hour": 3, "second": 0}, "5 3 * * *"),
        ({"hour": 3}, "0 3 * * *"),
        ({"day_of_week": "1"}, "0 0 * * 1"),
        ({"day": "L"}, "0 0 L * *"),
        ({"month": "6", "minute": None}, "0 0 1 6 *"),
        ({"minute": "*/5"}, "*/5 * * * *"),
    ],
)
def test_fields_that_are_not_given_are_filled_in(fields: dict[str, Any], expression: str) -> None:
    assert build("cron", **fields) == CronTrigger(expression, UTC_ZONE)


def test_intervals_and_dates_are_read() -> None:
    start = "2026-11-25T09:00:00+01:00"

    assert build("interval", weeks=1, hours=2, start_date=start) == IntervalTrigger(
        timedelta(days=7, hours=2), utc("2026-11-25T08:00")
    )
    assert build("date", run_date=start) == DateTrigger(utc("2026-11-25T08:00"))
    assert build("date", run_date="2026-11-25T08:00:00Z") == DateTrigger(utc("2026-11-25T08:00"))


def test_an_interval_without_start_is_first_due_one_interval_from_now() -> None:
    assert build("interval", hours=6).next_slot(NOW) == utc("2026-11-25T18:00")


@pytest.mark.parametrize(
    ("kind", "fields", "field"),
    [
        ("sometimes", {}, "trigger"),
        ("date", {}, "run_date"),
        ("date", {"run_date": "tomorrow"}, "run_date"),
        ("date", {"run_date": "2026-11-25T09:00:00"}, "run_date"),
        ("date", {"run_date": 1764061200}, "run_date"),
        ("date", {"run_date": "0001-01-01T00:00:00+14:00"}, "run_date"),
        ("date", {"run_date": "1969-12-31T00:00:00Z"}, "run_date"),
        ("interval", {}, "interval"),
        ("interval", {"hours": 0}, "interval"),
        ("interval", {"hours": -1}, "hours"),
        ("interval", {"hours": 1.5}, "hours"),
        ("interval", {"hours": "6"}, "hours"),
        ("interval", {"hours": True}, "hours"),
        ("interval", {"hours": 10**400}, "hours"),
        ("interval", {"weeks": 520, "days": 3660}, "interval"),
        ("interval", {"weeks": 524}, "weeks"),
        ("interval", {"months": 1}, "months"),
        ("interval", {"hours": 1, "start_date": "2026-11-25T09:00:00"}, "start_date"),
        ("interval", {"hours": 1, "start_date": "2026-11-25T09:00Z", "end_date": "2026-11-24T09:00Z"}, "end_date"),
        ("cron", {}, "cron"),
        ("cron", {"minute": "60"}, "minute"),
        ("cron", {"minute": "5/15"}, "minute"),
        ("cron", {"minute": "*/90"}, "minute"),
        ("cron", {"minute": "*/0"}, "minute"),
        ("cron", {"minute": "50-10"}, "minute"),
        ("cron", {"minute": "0-0/1"}, "minute"),
        ("cron", {"minute": "1 2"}, "minute"),
        ("cron", {"minute": ""}, "minute"),
        ("cron", {"minute": 1.5}, "minute"),
        ("cron", {"minute": "1,,2"}, "minute"),
        ("cron", {"hour": "24"}, "hour"),
        ("cron", {"hour": "R"}, "hour"),
        ("cron", {"day": "0"}, "day"),
        ("cron", {"day": "?"}, "day"),
        ("cron", {"day": "L-3"}, "day"),
        ("cron", {"day": "30", "month": "2"}, "day"),
        ("cron", {"day": "31", "month": "4,6"}, "day"),
        ("cron", {"month": "13"}, "month"),
        ("cron", {"month": "MON"}, "month"),
        ("cron", {"day_of_week": "8"}, "day_of_week"),
        ("cron", {"day_of_week": "SAT-MON"}, "day_of_week"),
        ("cron", {"day_of_week": "1#6"}, "day_of_week"),
        ("cron", {"day_of_week": "ABC#1"}, "day_of_week"),
        ("cron", {"day_of_week": "FRIL"}, "day_of_week"),
        ("cron", {"second": "30", "minute": "0"}, "second"),
        ("cron", {"year": "2027"}, "year"),
        ("cron", {"minute": "\u0665"}, "minute"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_field(kind: str, fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        build(kind, **fields)

    assert str(refused.value).startswith(f"{field}: ")
    assert [reason["loc"] for reason in refused.value.reasons] == [[field]]
    assert len(str(refused.value)) < 250


@pytest.mark.parametrize(
    "written",
    ["0 0 12 * * 1", "@daily", "", "* * * *", "0 0 * * 1\u00a0", "0," * 700_000 + "0 * * * *", "\uff10 0 * * *"],
)
def test_what_is_no_expression_is_refused(written: str) -> None:
    with pytest.raises(InvalidInputError, match=r"^cron: "):
        check_expression(written)


@pytest.mark.parametrize("written", ["0 0 30 2 *", "0 0 31 4,6 *", "0 0 */16 2 1#5"])
def test_an_expression_that_never_fits_is_refused_at_once(written: str) -> None:
    begin = time.process_time()
    with pytest.raises(InvalidInputError, match="fits no date"):
        check_expression(written)
    assert time.process_time() - begin < 2  # the search is bounded; it takes a few milliseconds


@pytest.mark.parametrize("written", ["1-5/7 * * * *", "0 0 L,15 * *", "0 0 * JAN-MAR,DEC MON#1,5L", "0 0 * * 0-7/2"])
def test_whatever_is_accepted_has_slots(written: str) -> None:
    assert CronTrigger(written, UTC_ZONE).next_slot(NOW) is not None


@pytest.mark.parametrize(
    "name",
    [
        "",
        "../UTC",
        "zone.tab",
        "localtime",
        "Factory",
        "posixrules",
        "europe/amsterdam",
        "UTC+2",
        "Mars",
        "a\0b",
        "x" * 999,
    ],
)
def test_a_name_that_is_no_time_zone_is_refused(name: str) -> None:
    with pytest.raises(InvalidInputError, match=r"^zone: .{,200}$"):
        find_zone(name)


def test_zones_are_found_without_those_of_the_system() -> None:
    code = "from orchestrator.engine.zones import find_zone; print(find_zone('Europe/Kyiv'), find_zone('Europe/Kiev'))"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONTZPATH": ""}, capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout == "Europe/Kyiv Europe/Kiev\n"


def test_programs_with_other_tables_of_zones_know_it(tmp_path: Path) -> None:
    """A program whose tables say no version is told from others by what stands in them."""
    code = (
        "from orchestrator.engine.zones import find_rules, find_zone; from datetime import datetime;"
        "print(find_rules(), datetime(2026, 7, 1, tzinfo=find_zone('Europe/Kyiv')).utcoffset())"
    )
    found = []
    for name in ("Etc/GMT-3", "Etc/GMT-2"):
        folder = tmp_path / name
        (folder / "Europe").mkdir(parents=True)
        (folder / "Europe" / "Kyiv").write_bytes(files("tzdata").joinpath("zoneinfo", *name.split("/")).read_bytes())
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONTZPATH": str(folder)},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        found.append(done.stdout.split())
    assert [offset for _, offset in found] == ["3:00:00", "2:00:00"]
    assert found[0][0] != found[1][0]


def test_triggers_are_values() -> None:
    first, second = (CronTrigger("0 3 * * mon", find_zone("UTC")) for _ in range(2))
    assert first == second
    assert len({first, second}) == 1
    assert isinstance(first.next_slot(datetime.fromisoformat("2026-11-25T12:00+01:00")), datetime)
