"""Pages of subscriptions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.lists.columns import (
    Choice,
    Column,
    Columns,
    Condition,
    Flag,
    Id,
    Named,
    Time,
    Words,
    any_of,
    has_id,
    has_words,
    negate,
)
from orchestrator.db.lists.page import COUNTED, FEW, Page, count, known_total
from orchestrator.db.lists.request import ListRequest, SortKey, Window
from orchestrator.db.lists.statement import Lookups, Statement, open_list
from orchestrator.db.lists.words import Term, Text
from orchestrator.db.session import Driver
from orchestrator.types import SubscriptionLifecycle

_STATUSES: Final = tuple(status.value for status in SubscriptionLifecycle)


def _of_product(ids: str) -> Named:
    return Named(f"SELECT array_agg(product_id) FROM products WHERE {ids}", "s.product_id = ANY({ids})")  # noqa: S608


COLUMNS: Final = Columns(
    filters={
        "subscription_id": Id("s.subscription_id BETWEEN {first} AND {last}"),
        "description": Words("s.description", "s.words"),
        "status": Choice("s.status", _STATUSES),
        "insync": Flag("s.insync"),
        "customer_id": Words("s.customer_id", "s.words", exact=True),
        "note": Words("coalesce(s.note, '')", "s.words"),
        "product": _of_product("lower(name) LIKE ANY({names}) OR product_id::text = ANY({names})"),
        "product_type": _of_product("lower(product_type) LIKE ANY({names})"),
        "tag": _of_product("lower(tag) LIKE ANY({names})"),
        "start_date": Time("s.start_date {compare}"),
        "end_date": Time("s.end_date {compare}"),
        "created_at": Time("s.created_at {compare}"),
    },
    sorts={
        "subscription_id": "s.subscription_id",
        "description": "s.description",
        "status": "s.status",
        "insync": "s.insync",
        "customer_id": "s.customer_id",
        "product": "p.name",
        "product_type": "p.product_type",
        "tag": "p.tag",
        "start_date": "s.start_date",
        "end_date": "s.end_date",
        "created_at": "s.created_at",
    },
    nullable=frozenset({"s.start_date", "s.end_date"}),
    aliases={
        "product_name": "product",
        "product_id": "product",
        "tags": "tag",
        "statuses": "status",
        "in_sync": "insync",
        "customer": "customer_id",
        "organisation": "customer_id",
    },
    key="s.subscription_id",
)
NEWEST: Final = SortKey("created_at", descending=True)

_OF_PRODUCTS: Final = (
    "SELECT coalesce(array_agg(product_id), '{{}}') FROM products"
    " WHERE search_words(name || ' ' || product_type || ' ' || tag) @@ to_tsquery('pg_catalog.simple', {query})"
)
_ROWS: Final = """
SELECT s.subscription_id, s.description, s.status, s.insync, s.customer_id, s.note, s.version, s.start_date, s.end_date,
       s.created_at, s.updated_at AS last_modified_at, s.locked_by,
       p.product_id, p.name AS product_name, p.description AS product_description, p.product_type, p.tag,
       p.status AS product_status
  FROM (SELECT s.subscription_id, row_number() OVER () AS place FROM ({found}) s) f
  JOIN subscriptions s USING (subscription_id) JOIN products p USING (product_id)
 ORDER BY f.place
