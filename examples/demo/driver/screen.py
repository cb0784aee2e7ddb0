"""Print what happens, a line each, and what was checked."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
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


class Screen:
    """The terminal, or a file. All that is printed is a sign of life."""

    def __init__(self) -> None:
        self.patience = Patience()
        self.console = Console(highlight=False)
        if not self.console.is_terminal:
            self.console.width = 150  # nobody's window is too small for a file
        self.checks = 0
        self.failures: list[str] = []
        self._began = time.monotonic()

    def headline(self, text: str) -> None:
        """Begin a new chapter."""
        self.console.print()
        self._print(Text(text, style="bold"))

    def say(self, text: str, style: str = "") -> None:
        """Print something that happened, with the seconds since the beginning."""
        self._print(Text.assemble((f"{time.monotonic() - self._began:6.1f} s  ", "dim"), (text, style)))

    def plain(self, title: str, text: str) -> None:
        """Print another program's output as it is."""
        self.headline(title)
        self._print(Text(text.rstrip("\n")))

    def table(self, rows: Iterable[Mapping[str, Any]], columns: str) -> None:
        """Print some columns of rows; ``columns`` has their names with blanks between them."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        names = columns.split()
        for column in names:
            table.add_column(column.replace("_", " "), justify="right" if column in _FIGURES else "left")
        for row in rows:
            table.add_row(*(Text(str(row[column]), STYLES.get(str(row[column]), "")) for column in names))
        self.console.print(table)

    def expect_none(self, statement: str, wrong: Iterable[object], *, indent: int = 2) -> None:
        """Check that nothing is wrong."""
        words = ", ".join(map(str, wrong))
        self.expect(statement, not words, words, indent=indent)

    def expect(self, statement: str, holds: object, found: object = "", *, indent: int = 2) -> None:
        """Check that a statement holds; ``found`` is printed if it does not."""
        self.checks += 1
        line = statement if holds else f"{statement}: {found}"
        if not holds:
            self.failures.append(line)
        mark = ("yes  ", "green") if holds else ("no   ", "bold red")
        self._print(Text.assemble(" " * indent, mark, line))

    def _print(self, text: Text) -> None:
        self.patience.sign()
        self.console.print(text, soft_wrap=True)


_FIGURES = {"steps", "skipped", "attempts", "tried_again", "lost", "seconds"}
