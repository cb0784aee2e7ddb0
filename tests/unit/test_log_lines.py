"""What a line of the log holds, and from which level on there is one."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import structlog

from orchestrator.log import TRACEBACK, configure_logging, hide_in_log
from orchestrator.types import StepStatus

Read = Callable[[], str]
Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def stderr(capsys: pytest.CaptureFixture[str]) -> Iterator[Read]:
    """Provide what is written, and leave loggers as they were."""
    root, before = logging.getLogger(), structlog.get_config()
    handlers, levels = root.handlers[:], {one: one.level for one in _loggers()}
    yield lambda: capsys.readouterr().err
    structlog.contextvars.clear_contextvars()
    root.handlers[:] = handlers
    structlog.configure(**before)
    for one in _loggers():
        one.setLevel(levels.get(one, logging.NOTSET))


def _loggers() -> list[logging.Logger]:
    named = logging.root.manager.loggerDict.values()
    return [logging.root, *(one for one in named if isinstance(one, logging.Logger))]


@pytest.fixture
def lines(stderr: Read) -> Lines:
    """Provide the lines that were written, without their times."""

    def read() -> list[dict[str, Any]]:
        found = [json.loads(one) for one in stderr().splitlines()]
        return [{name: value for name, value in one.items() if name != "timestamp"} for one in found]

    return read


def test_a_standard_library_record_has_the_fields_of_its_process_and_those_of_its_author(lines: Lines) -> None:
    configure_logging("json", "info")
    structlog.contextvars.bind_contextvars(process_id="4711", workflow="w", step="s", attempt=2)
    logging.getLogger("mine").info("reserved %s", "vlan 7", extra={"vlan": 7, "password": "hunter2", "event": "x"})
    assert lines() == [
        {
            "event": "reserved vlan 7",
            "logger": "mine",
            "level": "info",
            "vlan": 7,
            "password": "[redacted]",
            "process_id": "4711",
            "workflow": "w",
            "step": "s",
            "attempt": 2,
        }
    ]


@pytest.mark.parametrize(
    ("level", "levels", "said"),
    [
        ("info", {}, ["mine info", "engine info"]),
        ("debug", {}, ["mine debug", "mine info", "mine.deep debug", "engine debug", "engine info"]),
        ("error", {"mine": "info"}, ["mine info"]),
        ("info", {"mine": "debug"}, ["mine debug", "mine info", "mine.deep debug", "engine info"]),
        ("info", {"mine": "warning", "mine.deep": "debug"}, ["mine.deep debug", "engine info"]),
        ("info", {"httpx": "info", "root": "error"}, ["httpx info"]),
        ("warning", {"orchestrator.x": "debug"}, ["engine debug", "engine info"]),
        ("info", {"orchestrator": "error", "aio_pika": "info"}, ["mine info", "aio_pika info"]),
    ],
)
def test_levels_are_those_of_the_nearest_name(
    lines: Lines,
    level: Literal["debug", "info", "error"],
    levels: dict[str, Literal["debug", "info", "warning", "error"]],
    said: list[str],
) -> None:
    configure_logging("json", level, levels)
    logging.getLogger("mine").debug("mine debug")
    logging.getLogger("mine").info("mine info")
    logging.getLogger("mine.deep").debug("mine.deep debug")
    logging.getLogger("httpx").info("httpx info")
    logging.getLogger("aio_pika").info("aio_pika info")
    engine = structlog.get_logger("orchestrator.x.y")
    engine.debug("engine debug")
    engine.info("engine info")
    assert [one["event"] for one in lines()] == said


def test_levels_that_are_set_anew_replace_those_before(lines: Lines) -> None:
    configure_logging("json", "info", {"mine": "debug"})
    configure_logging("json", "info")
    logging.getLogger("mine").debug("too much")
    assert lines() == []


def test_a_hidden_text_is_in_no_line_whoever_logs_it(lines: Lines) -> None:
    configure_logging("json", "info")
    hide_in_log("abc123")
    logging.getLogger("mine").info("posted to %s", "/callback/abc123", extra={"sent": {"to": ["abc123"]}})
    structlog.get_logger("mine").info("posted", route="/callback/abc123", tries=1, ok=True)
    try:
        raise ValueError("abc123")
    except ValueError:
        logging.getLogger("mine").exception("failed")
    first, second, third = lines()
    assert (first["event"], first["sent"]) == ("posted to /callback/[redacted]", "[redacted]")
    assert (second["route"], second["tries"], second["ok"]) == ("/callback/[redacted]", 1, True)
    assert third["exception"].endswith("ValueError: [redacted]")


@pytest.mark.parametrize(
    ("options", "shown"), [({}, False), ({"tracebacks": True}, True), ({"level": "debug"}, True)], ids=str
)
def test_the_traceback_of_a_failed_step_is_shown_where_it_is_wanted(
    lines: Lines, options: dict[str, Any], *, shown: bool
) -> None:
    configure_logging("json", **{"level": "info", **options})
    structlog.get_logger("engine").warning("step failed", **{TRACEBACK: "Traceback …"})
    (line,) = lines()
    assert line.get("exception") == ("Traceback …" if shown else None)
    assert TRACEBACK not in line


def test_a_record_that_cannot_be_formatted_raises_nothing(stderr: Read) -> None:
    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError("no text")

    configure_logging("json", "info")
    logging.getLogger("mine").info("%d", "no number")
    logging.getLogger("mine").info("has it", extra={"it": Broken()})
    assert "Logging error" in stderr()


def test_in_the_console_format_the_fields_are_there_as_well(stderr: Read) -> None:
    configure_logging("console", "info")
    structlog.contextvars.bind_contextvars(process_id="4711")
    logging.getLogger("mine").info("reserved")
    written = stderr()
    assert "reserved" in written
    assert "process_id=4711" in written
    assert "_record" not in written


@pytest.mark.parametrize(
    ("nanoseconds", "written"),
    [
        (1_793_750_399_999_999_999, "2026-11-03T23:59:59.999999Z"),
        (1_793_750_400_000_000_000, "2026-11-04T00:00:00Z"),
        (1_793_750_400_000_007_999, "2026-11-04T00:00:00.000007Z"),
    ],
)
def test_the_time_of_a_line_is_that_of_the_clock_in_utc_whatever_the_line_before_had(
    stderr: Read, monkeypatch: pytest.MonkeyPatch, nanoseconds: int, written: str
) -> None:
    configure_logging("json", "info")
    for now in (1_793_750_399_000_000_000, nanoseconds):
        monkeypatch.setattr("orchestrator.log.time", SimpleNamespace(time_ns=lambda now=now: now))
        structlog.get_logger("engine").info("said")
    assert [json.loads(one)["timestamp"] for one in stderr().splitlines()] == ["2026-11-03T23:59:59Z", written]


def test_a_value_that_is_a_member_of_an_enumeration_of_texts_is_written_as_its_text(stderr: Read) -> None:
    configure_logging("json", "info")
    structlog.get_logger("engine").info("step finished", status=StepStatus.SUCCESS)
    configure_logging("console", "info")
    structlog.get_logger("engine").info("step finished", status=StepStatus.SUCCESS)
    in_json, in_console = stderr().splitlines()
    assert '"status": "success"' in in_json
    assert "status=success" in in_console
