"""Arguments and options that several commands share."""

from __future__ import annotations

import getpass
import json
import math
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.authorization import MAX_USER, is_user_name
from orchestrator.text import sanitise
from orchestrator.types import JSON, State

LARGEST_INPUT = 64 * 1024**2
"""Bytes of a file with a page: no message may be larger, whatever the settings."""


def check_text(written: str | list[str] | None) -> str | list[str] | None:
    """Refuse null characters and bytes that are not UTF-8, which Python keeps as lone surrogates: neither can be stored.

    For every argument that reaches the database or a file as it is written.
    """
    for text in [written] if isinstance(written, str) else written or ():
        if sanitise(text) != text:
            raise typer.BadParameter(f"{text!r} is no text: it has bytes that are not UTF-8, or a null character")
    return written


Process = Annotated[str, typer.Argument(metavar="ID", help="The process; its first 8 or more characters will do.")]
AsJson = Annotated[bool, typer.Option("--json", metavar="", help="Print one JSON document.")]
Pages = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        "-i",
        metavar="JSON",
        help="A filled-in page of the form, as a JSON object; repeat it for each page, in order."
        " @file.json reads a file, @- the standard input.",
    ),
]
Seen = Annotated[
    int | None,
    typer.Option(
        "--seen",
        min=0,
        metavar="SEQUENCE",
        help="The newest log entry that you have seen: refused, if there is a newer one by then. 'show' prints it.",
    ),
]
Wait = Annotated[
    bool,
    typer.Option(
        "--wait", "-w", metavar="", help="Show each step until the process ends or needs input or an operator."
    ),
]
Reason = Annotated[str, typer.Option(help="Why; goes into the process's log.", callback=check_text)]


def user_name() -> str:
    """Return who acts when ``--user`` is not given: the operating system's user."""
    try:
        return getpass.getuser()[:MAX_USER] or "cli"
    except (OSError, KeyError, ImportError):  # the last two up to Python 3.12
        return "cli"


def _check_name(name: str) -> str:
    if not is_user_name(name):
        raise typer.BadParameter(f"a name has 1 to {MAX_USER} printable characters")
    return name


def _check_timeout(seconds: float | None) -> float | None:
    if seconds is not None and (seconds < 0 or not math.isfinite(seconds)):
        raise typer.BadParameter("not a number of seconds")
    return seconds


User = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        callback=_check_name,
        show_default="your user name",
        help="Who does this, for the audit trail.",
    ),
]
Timeout = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS", callback=_check_timeout, help="How long to follow it; default for as long as it takes."
    ),
]


def read_pages(written: list[str] | None) -> list[State]:
    """Read the pages of a form.

    Raises:
        typer.BadParameter: one is not a JSON object, or its file cannot be read.
    """
    pages = []
    for number, text in enumerate(written or (), start=1):
        page = _read_json(_read_contents(text), f"page {number}")
        if not isinstance(page, dict):
            raise typer.BadParameter(
                f'page {number} is not a JSON object; each --input is one page, such as --input \'{{"name": "value"}}\'',
                param_hint="--input",
            )
        pages.append(page)
    return pages


def read_changes(written: list[str] | None) -> State:
    """Read ``KEY=JSON`` pairs.

    Raises:
        typer.BadParameter: one is not of that form.
    """
    changes: State = {}
    for text in written or ():
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise typer.BadParameter(
                f"{text!r} is not KEY=JSON, such as vlan=142 or 'name=\"ams-1\"'", param_hint="--set"
            )
        changes[key] = _read_json(value, f"the value of {key!r}", "--set")
    return changes


def _read_contents(text: str) -> str:
    if not text.startswith("@"):
        return text
    try:
        with nullcontext(sys.stdin.buffer) if text == "@-" else Path(text[1:]).open("rb") as source:
            contents = source.read(LARGEST_INPUT + 1)
        if len(contents) > LARGEST_INPUT:
            raise typer.BadParameter(f"{text[1:]!r} has more than {LARGEST_INPUT} bytes", param_hint="--input")
        return contents.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"cannot read {text[1:]!r}: {error}", param_hint="--input") from None


def _read_json(text: str, what: str, option: str = "--input") -> JSON:
    try:
        value: JSON = json.loads(text, parse_constant=_refuse_constant)
        json.dumps(value, ensure_ascii=False).encode()  # fails for halves of characters, which JSON may have as escapes
    except (ValueError, RecursionError) as error:
        hint = "; strings need double quotes" if option == "--set" else ""
        raise typer.BadParameter(f"{what} is not JSON: {error}{hint}", param_hint=option) from None
    return value


def _refuse_constant(name: str) -> JSON:
    raise ValueError(f"{name} is not JSON")
