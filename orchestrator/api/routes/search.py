"""The search page of the field's user interface, as far as SQL answers it: words, filters on columns, one order.

What cannot be answered is refused with words, and nothing is guessed.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from orchestrator.api.answers import answer_document
from orchestrator.api.bodies import Router
from orchestrator.api.callers import Caller, Role, requires
from orchestrator.api.context import Context
from orchestrator.api.problems import Responses
from orchestrator.api.search_filters import COLUMNS, read_filters
from orchestrator.db.lists.page import FEW
from orchestrator.db.lists.request import MAX_ROWS, ListRequest, SortKey, Window
from orchestrator.db.lists.subscriptions import page_subscriptions
from orchestrator.db.lists.words import read_query
from orchestrator.errors import InvalidQueryError
from orchestrator.services.customers import Customer

router = Router(prefix="/search", tags=["search"])

Reader = Annotated[Caller, requires(Role.READ)]

_REFUSED: Final[Responses] = {422: {"description": "Something of it is not supported; `detail` says what."}}

_KINDS: Final = {
    "string": (("eq", "neq", "like"), ["subscription.description", "subscription.note", "subscription.customer_name"]),
    "boolean": (("eq", "neq"), ["subscription.insync"]),
    "datetime": (("eq", "neq", "lt", "lte", "gt", "gte"), ["subscription.start_date", "subscription.end_date"]),
}


class SearchOrder(BaseModel):
    """The column and the direction of an order."""

    element: str = Field(max_length=100)
    direction: Literal["asc", "desc"] = "asc"


class SubscriptionSearch(BaseModel):
    """What is searched for. A limit above 1,000 is cut."""

    model_config = ConfigDict(extra="ignore")

    query: str | None = None
    filters: dict[str, Any] | None = None
    limit: int = Field(10, ge=1, le=2**31 - 1)
    order_by: SearchOrder | None = None
    response_columns: list[str] | None = Field(None, max_length=50)


@router.post("/subscriptions", operation_id="search_subscriptions", response_model=dict[str, Any], responses=_REFUSED)
async def search_subscriptions(
    context: Context,
    caller: Reader,
    search: SubscriptionSearch,
    cursor: Annotated[
        str | None, Query(description="`next_page_cursor` of the page before.", pattern="^[0-9]{1,7}$")
    ] = None,
) -> Response:
    """Search subscriptions by words, and by filters as Elasticsearch has them: `bool`, `term`, `range`, `wildcard`, `exists`."""
    del caller
    first = int(cursor or 0)
    chosen = {name: _find_column(name) for name in search.response_columns or COLUMNS}
    sort = () if search.order_by is None else (_read_order(search.order_by),)
    request = ListRequest(Window(first, min(search.limit, MAX_ROWS)), sort, terms=read_query(search.query or ""))
    condition = None if search.filters is None else read_filters(search.filters)
    async with context.transaction() as session:
        page = await page_subscriptions(session, request, condition)
    last = first + len(page.rows)
    has_more = page.total is None or last < page.total
    customers = await context.customers.find(row["customer_id"] for row in page.rows)
    return await answer_document(
        {
            "data": [_describe(row, chosen, customers[row["customer_id"]]) for row in page.rows],
            "page_info": {"has_next_page": has_more, "next_page_cursor": str(last) if has_more else None},
            "cursor": {
                "total_items": page.total if page.total is not None else max(FEW, last + 1),
                "start_cursor": first,
                "end_cursor": max(first, last - 1),
            },
            "search_metadata": {"search_type": "structured", "description": "words and columns"},
        }
    )


@router.get("/definitions", operation_id="list_search_definitions", response_model=dict[str, Any])
async def list_definitions(caller: Reader) -> Response:
    """List the types of columns, with the comparisons that each has."""
    del caller
    return await answer_document(
        {
            kind: {"operators": operators, "value_schema": {operator: {"kind": kind} for operator in operators}}
            for kind, (operators, _) in _KINDS.items()
        }
    )


@router.get("/paths", operation_id="list_search_paths", response_model=dict[str, Any])
async def list_paths(
    caller: Reader,
    q: Annotated[str, Query(description="Part of a column's name.", max_length=100)] = "",
    entity_type: Annotated[str, Query(description="Only SUBSCRIPTION has any.", max_length=100)] = "SUBSCRIPTION",
) -> Response:
    """List the columns that can be searched."""
    del caller
    kinds = {path: kind for kind, (_, paths) in _KINDS.items() for path in paths}
    found = [path for path in COLUMNS if q.lower() in path] if entity_type.upper() == "SUBSCRIPTION" else []
    leaves = [
        {"name": path.rpartition(".")[2], "ui_types": [kinds.get(path, "string")], "paths": [path]} for path in found
    ]
    return await answer_document({"leaves": leaves, "components": []})


def _find_column(name: str) -> str:
    found = COLUMNS.get(name)
    if found is None:
        raise InvalidQueryError(f"not supported: the column {name[:100]!r}", list(COLUMNS))
    return found


def _read_order(order: SearchOrder) -> SortKey:
    return SortKey(_find_column(order.element), order.direction == "desc")


def _describe(row: dict[str, Any], chosen: dict[str, str], customer: Customer) -> dict[str, Any]:
    names = {"subscription.customer_name": customer.fullname, "subscription.customer_abbreviation": customer.shortcode}
    values = {**row, "product": row["product_name"], "metadata": None}
    return {
        "entity_id": row["subscription_id"],
        "entity_type": "SUBSCRIPTION",
        "entity_title": row["description"],
        "score": 1.0,
        "perfect_match": 0,
        "matching_fields": None,
        "response_columns": {name: names.get(name, values[column]) for name, column in chosen.items()},
    }
