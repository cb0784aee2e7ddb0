"""Print tables or lines for people, or one JSON document; never a control character of a foreign text."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn, TextIO

from pydantic_core import to_jsonable_python
from rich.cells import cell_len
from rich.console import Console
from rich.containers import Lines
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

WIDTH_WITHOUT_TERMINAL = 220
"""Columns when the output goes to a file or a pipe: wide enough for almost every line."""

_STYLES = {
    "green": ("completed", "success", "complete"),
    "cyan": ("running", "created"),
    "yellow": ("suspended", "suspend", "waiting", "awaiting_callback"),
    "dim": ("skipped",),
    "red": ("failed", "inconsistent_data", "api_unavailable"),
    "magenta": ("aborted", "abort"),
}
_STYLE_OF = {status: style for style, statuses in _STYLES.items() for status in statuses}

_PROSE = 40
"""Columns that a column of prose needs beside others to be readable."""

_GAP, _HANGING, _NARROWEST = 2, 4, 24
"""Columns between two columns of a table; before continuation lines; the width below which lines are not broken further."""

_UNSAFE_IN_JSON = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")

Part = str | Text | tuple[str, str]
"""A piece of a line: plain, styled, or a text with its style."""


class Output:
    """Where a command prints. Made before a user's modules are imported, whose own prints go to stderr.

    Args:
        as_json: print one JSON document instead of text for people.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self._stdout = _tolerant(sys.stdout)
        self._stderr = _tolerant(sys.stderr)
        width = None if self._stdout.isatty() or "COLUMNS" in os.environ else WIDTH_WITHOUT_TERMINAL
        self.console = _Console(file=self._stdout, width=width, highlight=False, markup=False, emoji=False)

    @property
    def is_live(self) -> bool:
        """Return whether the output goes to a terminal, in which lines may be replaced."""
        return not self.as_json and self.console.is_terminal

    def document(self, value: object) -> None:
        """Print the command's one JSON document; nothing without ``--json``."""
        if not self.as_json:
            return
        text = json.dumps(to_jsonable_python(value), indent=2, ensure_ascii=False)
        # Inside JSON an escape is the same character; in a terminal it is harmless.
        with self._writing():
            self._stdout.write(_UNSAFE_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n")

    def line(self, *parts: Part) -> None:
        """Print one line for people, never broken. Foreign texts must have gone through :func:`clean`."""
        if not self.as_json:
            with self._writing():
                self.console.print(Text.assemble(*parts), soft_wrap=True)

    def prose(self, *parts: Part, indent: int = 0) -> None:
        """Print a line for people, broken between words where the terminal is too narrow: an id stays whole.

        Not for commands to copy: pasted, a broken one would be two.

        Args:
            indent: columns before it; continuation lines stand four columns further.
        """
        width = max(_NARROWEST, self.console.width - indent)
        for paragraph in Text.assemble(*parts).split("\n"):
            lines = [paragraph] if paragraph.cell_len <= width else _broken(paragraph, width - _HANGING)
            for number, line in enumerate(lines):
                self.line(" " * (indent + _HANGING * bool(number)), line)

    def table(
        self, columns: Sequence[str], rows: Iterable[Sequence[str | Text]], *, prose: str = "", empty: str = ""
    ) -> None:
        """Print a table for people; a terminal that is too narrow for it gets one record per block.

        Nothing but prose is ever broken or cut, because people copy ids and names.

        Args:
            columns: the headings; as many as each row has cells.
            prose: the column that may be broken between words.
            empty: printed instead of a table without rows.
        """
        cells = [[Text(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
        if self.as_json or not cells:
            self.line((empty, "dim")) if empty else None
            return
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, _GAP, 0, 0))
        least = -_GAP
        for name, *column in zip(columns, *cells, strict=True):
            measured = [Measurement.get(self.console, self.console.options, cell) for cell in (Text(name), *column)]
            width, longest_word = max(one.maximum for one in measured), max(one.minimum for one in measured)
            least += _GAP + (min(width, max(_PROSE, longest_word)) if name == prose else width)
            table.add_column(name, overflow="fold", no_wrap=name != prose)
        if least > self.console.width:
            self._blocks(columns, cells, prose)
            return
        for row in cells:
            table.add_row(*row)
        with self._writing():
            self.console.print(table)

    def _blocks(self, columns: Sequence[str], rows: Iterable[Sequence[Text]], prose: str) -> None:
        for row in rows:
            self.line(row[0])
            named = list(zip(columns, row, strict=True))[1:]
            fields = [
                Text.assemble((f"{name} " if name else "", "dim"), cell)
                for name, cell in named
                if name != prose and cell
            ]
            if fields:
                self.prose(Text("  ").join(fields), indent=_HANGING)
            for name, cell in named:
                if name == prose and cell:
                    self.prose(cell, indent=_HANGING)

    def complain(self, line: str) -> None:
        """Print a line on stderr."""
        try:
            self._stderr.write(f"{line}\n")
            self._stderr.flush()
        except OSError:
            _discard(self._stderr)

    def flush(self) -> bool:
        """Write everything out, so that a closed pipe or a full disk is noticed here; return whether that succeeded."""
        try:
            with self._writing():
                self._stdout.flush()
        except BrokenPipeError:
            self.discard()
            return False
        return True

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Report a full disk here, where it is known to be the output's; afterwards it is treated like a closed pipe."""
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            self.complain(f"the output could not be written: {error}")
            raise BrokenPipeError from error

    def discard(self) -> None:
        """Write nothing more, not even at the interpreter's exit: the reader has closed the pipe."""
        _discard(self._stdout)


class _Console(Console):
    """A console that leaves a closed pipe to its caller.

    Rich's own way is to redirect ``sys.stdout`` and to exit. While a command runs, that is stderr: its errors would be lost, and
    what is left in the buffer would fail at the interpreter's exit, with code 120.
    """

    def on_broken_pipe(self) -> NoReturn:
        """Raise the error."""
        raise BrokenPipeError


def _discard(stream: TextIO) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def clean(text: object, *, limit: int = 0, lines: bool = False) -> str:
    """Make a foreign text fit to print: without control, direction-changing or unassigned characters.

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
    """Return a status in its colour."""
    return Text(clean(status), style=_STYLE_OF.get(status, ""))


def _broken(line: Text, width: int) -> Lines:
    """Divide a line into pieces of whole words; a word that is wider than ``width`` is a piece of its own."""
    breaks, columns = [], 0
    for word in re.finditer(r"\s*\S+", line.plain):
        columns += cell_len(word[0])
        if columns > width and word.start():
            breaks.append(word.end() - len(word[0].lstrip()))
            columns = cell_len(word[0].lstrip())
    pieces = line.divide(breaks)
    for piece in pieces:
        piece.rstrip()
    return pieces


def _tolerant(stream: TextIO) -> TextIO:
    """Make a stream print ``?`` for what the terminal's encoding lacks instead of failing."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")
    return stream
