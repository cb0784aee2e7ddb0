"""What people see: a line for everything that happens, and on a terminal the processes below, as they stand."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from .patience import Patience

STYLES = {
    "completed": "green",
    "success": "green",
    "complete": "green",
    "failed": "red",
    "aborted": "red",
    "waiting": "yellow",
    "suspended": "yellow",
    "awaiting_callback": "cyan",
    "skipped": "dim",
}


@dataclass(slots=True)
class Row:
    """One process, as its events tell."""

    customer: str
    status: str = ""
    step: str = ""
    attempt: int = 0


class Screen:
    """Prints. On a terminal it keeps a table at the bottom."""

    def __init__(self) -> None:
        self.patience = Patience()  # all that people see is a sign of life
        self.console = Console(highlight=False)
        if not self.console.is_terminal:
            self.console.width = 150  # nobody's window is too small for a file
        self._began = time.monotonic()
        self._rows: dict[str, Row] = {}
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live = Live(console=self.console, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end_live()

    def end_live(self) -> None:
        """Take the table away: from here on everything stays as printed."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def headline(self, text: str) -> None:
        """Begin a new chapter."""
        self.patience.sign()
        self.console.print()
        self.console.print(Text(text, style="bold"))

    def say(self, text: str, style: str = "") -> None:
        """Something that happened, with the seconds since the beginning."""
        self.patience.sign()
        elapsed = time.monotonic() - self._began
        line = Text.assemble((f"{elapsed:6.1f} s  ", "dim"), (text, style))
        self.console.print(line, soft_wrap=True)

    def plain(self, text: str) -> None:
        """Print another program's output as it is."""
        self.patience.sign()
        self.console.print(Text(text.rstrip("\n")), soft_wrap=True)

    def event(self, customer: str, event: dict[str, Any]) -> None:
        """One event of the engine."""
        self.patience.sign()
        row = self._rows.setdefault(event["process_id"], Row(customer))
        row.attempt = max(row.attempt, event.get("attempt", 0))
        if "step" in event:
            row.step = event["step"]
            self._tell_step(customer, event)
        else:
            row.status = event["status"]
        if self._live is not None:
            self._live.update(self._table(), refresh=True)

    def _tell_step(self, customer: str, event: dict[str, Any]) -> None:
        status = event["status"]
        words = status.replace("_", " ")
        self.say(f"{customer:<8} {event['step']}: {words}", STYLES.get(status, ""))

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("customer", "process", "status", "last step", "attempts"):
            table.add_column(column)
        for process_id, row in self._rows.items():
            status = Text(row.status.replace("_", " "), style=STYLES.get(row.status, ""))
            table.add_row(escape(row.customer), process_id[:8], status, escape(row.step), str(row.attempt))
        return table