"""


async def page_subscriptions(
    session: AsyncSession, request: ListRequest, extra: Callable[[Lookups], Condition] | None = None
) -> Page[dict[str, Any]]:
    """Return a page of subscriptions, the newest first unless the request says otherwise.

    Args:
        extra: makes a condition that must hold as well.

    Raises:
        InvalidQueryError: the list has no such column or value; the text names those that it has.
        QueryTimeoutError.
    """
    order = COLUMNS.order(request.sort, NEWEST)
    lookups = Lookups()
    conditions = list_conditions(request, lookups)
    if extra is not None:
        conditions.append(extra(lookups))
    async with open_list(session) as connection:
        answers = await lookups.read(connection)

        def where(statement: Statement) -> str:
            return " AND ".join(one(statement, answers) for one in conditions) or "true"

        listing = _Listing(order, request.window, where)
        page = await listing.read_few(connection) if request.terms else None
        return page or await listing.read_in_order(connection, is_counted=not request.terms)


@dataclass(frozen=True, slots=True)
class _Listing:
    """The SQL of one list.

    Args:
        where: adds its parameters to a statement and returns which subscriptions fit.
    """

    order: str
    window: Window
    where: Callable[[Statement], str]

    async def read_few(self, connection: Driver) -> Page[dict[str, Any]] | None:
        """Return the page if few subscriptions fit; they are found by their words, once, and then counted and sorted."""
        statement = Statement()
        hits = f"SELECT s.subscription_id FROM subscriptions s WHERE {self.where(statement)} LIMIT {FEW + 1}"  # noqa: S608
        number = "(SELECT count(*) FROM hits)"
        page = self._ordered(statement, "hits JOIN subscriptions s USING (subscription_id)", f"{number} <= {FEW}")
        sql = f"WITH hits AS MATERIALIZED ({hits}) SELECT {number} AS total, array({page}) AS ids"
        (found,) = await statement.fetch(connection, sql)
        if found["total"] > FEW:
            return None
        shown = Statement()
        ids = f"SELECT unnest({shown.add(found['ids'], 'uuid[]')}) AS subscription_id"
        return Page(await read_rows(connection, shown, ids), self.window.first, found["total"])

    async def read_in_order(self, connection: Driver, *, is_counted: bool) -> Page[dict[str, Any]]:
        """Return the page of a list that is read in its order until the page is full."""
        statement = Statement()
        where = self.where(statement)
        rows = await read_rows(connection, statement, self._ordered(statement, "subscriptions s", where))
        total = known_total(self.window, len(rows))
        if total is None and is_counted:
            total = await count(
                connection, f"subscriptions s WHERE {self.where(counter := Statement())}", counter, COUNTED
            )
        return Page(rows, self.window.first, total)

    def _ordered(self, statement: Statement, tables: str, where: str) -> str:
        """Return the SQL of the ids of the page, in their order."""
        join = "JOIN products p USING (product_id)" if "p." in self.order else ""
        limit, offset = statement.add(self.window.count, "int"), statement.add(self.window.first, "int")
        return (
            f"SELECT s.subscription_id FROM {tables} {join} WHERE {where}"  # noqa: S608 - built from constants
            f" ORDER BY {self.order} LIMIT {limit} OFFSET {offset}"
        )


def list_conditions(request: ListRequest, lookups: Lookups) -> list[Condition]:
    """Return the conditions of a request's filters and of its search text.

    Raises:
        InvalidQueryError: the list has no such column or value.
    """
    conditions = [COLUMNS.filter_by(one, lookups) for one in request.filters]
    return conditions + [matching(term, lookups) for term in request.terms]


async def read_rows(connection: Driver, statement: Statement, ids: str) -> list[dict[str, Any]]:
    """Return subscriptions as they stand in a list.

    Args:
        ids: SQL for the ids, in their order; its parameters are in ``statement``.
    """
    return [dict(row) for row in await statement.fetch(connection, _ROWS.format(found=ids))]


async def read_subscriptions(session: AsyncSession, subscription_ids: Sequence[UUID]) -> list[dict[str, Any]]:
    """Return these subscriptions as they stand in a list, in one statement."""
    statement = Statement()
    ids = f"SELECT unnest({statement.add(list(subscription_ids), 'uuid[]')}) AS subscription_id"
    async with open_list(session) as connection:
        return await read_rows(connection, statement, ids)


def matching(term: Term, lookups: Lookups) -> Condition:
    """Return the condition that a subscription fits a term of a search text."""
    condition = COLUMNS.search_in(term, lookups) if term.column is not None else None
    if condition is None:
        plain = term if term.column is None else term.without_column()
        condition = any_of(*(_has(text, lookups) for text in plain.texts))
    return negate(condition) if term.negated else condition


def _has(text: Text, lookups: Lookups) -> Condition:
    """Return the condition that a subscription, its product or its status has these words."""
    parts: list[Condition] = [has_own_words(text)]
    if text.parts:
        number = lookups.select(_OF_PRODUCTS.format(query=lookups.add(text.tsquery, "text")))
        parts.append(has_id("s.product_id", number))
    parts += [column.matching([text], lookups) for column in _columns_of(text)]
    return any_of(*parts)


def has_own_words(text: Text) -> Condition:
    """Return the condition that a subscription's texts, or the values of its blocks, have these words."""
    plain = "s.description || ' ' || s.customer_id || ' ' || coalesce(s.note, '')"
    return lambda statement, _: has_words(statement, [text], ["s.words", "s.block_words"], plain)


def _columns_of(text: Text) -> list[Column]:
    """Return the columns without words of their own that a text may name: a status, or the beginning of an id."""
    found: list[Column] = []
    if any(text.fits(status) for status in _STATUSES):
        found.append(COLUMNS.filters["status"])
    if is_id(text):
        found.append(COLUMNS.filters["subscription_id"])
    return found


MIN_ID: Final = 4
"""Characters of an id that are recognized as such in a search text."""


def is_id(text: Text) -> bool:
    """Return whether a text may be meant as the beginning of an id."""
    digits = text.written.lower().replace("-", "")
    return len(digits) >= MIN_ID and all(digit in "0123456789abcdef" for digit in digits)
