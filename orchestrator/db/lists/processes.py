"""Pages of processes.

No statement here reads states: what is filtered and sorted by stands in indexes, and only the rows of the page are fetched. The
row of a running process is rewritten by every step, so no index holds what a step changes; processes sorted by their last change
are those at rest, from the index of ``rested_at``, and the running ones, of which there are few (ADR 0038).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.lists.columns import (
    Columns,
    Condition,
    Flag,
    Id,
    Named,
    Plain,
    Time,
    Words,
    negate,
)
from orchestrator.db.lists.page import COUNTED, Page, count, known_total
from orchestrator.db.lists.process_search import PROCESS_ID, STATUS, Searched, find_driver, search
from orchestrator.db.lists.request import ListRequest, SortKey
from orchestrator.db.lists.statement import Lookups, Statement, open_list
from orchestrator.db.lists.words import Text
from orchestrator.db.session import Driver


def _of_workflow(condition: str) -> Named:
    return Named(f"SELECT array_agg(workflow_id) FROM workflows WHERE {condition}", "p.workflow_id = ANY({ids})")  # noqa: S608


def _touches(condition: str) -> str:
    """Return the SQL that a process has touched a subscription that fits."""
    return (
        "p.process_id IN (SELECT ps.process_id FROM subscriptions s JOIN processes_subscriptions ps USING (subscription_id)"  # noqa: S608
        f" WHERE {condition})"
    )


def _of_product(condition: str) -> Named:
    return Named(f"SELECT array_agg(product_id) FROM products WHERE {condition}", _touches("s.product_id = ANY({ids})"))  # noqa: S608


@dataclass(frozen=True, slots=True)
class _Customer:
    """The customers of a process's subscriptions."""

    def matching(self, texts: Sequence[Text], lookups: Lookups) -> Condition:
        """Return the condition that one of them is one of these."""
        inner = Words("s.customer_id", "s.words", exact=True).matching(texts, lookups)
        return lambda statement, found: _touches(inner(statement, found))


COLUMNS: Final = Columns(
    filters={
        "process_id": PROCESS_ID,
        "parent_id": Id("p.parent_id BETWEEN {first} AND {last}"),
        "workflow_name": _of_workflow("lower(name) LIKE ANY({names})"),
        "workflow_target": _of_workflow("lower(target) LIKE ANY({names})"),
        "is_task": Flag("p.is_task"),
        "last_status": STATUS,
        "created_by": Words("p.started_by", "p.words", exact=True),
        "note": Words("coalesce(p.note, '')", "p.words"),
        "assignee": Plain("p.assignee"),
        "started_at": Time("p.started_at {compare}"),
        "last_modified_at": Time("(p.rested_at {compare} OR (p.status = 'running' AND p.updated_at {compare}))"),
        "subscription_id": Id(_touches("s.subscription_id BETWEEN {first} AND {last}")),
        "product": _of_product("lower(name) LIKE ANY({names}) OR product_id::text = ANY({names})"),
        "tag": _of_product("lower(tag) LIKE ANY({names})"),
        "customer_id": _Customer(),
    },
    sorts={
        "process_id": "p.process_id",
        "workflow_name": "w.name",
        "workflow_target": "w.target",
        "is_task": "p.is_task",
        "last_status": "p.status",
        "created_by": "p.started_by",
        "started_at": "p.started_at",
        "last_modified_at": "p.updated_at",
    },
    nullable=frozenset(),
    aliases={
        "id": "process_id",
        "parent": "parent_id",
        "workflow": "workflow_name",
        "target": "workflow_target",
        "status": "last_status",
        "creator": "created_by",
        "started": "started_at",
        "modified": "last_modified_at",
        "product_name": "product",
        "product_id": "product",
        "product_tag": "tag",
        "subscriptions": "subscription_id",
        "customer": "customer_id",
    },
    key="p.process_id",
)
NEWEST: Final = SortKey("started_at", descending=True)
_BY_CHANGE: Final = {True: "p.updated_at DESC, p.process_id ASC", False: "p.updated_at ASC, p.process_id DESC"}

