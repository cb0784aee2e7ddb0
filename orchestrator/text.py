"""Make foreign text safe for everything that the engine writes to: the database, messages, the broker's headers."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

MAX_TEXT = 16_000
"""Characters of an error's message, and of its traceback, that are kept in the log. Each attempt stores them again, and lists
and messages carry them. An error may quote the whole answer of a device, of which an operator reads the beginning and the end."""


MAX_PROBLEMS = 100
"""Problems of one input that are listed, and items of a list in a reason; of the others there is the number. A sender can make
a problem of every eleven bytes of its message."""

MAX_REASON = 2_000
"""Characters of the reason that a person gives for an action; it stands in one line of a log."""

MAX_NOTE = 10_000
"""Characters of a note on a process; lists carry it."""

MAX_SHORT = 1_000
"""Characters of what is said about one of many things, such as a field."""

_MAX_PLACES, _MAX_NAME = 20, 200
"""Parts of the place of a problem, and characters of each: names of fields are the sender's, and may be of any length."""

NO_NULL = r"^[^\x00]*$"
"""The pattern of a text from outside: the database's texts hold everything but the null character."""


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


def cut(text: str, most: int = MAX_SHORT) -> str:
    """Cut the end of a text that has more characters than this."""
    return text if len(text) <= most else f"{text[: most - 2]} …"


def format_place(place: Iterable[object]) -> list[str]:
    """Return the place of a problem in an input: names of fields and numbers of items."""
    return [cut(str(part), _MAX_NAME) for part in islice(place, _MAX_PLACES)]


def count_more(number: int) -> str:
    """Say how many of a list are left out."""
    return f"and {number:,} more"


def bound_reasons(reasons: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return reasons of a refusal with no list in them longer than :data:`MAX_PROBLEMS`; ``<name>_count`` says how long it is."""
    return [dict(_bound_items(reason)) for reason in reasons]


def _bound_items(reason: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in reason.items():
        if isinstance(value, list) and len(value) > MAX_PROBLEMS:
            yield name, value[:MAX_PROBLEMS]
            yield f"{name}_count", len(value)
        else:
            yield name, value


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
    if (problem.get("ctx") or {}).get("pattern") == NO_NULL:
        return "it has a null character, which the database cannot hold"
    message = str(problem.get("msg", ""))
    return cut(message.removeprefix("Value error, ") or message)


def format_span(seconds: float) -> str:
    """Return a duration as people write it."""
    if seconds < 10:  # noqa: PLR2004 - below ten seconds the milliseconds matter
        return f"{seconds:.3f}".rstrip("0").rstrip(".") + " s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
