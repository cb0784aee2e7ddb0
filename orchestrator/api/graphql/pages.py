"""Pages: rows of a list, and what a user interface needs to know of the whole list."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar
from uuid import UUID

import strawberry

from orchestrator.api.graphql.arguments import Asked
from orchestrator.api.graphql.reader import Reader, Row
from orchestrator.db.lists.page import COUNTED
from orchestrator.db.lists.related import Relation

T = TypeVar("T")


class Listed(Protocol):
    """What a list can be filtered and sorted by."""

    def list_filters(self) -> list[str]:
        """Return the names of its filters."""

    def list_sorts(self) -> list[str]:
        """Return the names that it can be sorted by."""


@strawberry.type(
    description="Which part of a list a page is. Where more rows fit than are counted, totalItems is a lower bound."
)
class PageInfo:
    """Which part of a list a page is."""

    has_next_page: bool
    has_previous_page: bool
    start_cursor: int | None
    end_cursor: int | None
    total_items: int | None
    sort_fields: list[str]
    filter_fields: list[str]

    @classmethod
    def of(cls, listed: Listed, first: int, count: int, total: int | None) -> PageInfo:
        """Return what is said of a page.

        Args:
            first: the number of its first row.
            count: of its rows.
            total: of all rows; ``None`` when there are more than are counted.
        """
        whole = max(COUNTED, first + count) + 1 if total is None else total
        return cls(
            has_next_page=first + count < whole,
            has_previous_page=first > 0,
            start_cursor=first if count else None,
            end_cursor=first + count - 1 if count else None,
            total_items=whole,
            sort_fields=[camel_case(one) for one in listed.list_sorts()],
            filter_fields=[camel_case(one) for one in listed.list_filters()],
        )


@strawberry.type(description="A page of a list.")
class Connection(Generic[T]):
    """A page of a list; its rows and what is said of it are read when they are asked for."""

    _rows: strawberry.Private[Callable[[], Awaitable[Sequence[Any]]]]
    _info: strawberry.Private[Callable[[], Awaitable[PageInfo]]]

    @strawberry.field(description="The rows.")
    async def page(self) -> list[T]:
        """Return the rows."""
        return list(await self._rows())

    @strawberry.field(description="Which part of the list these are.")
    async def page_info(self) -> PageInfo:
        """Return which part of the list these are."""
        return await self._info()


def connect_page(reader: Reader, name: str, listed: Listed, asked: Asked, make: Callable[[Any], T]) -> Connection[T]:
    """Return a page of a list that SQL makes."""

    async def rows() -> list[T]:
        return [make(row) for row in (await reader.page(name, asked)).rows]

    async def info() -> PageInfo:
        page = await reader.page(name, asked)
        return PageInfo.of(listed, page.first, len(page.rows), page.total)

    return Connection(_rows=rows, _info=info)


def connect_related(
    reader: Reader, relation: Relation, parent: UUID, asked: Asked, make: Callable[[Row], T]
) -> Connection[T]:
    """Return a page of the rows that belong to another row."""
    window = asked.request.window

    async def rows() -> list[T]:
        return [make(row) for row in await reader.related(relation, parent, asked)]

    async def info() -> PageInfo:
        total = await reader.count_related(relation, parent, asked)
        left = window.count if total is None else max(total - window.first, 0)
        count = min(window.count, left)
        first = total - count if asked.keeps_end and total is not None else window.first
        return PageInfo.of(relation.columns, first, count, total)

    return Connection(_rows=rows, _info=info)


def camel_case(name: str) -> str:
    """Return a column's name as GraphQL writes it."""
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)
