"""Bound what a log line holds, whatever a caller passes: values are often foreign."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any, Final

from structlog.types import EventDict, WrappedLogger

from orchestrator.text import count_more, cut, format_object, shorten

MAX_VALUE: Final = 4_000
"""Characters of a value in a log line. A traceback has the limit of a stored one."""

_SHORT: Final = (int, float, type(None))
"""Of these a line has many. Asked for first: whether something is a mapping takes longer."""

_MAX_ITEMS, _MAX_ITEM, _MAX_DEPTH = 50, 200, 3
"""Items of a list or dict, characters of each, and levels of them."""


def cut_values(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Cut the values of a log line, as a processor of structlog; tracebacks must have been formatted before."""
    for name, value in event.items():
        if isinstance(value, str):
            if len(value) > MAX_VALUE:
                event[name] = shorten(value) if name == "exception" else cut(value, MAX_VALUE)
        elif isinstance(value, _SHORT):
            continue
        elif isinstance(value, Mapping | list | tuple | set | frozenset):
            few = _few(value, _MAX_DEPTH)
            shown = format_object(few)
            event[name] = few if len(shown) <= MAX_VALUE else cut(shown, MAX_VALUE)
    return event


def _few(value: Any, depth: int) -> Any:
    """Return a value with few items on few levels."""
    if isinstance(value, str):
        return cut(value, _MAX_ITEM)
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        if depth == 0:
            return f"<{type(value).__name__} of {len(value)}>"
        more = len(value) - _MAX_ITEMS
        if isinstance(value, Mapping):
            items = {cut(str(key), _MAX_ITEM): _few(one, depth - 1) for key, one in islice(value.items(), _MAX_ITEMS)}
            return items | ({"…": count_more(more)} if more > 0 else {})
        return [*(_few(one, depth - 1) for one in islice(value, _MAX_ITEMS)), *([count_more(more)] if more > 0 else [])]
    return value