_ROWS: Final = """
SELECT p.process_id, w.workflow_id, w.name AS workflow_name, w.target AS workflow_target, p.is_task, p.status AS last_status,
       p.step AS last_step, p.started_by AS created_by, p.assignee, p.started_at, p.updated_at AS last_modified_at,
       p.note, p.parent_id, failure.message AS failed_reason
  FROM (SELECT process_id, row_number() OVER () AS place FROM ({found}) p) f
  JOIN processes p USING (process_id)
  JOIN workflows w USING (workflow_id)
  LEFT JOIN LATERAL (SELECT left(failure ->> 'message', 1000) AS message FROM process_steps s
                      WHERE s.process_id = p.process_id AND s.failure IS NOT NULL
                        AND p.status IN ('failed', 'waiting', 'api_unavailable', 'inconsistent_data')
                      ORDER BY s.sequence DESC LIMIT 1) failure ON true
 ORDER BY f.place
"""
_TOUCHED: Final = """
SELECT t.process_id, s.subscription_id, s.description, s.status, s.insync, s.customer_id,
       r.product_id, r.name, r.product_type, r.tag
  FROM (SELECT process_id, subscription_id, created_at,
               row_number() OVER (PARTITION BY process_id ORDER BY created_at, subscription_id) AS place
          FROM processes_subscriptions WHERE process_id = ANY({ids})) t
  JOIN subscriptions s USING (subscription_id) JOIN products r USING (product_id)
 WHERE t.place <= 100
 ORDER BY t.process_id, t.place
"""
_OF_SUBSCRIPTION: Final = ("subscription_id", "description", "status", "insync", "customer_id")
_OF_ITS_PRODUCT: Final = ("product_id", "name", "product_type", "tag")


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What a list's statements are made of.

    Args:
        conditions: of filters, and of terms that are about a column or exclude rows.
        terms: the other terms, each in two forms.
    """

    conditions: Sequence[Condition]
    terms: Sequence[Searched]


async def page_processes(session: AsyncSession, request: ListRequest) -> Page[dict[str, Any]]:
    """Return a page of processes without their states, the newest first unless the request says otherwise.

    Raises:
        InvalidQueryError: the list has no such column or value; the text names those that it has.
        QueryTimeoutError.
    """
    order = COLUMNS.order(request.sort, NEWEST)
    lookups = Lookups()
    wanted = _read(request, lookups)
    async with open_list(session) as connection:
        answers = await lookups.read(connection)
        driver = await find_driver(connection, wanted.terms, answers)
        conditions = [*wanted.conditions, *(one.fits for one in wanted.terms if one is not driver)]
        listing = _Listing(conditions, driver, answers)
        statement, window = Statement(), request.window
        limit, offset = statement.add(window.count, "int"), statement.add(window.first, "int")
        found = f"{listing.ordered(statement, order, f'{limit} + {offset}')} LIMIT {limit} OFFSET {offset}"
        rows = await read_rows(connection, statement, found)
        total = known_total(window, len(rows))
        if total is None and (driver is not None or not wanted.terms):
            total = await count(connection, listing.source(counter := Statement()), counter, COUNTED)
    return Page(rows, window.first, total)


def list_conditions(request: ListRequest, lookups: Lookups) -> list[Condition]:
    """Return the conditions of a request's filters and of its search text.

    Raises:
        InvalidQueryError: the list has no such column or value.
    """
    wanted = _read(request, lookups)
    return [*wanted.conditions, *(one.fits for one in wanted.terms)]


async def read_rows(connection: Driver, statement: Statement, ids: str) -> list[dict[str, Any]]:
    """Return processes as they stand in a list, each with the first hundred subscriptions that it has touched.

    Args:
        ids: SQL for the ids, in their order; its parameters are in ``statement``.
    """
    rows = [dict(row) for row in await statement.fetch(connection, _ROWS.format(found=ids))]
    await _add_touched(connection, rows)
    return rows


async def _add_touched(connection: Driver, rows: Sequence[dict[str, Any]]) -> None:
    """Add to each process the first hundred subscriptions that it has touched: by one statement for the page."""
    found: dict[UUID, list[dict[str, Any]]] = {row["process_id"]: [] for row in rows}
    statement = Statement()
    for one in await statement.fetch(connection, _TOUCHED.format(ids=statement.add(list(found), "uuid[]"))):
        subscription = {name: one[name] for name in _OF_SUBSCRIPTION}
        found[one["process_id"]].append(subscription | {"product": {name: one[name] for name in _OF_ITS_PRODUCT}})
    for row in rows:
        row["subscriptions"] = found[row["process_id"]]


@dataclass(frozen=True, slots=True)
class _Listing:
    """The SQL of one list.

    Args:
        driver: the term whose processes are looked up first, if one has few.
    """

    conditions: Sequence[Condition]
    driver: Searched | None
    answers: Sequence[object]

    def source(self, statement: Statement, extra: str = "true", join: str = "") -> str:
        """Return the SQL from which rows are selected, and which."""
        tables = "processes p"
        if self.driver is not None:
            found = self.driver.found(statement, self.answers, "OFFSET 0")
            tables = f"(SELECT DISTINCT process_id FROM ({found}) u) d JOIN processes p USING (process_id)"  # noqa: S608
        where = " AND ".join([extra, *(one(statement, self.answers) for one in self.conditions)])
        return f"{tables} {join} WHERE {where}"

    def ordered(self, statement: Statement, order: str, needed: str) -> str:
        """Return the SQL of the ids in their order."""
        if order in _BY_CHANGE.values() and self.driver is None:
            resting = order.replace("updated_at", "rested_at")
            return (
                "SELECT p.process_id FROM ("  # noqa: S608 - built from constants
                f"(SELECT p.process_id, p.updated_at FROM {self.source(statement, RUNNING)})"
                " UNION ALL "
                f"(SELECT p.process_id, p.rested_at FROM {self.source(statement, 'p.rested_at IS NOT NULL')}"
                f" ORDER BY {resting} LIMIT {needed})) p ORDER BY {order}"
            )
        join = "JOIN workflows w USING (workflow_id)" if "w." in order else ""
        return f"SELECT p.process_id FROM {self.source(statement, join=join)} ORDER BY {order}"  # noqa: S608


RUNNING: Final = "p.status = 'running'"


def _read(request: ListRequest, lookups: Lookups) -> _Wanted:
    conditions = [COLUMNS.filter_by(one, lookups) for one in request.filters]
    terms = []
    for term in request.terms:
        in_column = COLUMNS.search_in(term, lookups) if term.column is not None else None
        if in_column is not None:
            conditions.append(negate(in_column) if term.negated else in_column)
            continue
        searched = search(term if term.column is None else term.without_column(), lookups)
        if term.negated:
            conditions.append(negate(searched.fits))
        else:
            terms.append(searched)
    return _Wanted(conditions, terms)
