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
from rich.cells import cell_len
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

_PROSE = 40
"""Columns that prose needs beside others: less are no pleasure to read, and an id in it would be broken."""

_GAP, _HANGING, _NARROWEST = 2, 4, 24
"""Columns between two columns of a table; before what belongs to the line above; in which words are broken into lines."""

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

    def prose(self, *parts: str | Text | tuple[str, str], indent: int = 0) -> None:
        """Print a line for people that a narrow terminal shows as several, broken between words: an id stays whole.

        Not for commands to copy: pasted, a broken one would be two.

        Args:
            indent: columns before it; what is broken off stands four columns further.
        """
        if self.as_json:
            return
        line = Text.assemble(*parts)
        width = max(_NARROWEST, self.console.width - indent)
        for paragraph in line.split("\n"):
            fits = paragraph.cell_len <= width
            first, *rest = [paragraph] if fits else _broken(paragraph, width - _HANGING)
            self.line(" " * indent, first)
            for one in rest:
                self.line(" " * (indent + _HANGING), one)

    def table(
        self, columns: Sequence[str], rows: Iterable[Sequence[str | Text]], *, prose: str = "", empty: str = ""
    ) -> None:
        """Print a table for people; numbers of columns and cells agree.

        Nothing but prose is ever broken or cut, because people copy ids and names. In a terminal that is too narrow the
        column of prose gives way, and then the others from the last on: what has no column stands below its row.

        Args:
            prose: the column that may be broken between words.
            empty: printed instead of a table without rows.
        """
        if self.as_json:
            return
        cells = [[Text(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
        if not cells:
            if empty:
                self.line((empty, "dim"))
            return
        widths = [max(_width(Text(name)), *(_width(row[n]) for row in cells)) for n, name in enumerate(columns)]
        least = [
            min(width, max(_PROSE, *(_words(row[n]) for row in cells))) if columns[n] == prose else width
            for n, width in enumerate(widths)
        ]
        kept = list(range(len(columns)))
        below: list[int] = []
        while len(kept) > 1 and sum(least[n] + _GAP for n in kept) - _GAP > self.console.width:
            leaving = next((n for n in kept if columns[n] == prose), kept[-1])
            kept.remove(leaving)
            below.append(leaving)
        if not below:
            table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
            for name in columns:
                table.add_column(name, overflow="fold", no_wrap=name != prose)
            for row in cells:
                table.add_row(*row)
            with self._writing():
                self.console.print(table)
            return
        self.line(*_padded([Text(columns[n], style="bold") for n in kept], [widths[n] for n in kept]))
        for row in cells:
            self.line(*_padded([row[n] for n in kept], [widths[n] for n in kept]))
            told = [n for n in sorted(below) if columns[n] != prose and row[n].plain]
            if told:
                self.prose(*_labelled([(columns[n], row[n]) for n in told]), indent=_HANGING)
            for n in below:
                if columns[n] == prose and row[n].plain:
                    self.prose(row[n], indent=_HANGING)

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


def _width(cell: Text) -> int:
    return max(line.cell_len for line in cell.split("\n", allow_blank=True))


def _words(cell: Text) -> int:
    """Columns of the longest word."""
    return max((cell_len(word) for word in cell.plain.split()), default=0)


def _broken(line: Text, width: int) -> Iterator[Text]:
    """The line in pieces of whole words; a word that is wider than ``width`` is a piece of its own."""
    breaks, columns = [], 0
    for word in re.finditer(r"\s*\S+", line.plain):
        columns += cell_len(word[0])
        if columns > width and word.start():
            breaks.append(word.end() - len(word[0].lstrip()))
            columns = cell_len(word[0].lstrip())
    for piece in line.divide(breaks):
        piece.rstrip()
        yield piece


def _padded(cells: Sequence[Text], widths: Sequence[int]) -> Iterator[Text]:
    """The cells of one row, the last as long as it is."""
    for number, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        yield cell
        if number < len(cells) - 1:
            yield Text(" " * (width - cell.cell_len + _GAP))


def _labelled(cells: Sequence[tuple[str, Text]]) -> Iterator[Text]:
    for number, (label, cell) in enumerate(cells):
        yield Text("  " if number else "")
        yield Text(f"{label} " if label else "", style="dim")
        yield cell


def _tolerant(stream: TextIO) -> TextIO:
    """The stream, printing ``?`` for what the terminal's encoding lacks instead of failing."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")
    return stream
