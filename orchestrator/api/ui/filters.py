"""Write values for people: what templates use after ``|``."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from markupsafe import Markup

from orchestrator.text import format_span

_TONES: Final = {
    "running": "busy",
    "created": "busy",
    "resumed": "busy",
    "pending": "quiet",
    "suspend": "ask",
    "suspended": "ask",
    "waiting": "wait",
    "awaiting_callback": "wait",
    "failed": "bad",
    "inconsistent_data": "bad",
    "api_unavailable": "bad",
    "aborted": "quiet",
    "abort": "quiet",
    "completed": "good",
    "complete": "good",
    "success": "good",
    "skipped": "quiet",
}


def write_time(value: datetime | str | None) -> Markup | str:
    """Return a time in UTC, which the script of the pages turns into the reader's own; a line for none."""
    if value is None or value == "":
        return "–"
    moment = (datetime.fromisoformat(value) if isinstance(value, str) else value).astimezone(UTC)
    return Markup('<time datetime="{}">{}</time>').format(moment.isoformat(), f"{moment:%Y-%m-%d %H:%M:%S} UTC")


def write_json(value: object) -> str:
    """Return a value as JSON, for people."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def choose_tone(status: object) -> str:
    """Return the class of a status: what colour its badge has."""
    return f"badge {_TONES.get(str(status), 'quiet')}"


def write_words(status: object) -> str:
    """Return a status as people say it."""
    return str(status).replace("_", " ")


def leave_out(value: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Return an object without these members."""
    return {name: one for name, one in value.items() if name not in names}


FILTERS: Final[Mapping[str, Callable[..., Any]]] = {
    "when": write_time,
    "as_json": write_json,
    "tone": choose_tone,
    "words": write_words,
    "span": format_span,
    "without": leave_out,
}
"""By their names in templates."""
