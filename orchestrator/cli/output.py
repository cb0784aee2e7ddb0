"""What a command prints: tables or plain lines for people, or one JSON document; never a control character of somebody else."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from pydantic_core import to_jsonable_python
from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDTH_WITHOUT_TERMINAL = 220
"""Columns when the output goes to a file or a pipe: wide enough that hardly anything is wrapped."""

STYLES = {
    "completed": "green",
    "success": "green",
    "complete": "green",
    "running": "cyan",
    "created": "cyan",
    "suspended": "yellow",
    "suspend": "yellow",
    "waiting": "yellow",
    "awaiting_callback": "yellow",
    "skipped": "dim",
    "failed": "red",
    "inconsistent_data": "red",
    "api_unavailable": "red",
    "aborted": "magenta",
    "abort": "magenta",
}

_UNSAFE_IN_JSON = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


class Output:
    """Where a command prints. Made before a user's modules are imported, whose own prints go elsewhere.

    Args:
        as_json: print one JSON document instead of text for people.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self._stdout = _tolerant(sys.stdout)
        self._stderr = _tolerant(sys.stderr)
        width = None if self._stdout.isatty() or "COLUMNS" in os.environ else WIDTH_WITHOUT_TERMINAL
        self.console = Console(file=self._stdout, width=width, highlight=False, markup=False, emoji=False)

    @property
    def is_live(self) -> bool:
        """Whether a person watches."""
        return not self.as_json and self.console.is_terminal

    def document(self, value: object) -> None:
        """Print the command's one JSON document; nothing without ``--json``."""
        if not self.as_json:
            return
        text = json.dumps(to_jsonable_python(value), indent=2, ensure_ascii=False)
        # Inside JSON an escape is the same character; in a terminal it is harmless.
        with self._writing():
            self._stdout.write(_UNSAFE_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n")

    def line(self, *parts: str | Text | tuple[str, str]) -> None:
        """Print one line for people. Texts that are not ours must have gone through :func:`clean`."""
        if not self.as_json:
            with self._writing():
                self.console.print(Text.assemble(*parts), soft_wrap=True)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str | Text]], *, empty: str = "") -> None:
        """Print a table for people; numbers of columns and cells agree."""
        if self.as_json:
            return
        table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
        if table.row_count:
            with self._writing():
                self.console.print(table)
        elif empty:
            self.line((empty, "dim"))

    def complain(self, line: str) -> None:
        """Print a line on stderr."""
        self._stderr.write(f"{line}\n")
        self._stderr.flush()

    def flush(self) -> bool:
        """Send everything out now, so that a closed pipe or a full disk is noticed here; whether that went well."""
        try:
            with self._writing():
                self._stdout.flush()
        except BrokenPipeError:
            self.discard()
            return False
        return True

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """A full disk is told here, where it is known to be the output's; afterwards it is as if the reader had gone."""
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            self.complain(f"the output could not be written: {error}")
            raise BrokenPipeError from error

    def discard(self) -> None:
        """The reader has gone: nothing more needs to be written, not even by the interpreter's end."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stdout.fileno())


def clean(text: object, *, limit: int = 0, lines: bool = False) -> str:
    """A text from elsewhere made fit to print: no control, direction-changing or unassigned characters.

    Args:
        limit: cut what is longer; 0 for not.
        lines: keep line breaks and tabs.
    """
    written = str(text)
    if limit and len(written) > limit:
        written = f"{written[: limit - 1]}…"
    keep = "\n\t" if lines else ""
    return "".join(one if one.isprintable() or one in keep else (" " if one in "\n\t" else "�") for one in written)


def coloured(status: str) -> Text:
    """A status in its colour."""
    return Text(clean(status), style=STYLES.get(status, ""))


def _tolerant(stream: TextIO) -> TextIO:
    """The stream, printing ``?`` for what the terminal's encoding lacks instead of failing."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")
    return stream
