"""Make foreign text safe for everything that the engine writes to: the database, messages, the broker's headers."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from typing import Any

MAX_TEXT = 16_000
"""Characters of an error's message, and of its traceback, that are kept in the log. Each attempt stores them again, and lists
and messages carry them. An error may quote the whole answer of a device, of which an operator reads the beginning and the end."""


def sanitise(text: str) -> str:
    """Replace what PostgreSQL or UTF-8 cannot hold: null characters and halves of surrogate pairs."""
    return text.replace("\0", "\\0").encode("utf-8", "replace").decode()


def shorten(text: str) -> str:
    """Cut the middle out of a text that is longer than :data:`MAX_TEXT`."""
    if len(text) <= MAX_TEXT:
        return text
    # What is kept leaves room for the note between.
    kept = MAX_TEXT // 2 - 50
    return f"{text[:kept]}\n[… {len(text) - 2 * kept} characters left out …]\n{text[-kept:]}"


def format_message(error: BaseException) -> str:
    """Return an error's message, or its class when it has none."""
    try:
        text = str(error)
    except Exception:
        # An author's exception class whose text cannot be built.
        text = ""
    return sanitise(text or type(error).__name__)


def format_object(value: object) -> str:
    """Return how Python shows a value, or its class when that fails: it may be too deep, or an author's."""
    try:
        text = repr(value)
    except Exception:
        text = f"<{type(value).__name__}>"
    return sanitise(text)


def format_error(error: BaseException) -> str:
    """Return an error's class and message."""
    name, message = type(error).__name__, format_message(error)
    return name if message == name else f"{name}: {message}"


def format_traceback(error: BaseException) -> str:
    """Return the whole traceback; :func:`shorten` it before it is stored."""
    return sanitise("".join(traceback.format_exception(error)))


def format_problem(problem: Mapping[str, Any]) -> str:
    """Return pydantic's message about one field, without the error class that it puts before a validator's message."""
    message = str(problem.get("msg", ""))
    return message.removeprefix("Value error, ") or message


def format_span(seconds: float) -> str:
    """Return a duration as people write it."""
    if seconds < 10:  # noqa: PLR2004 - below ten seconds the milliseconds matter
        return f"{seconds:.3f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
