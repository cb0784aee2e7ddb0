"""``orchestrator schedules next``: what authors see when they try out an expression."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner, Result

from orchestrator.cli import app


@pytest.fixture(autouse=True)
def _logs_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command would log to the stream of its runner, and later tests would find that closed."""
    monkeypatch.setattr("orchestrator.cli.context.configure_logging", lambda *_: None)


def show(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["schedules", "next", *arguments], env={"COLUMNS": "200"})


def slots_of(*arguments: str) -> list[tuple[str, str, list[str]]]:
    done = show(*arguments, "--json")
    assert done.exit_code == 0, done.output
    return [(one["at"], one["local"], one["remarks"]) for one in json.loads(done.stdout)["slots"]]


def test_slots_are_shown_in_local_time_and_utc() -> None:
    done = show("--cron", "0 3 * * *", "--zone", "Europe/Amsterdam", "--after", "2026-11-25T00:00Z", "--count", "2")

    assert done.exit_code == 0
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["Europe/Amsterdam", "UTC", "remark"],
        ["Wed", "2026-11-25", "03:00:00", "+0100", "2026-11-25", "02:00:00"],
        ["Thu", "2026-11-26", "03:00:00", "+0100", "2026-11-26", "02:00:00"],
    ]


@pytest.mark.parametrize(
    ("cron", "after", "remarks"),
    [
        ("30 2 * * *", "2026-03-28T12:00Z", ["02:30 does not exist that day: due at the clock change", ""]),
        ("0 2,3 * * *", "2026-03-28T12:00Z", ["02:00 does not exist that day: due at the clock change", ""]),
        (
            "*/30 * * * *",
            "2026-03-29T00:40Z",
            ["left out before it, because that day does not have them: 02:00, 02:30", ""],
        ),
        (
            "*/15 * * * *",
            "2026-03-29T00:50Z",
            ["left out before it, because that day does not have them: 02:00 to 02:45 (4 times)", ""],
        ),
        ("30 2 * * *", "2026-10-24T12:00Z", ["02:30 comes twice that day: due the first time only", ""]),
        (
            "30 * * * *",
            "2026-10-25T00:00Z",
            ["02:30 comes twice that day: the first time", "02:30 comes twice that day: the second time"],
        ),
    ],
)
def test_remarks_say_what_clock_changes_do(cron: str, after: str, remarks: list[str]) -> None:
    found = slots_of("--cron", cron, "--zone", "Europe/Amsterdam", "--after", after, "--count", "2")

    assert ["; ".join(one) for _, _, one in found] == remarks


def test_an_interval_is_shown_as_elapsed_time() -> None:
    found = slots_of(
        *("--every", "1d", "--start", "2026-03-28T09:00+01:00", "--zone", "Europe/Amsterdam"),
        *("--after", "2026-03-28T00:00Z", "--end", "2026-03-30T08:00Z"),
    )

    assert found == [
        ("2026-03-28T08:00:00Z", "2026-03-28T09:00:00+01:00", []),
        (
            "2026-03-29T08:00:00Z",
            "2026-03-29T10:00:00+02:00",
            ["the clock has changed since 2026-03-28 09:00:00; an interval is elapsed time"],
        ),
        ("2026-03-30T08:00:00Z", "2026-03-30T10:00:00+02:00", []),
    ]


def test_a_date_is_shown_once_and_then_never() -> None:
    date = ("--at", "2026-11-25T09:00+01:00")

    assert [at for at, _, _ in slots_of(*date, "--after", "2026-11-25T00:00Z")] == ["2026-11-25T08:00:00Z"]
    assert "no slots" in show(*date, "--after", "2026-11-26T00:00Z").stdout


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (["--cron", "0 25 * * *"], "hour"),
        (["--cron", "0 3 * * *", "--zone", "Mars"], "zone"),
        (["--cron", "0 3 * * *", "--start", "2026-11-25"], "start_date"),
        (["--every", "0h"], "interval"),
        (["--at", "2026-11-25T09:00"], "run_date"),
        (["--at", "2026-11-25T09:00Z", "--end", "2026-11-26T09:00Z"], "end_date"),
        (["--every", "6h", "--after", "noon"], "after"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(arguments: list[str], field: str) -> None:
    done = show(*arguments)

    assert done.exit_code == 1
    assert done.stderr.startswith(f"{field}: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments", [[], ["--cron", "* * * * *", "--every", "6h"], ["--every", "6x"], ["--every", "caf\udce9"]]
)
def test_wrong_usage_is_answered_with_the_option(arguments: list[str]) -> None:
    done = show(*arguments)

    assert done.exit_code == 2
    assert "--every" in done.stderr
