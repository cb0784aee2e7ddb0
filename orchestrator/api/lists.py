"""The parameters that all lists have, and their answer."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Final

from fastapi import Depends, Query
from pydantic_core import to_json
from starlette.responses import Response

from orchestrator.api.answers import answer_unless_known
from orchestrator.api.problems import Responses
from orchestrator.db.lists.page import Page
from orchestrator.db.lists.request import DEFAULT_ROWS, MAX_ROWS, ListRequest, read_request

LIST_RESPONSES: Final[Responses] = {
    200: {
        "description": "The rows.",
        "headers": {
            "Content-Range": {
                "description": "Which rows of how many, for example `processes 0-9/1234`; `*` when there are too many to count.",
                "schema": {"type": "string"},
            },
            "ETag": {"description": "Of these rows; see `If-None-Match`.", "schema": {"type": "string"}},
        },
    },
    304: {"description": "The answer would be the one that `If-None-Match` names."},
    422: {"description": "A name or value is not known; `reasons` lists those that are allowed."},
    503: {"description": "The list took too long, or the database is away."},
}


def read_list_request(
    rows: Annotated[
        str | None,
        Query(
            alias="range",
            description=f"First and last row, from 0 on; {DEFAULT_ROWS} rows without it, {MAX_ROWS} at most.",
            examples=["0,9"],
        ),
    ] = None,
    sort: Annotated[
        list[str] | None,
        Query(description="Columns with `asc` or `desc`.", examples=[["started_at,desc"]]),
    ] = None,
    filters: Annotated[
        list[str] | None,
        Query(
            alias="filter",
            description="Columns with values; all must hold. `a|b` for either, `!a` for others, `a*` for what begins so.",
            examples=[["last_status,failed|waiting"]],
        ),
    ] = None,
    query: Annotated[
        str | None,
        Query(description='Words: `node ams*`, `"a phrase"`, `status:failed`, `-word`.', examples=["node ams*"]),
    ] = None,
    q: Annotated[str | None, Query(description="The same as `query`.")] = None,
) -> ListRequest:
    """Return what a request asks of a list."""
    return read_request(rows=rows, sort=sort or (), filters=filters or (), query=query or q)


Asked = Annotated[ListRequest, Depends(read_list_request)]


async def answer_page(page: Page[dict[str, Any]], unit: str, if_none_match: str | None) -> Response:
    """Return a page as JSON, or 304 when it is the one that the client has."""
    body = await asyncio.to_thread(to_json, page.rows)
    return answer_unless_known(body, if_none_match, {"content-range": page.content_range(unit)})
