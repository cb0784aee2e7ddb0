"""What people see of a step that fails again and again with the same error: it once, and how often."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest import mock
from uuid import UUID

import pytest

from orchestrator.cli.output import Output
from orchestrator.cli.render import log_table
from orchestrator.cli.watch import follow
from orchestrator.db.processes.newest import ProcessSummary
from orchestrator.engine.log import LogEntry
from orchestrator.types import JSON
from tests.unit.log_entries import NOW, entry


def tries(*messages: str) -> list[LogEntry]:
    """Return what the engine logs of a step that is tried again by itself, until it has met each of these errors."""
    log: list[LogEntry] = []
    for attempt, message in enumerate(messages, 1):
        number = len(log)
        failure: dict[str, JSON] = {"type": "OSError", "message": message}
        log += [
            entry(number, "due again", 0, kind="process"),
            replace(entry(number + 1, "Ping", attempt), status="waiting", failure=failure),
            entry(number + 2, "waiting", 0, kind="process"),
        ]
    return log[1:]


LOG = [*tries("no route", "no route", "no route", "no name"), entry(12, "Ping", 5)]


def printed(width: int, show: Callable[[Output], object]) -> str:
    """Return what a terminal of this width shows."""
    written = io.StringIO()
    with mock.patch.object(sys, "stdout", written), mock.patch.dict(os.environ, {"COLUMNS": str(width)}):
        show(Output(as_json=False))
    return written.getvalue()


@pytest.mark.parametrize("width", [80, 200])
def test_a_log_shows_an_unchanged_error_once_with_a_count(width: int) -> None:
    text = " ".join(printed(width, lambda output: log_table(output, LOG, traceback=False)).split())
    assert text.count("OSError: no route") == text.count("OSError: no name") == 1
    assert "the same 3 times, first at 2026-11-2" in text


class Followed:
    """A process whose log grows by one entry each time it is read."""

    server = "a list"

    def __init__(self, log: list[LogEntry]) -> None:
        self._log = log

    async def read(self, known: int) -> tuple[ProcessSummary, list[LogEntry]]:
        status = "completed" if known + 1 >= len(self._log) else "waiting"
        summary = ProcessSummary(
            UUID(int=7), "pings", False, status, "Ping", known, "me", "me", NOW, NOW, False, None, "SYSTEM"
        )
        return summary, self._log[known : known + 1]

    async def wait(self) -> None:
        """Return at once."""

    async def read_form(self) -> None:
        """Return nothing."""

    async def read_callback(self) -> None:
        """Return nothing."""

    def is_outage(self, _: Exception) -> bool:
        return False


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        (["no route"] * 4, ["no route", "waiting", "the same error 3 times more", "waiting"]),
        (
            ["no route", "no route", "no name"],
            ["no route", "waiting", "the same error once more", "waiting", "due again", "no name", "waiting"],
        ),
        (
            ["no route", "no name", "no route"],
            ["no route", "waiting", "due again", "no name", "waiting", "due again", "no route", "waiting"],
        ),
    ],
)
async def test_who_follows_a_process_sees_an_unchanged_error_once_and_then_a_count(
    messages: list[str], said: list[str]
) -> None:
    output = Output(as_json=False)
    lines: list[str] = []

    def say(text: object, **_: object) -> None:
        found = re.search("(?<=OSError: ).*", str(text)) or re.search("waiting|due again", str(text))
        assert found is not None
        lines.append(found[0])

    context: Any = SimpleNamespace(output=output)
    with (
        mock.patch.object(output, "prose", say),
        mock.patch.object(output, "line", lambda *parts: lines.append(parts[0][0].strip())),
    ):
        source: Any = Followed(tries(*messages))
        assert await follow(context, source) == 0
    assert lines == said
