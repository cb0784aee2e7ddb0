r"""Read what a person asks of a list: which rows, in which order, which ones. Pure: names are checked by the list itself.

``range=0,9`` are the first ten rows. ``sort=started_at,desc,workflow_name,asc`` and ``filter=status,failed|waiting`` are pairs; a
comma that belongs to a value is written ``\,``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from orchestrator.db.lists.words import Term, read_query
from orchestrator.errors import InvalidQueryError

DEFAULT_ROWS = 100
"""Rows of a page when no range is given."""

MAX_ROWS = 1000
"""Rows of a page at most; a longer range is cut."""

MAX_FIRST = 1_000_000
"""The number of the last row at which a page may begin: the rows before it are read as well."""

MAX_PAIRS = 20
"""Filters, and sort keys, of one request."""

_RANGE = re.compile(r"([0-9]{1,10}),([0-9]{1,10})")
_COMMA = re.compile(r"(?<!\\),")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


@dataclass(frozen=True, slots=True)
class Window:
    """Which rows of a list are shown: ``count`` of them from number ``first`` on, which begins at 0."""

    first: int = 0
    count: int = DEFAULT_ROWS


@dataclass(frozen=True, slots=True)
class SortKey:
    """A column by which a list is sorted."""

    name: str
    descending: bool


@dataclass(frozen=True, slots=True)
class Filter:
    """A column and what its value must be, as it was written."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class ListRequest:
    """Everything that is asked of a list.

    Args:
        terms: of the search text; all must match.
    """

    window: Window = field(default_factory=Window)
    sort: tuple[SortKey, ...] = ()
    filters: tuple[Filter, ...] = ()
    terms: tuple[Term, ...] = ()


def read_request(
    *, rows: str | None = None, sort: Sequence[str] = (), filters: Sequence[str] = (), query: str | None = None
) -> ListRequest:
    """Return what the parameters of a request ask for.

    Args:
        rows: ``from,to``, both included.

    Raises:
        InvalidQueryError: one of them is not written as it must be.
    """
    require_text(rows or "", query or "", *sort, *filters)
    return ListRequest(_read_range(rows), _read_sort(sort), _read_filters(filters), read_query(query or ""))


def require_text(*given: str) -> None:
    """Check parameters that are sent to the database as text.

    Raises:
        InvalidQueryError: one has a null character, which the database cannot hold.
    """
    if any("\0" in one for one in given):
        raise InvalidQueryError("no parameter may contain a null character")


def snake_case(name: str) -> str:
    """Return a column's name as REST writes it: the search text of the field's user interface has camelCase."""
    return _CAMEL.sub("_", name).lower()


def _read_range(written: str | None) -> Window:
    if not written:
        return Window()
    found = _RANGE.fullmatch(written)
    if found is None:
        raise InvalidQueryError("range must be two numbers, first and last row, such as 0,9 for the first ten rows")
    first, last = int(found[1]), int(found[2])
    if last < first:
        raise InvalidQueryError(f"range ends at row {last}, before it begins at row {first}")
    if first > MAX_FIRST:
        raise InvalidQueryError(f"range may begin at row {MAX_FIRST} at most: narrow the filter instead")
    return Window(first, min(last - first + 1, MAX_ROWS))


def _read_sort(written: Sequence[str]) -> tuple[SortKey, ...]:
    keys = []
    for name, direction in _pairs("sort", written, "a column and asc or desc, such as started_at,desc"):
        if direction.lower() not in {"asc", "desc"}:
            raise InvalidQueryError(f"sort is column,asc or column,desc; {direction[:50]!r} is neither asc nor desc")
        keys.append(SortKey(snake_case(name), direction.lower() == "desc"))
    return tuple(keys)


def _read_filters(written: Sequence[str]) -> tuple[Filter, ...]:
    return tuple(
        Filter(snake_case(name), value)
        for name, value in _pairs("filter", written, "a column and a value, such as status,failed")
    )


def _pairs(parameter: str, written: Sequence[str], what: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for one in written:
        parts = [part.replace("\\,", ",").strip() for part in _COMMA.split(one)] if one else []
        if len(parts) % 2:
            raise InvalidQueryError(f"{parameter} must be pairs of {what}")
        found += zip(parts[::2], parts[1::2], strict=True)
    if len(found) > MAX_PAIRS:
        raise InvalidQueryError(f"{parameter} has {len(found)} pairs; at most {MAX_PAIRS} are accepted")
    return found
