"""Read the arguments that every list has. What a list does not have is reported and left out, and the page is answered."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final, Protocol, TypeVar

import strawberry

from orchestrator.db.lists.request import (
    MAX_FIRST,
    MAX_PAIRS,
    MAX_ROWS,
    Filter,
    ListRequest,
    SortKey,
    Window,
    snake_case,
)
from orchestrator.db.lists.words import read_query
from orchestrator.errors import InvalidQueryError

T = TypeVar("T")

DEFAULT_ROWS: Final = 10
"""Rows of a list of which no number is asked for."""

TIMES: Final = frozenset({"started_at", "last_modified_at", "start_date", "created_at"})
"""Columns by which the newest rows come last, in a list sorted upwards."""

Report = Callable[[str], None]
"""Adds a text to the errors of an answer that has data all the same."""


@strawberry.enum
class SortOrder(Enum):
    """Upwards or downwards."""

    ASC = "ASC"
    DESC = "DESC"


@strawberry.input(description="A column, and the direction to sort by.")
class GraphqlSort:
    """A column, and the direction to sort by."""

    field: str
    order: SortOrder = SortOrder.ASC


@strawberry.input(description="A column and its value: `a|b` for either, `!a` for others, `a*` for what begins so.")
class GraphqlFilter:
    """A column and its value."""

    field: str
    value: str


class Names(Protocol):
    """What a list can be filtered and sorted by."""

    def has_filter(self, name: str) -> bool:
        """Return whether it can be filtered by this."""

    def has_sort(self, name: str) -> bool:
        """Return whether it can be sorted by this."""

    def check(self, one: Filter) -> None:
        """Check the value of a filter.

        Raises:
            InvalidQueryError.
        """


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of a list.

    Args:
        request: its window has at most the rows that a list may have.
        is_empty: nothing fits, because a value is wrong.
        keeps_end: more rows were asked for than a list may have, the newest come last, and it is these that count.
    """

    request: ListRequest
    is_empty: bool = False
    keeps_end: bool = False

    def reversed(self) -> ListRequest:
        """Return the request for the last rows of the list, the last one first."""
        sort = tuple(SortKey(key.name, not key.descending) for key in self.request.sort)
        return replace(self.request, sort=sort, window=Window(0, MAX_ROWS))


def read_arguments(
    names: Names,
    first: int | None,
    after: int | None,
    sort_by: Sequence[GraphqlSort] | None,
    filter_by: Sequence[GraphqlFilter] | None,
    query: str | None,
    report: Report,
) -> Asked:
    """Return what the arguments of a list ask for."""
    wanted = DEFAULT_ROWS if first is None else max(first, 0)
    start = max(after or 0, 0)
    if start > MAX_FIRST:
        report(f"a page may begin at row {MAX_FIRST} at most: narrow the filter instead")
        return Asked(ListRequest(Window(0, 0)), is_empty=True)
    sort = _read_sort(names, sort_by or (), report)
    filters, is_wrong = _read_filters(names, filter_by or (), report)
    try:
        if "\0" in (query or ""):
            raise InvalidQueryError("no search text may contain a null character")
        terms = read_query(query or "")
    except InvalidQueryError as error:
        report(str(error))
        terms, is_wrong = (), True
    request = ListRequest(Window(start, min(wanted, MAX_ROWS)), sort, filters, terms)
    newest_last = bool(sort) and not sort[0].descending and sort[0].name in TIMES
    return Asked(request, is_wrong, keeps_end=wanted > MAX_ROWS and newest_last)


def _read_sort(names: Names, written: Sequence[GraphqlSort], report: Report) -> tuple[SortKey, ...]:
    keys = []
    for one in _few(written, "sortBy", report):
        name = snake_case(one.field)
        if names.has_sort(name):
            keys.append(SortKey(name, one.order is SortOrder.DESC))
        else:
            report(f"the list cannot be sorted by {one.field[:50]!r}; pageInfo.sortFields names what it can")
    return tuple(keys)


def _read_filters(names: Names, written: Sequence[GraphqlFilter], report: Report) -> tuple[tuple[Filter, ...], bool]:
    """Return the filters that the list has, and whether one of them has a value that nothing fits."""
    found, is_wrong = [], False
    for one in _few(written, "filterBy", report):
        asked = Filter(snake_case(one.field), one.value)
        if not names.has_filter(asked.name):
            report(f"there is no filter {one.field[:50]!r}; pageInfo.filterFields names those that there are")
            continue
        try:
            if "\0" in one.value:
                raise InvalidQueryError(f"the filter {one.field[:50]!r} has a null character")
            names.check(asked)
        except InvalidQueryError as error:
            report(str(error))
            is_wrong = True
        else:
            found.append(asked)
    return tuple(found), is_wrong


def _few(written: Iterable[T], name: str, report: Report) -> list[T]:
    found = list(written)
    if len(found) > MAX_PAIRS:
        report(f"{name} has {len(found)} items; the first {MAX_PAIRS} are used")
    return found[:MAX_PAIRS]
