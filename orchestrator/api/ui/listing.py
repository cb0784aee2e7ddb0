"""What the pages of lists have in common: the request made of an address, and the page again with words when it is not valid."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeVar

from fastapi import Query
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.api.ui.page import Page
from orchestrator.db.lists.page import Page as ListPage
from orchestrator.db.lists.request import MAX_FIRST, Filter, ListRequest, Window, require_text
from orchestrator.db.lists.words import read_query
from orchestrator.errors import InvalidQueryError

T = TypeVar("T")

ROWS: Final = 50
"""Rows of a page."""

First = Annotated[int, Query(ge=0, le=MAX_FIRST)]
Text = Annotated[str, Query(max_length=1000)]


@dataclass(frozen=True, slots=True)
class Found(ListPage[T]):
    """A page of a list.

    Args:
        words: why there is none.
    """

    words: str = ""


async def find(
    page: Page,
    read: Callable[[AsyncSession, ListRequest], Awaitable[ListPage[T]]],
    first: int,
    query: str,
    filters: Mapping[str, str],
) -> Found[T]:
    """Return the page of a list that an address asks for.

    Args:
        filters: by columns; those without a value do not count.
    """
    try:
        require_text(query, *filters.values())
        wanted = tuple(Filter(name, value) for name, value in filters.items() if value.strip())
        request = ListRequest(Window(first, ROWS), (), wanted, read_query(query))
        async with page.context.transaction() as session:
            found = await read(session, request)
    except InvalidQueryError as error:
        return Found([], first, 0, str(error))
    return Found(found.rows, found.first, found.total)


def linker(page: Page, path: str, **query: Any) -> Callable[[int], str]:
    """Return what makes the address of a page of a list from the number of its first row."""
    return lambda first: page.href(path, **query, first=first or None)
