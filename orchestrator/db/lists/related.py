"""Lists that belong to rows of a page: the subscriptions of each process or product, the processes of each subscription.

One statement reads the part of the list that is asked for, for all rows of the page; another counts them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.lists import processes, subscriptions
from orchestrator.db.lists.columns import Columns, Condition
from orchestrator.db.lists.page import COUNTED
from orchestrator.db.lists.request import ListRequest, SortKey
from orchestrator.db.lists.statement import Lookups, Statement, open_list
from orchestrator.db.session import Driver


@dataclass(frozen=True, slots=True, eq=False)
class Relation:
    """Rows of a list that belong to another row.

    Args:
        source: SQL of the rows; ``{where}`` is a further condition, ``parent.id`` the row that they belong to.
        key: of the list.
        joins: for orders by a column of another table, by the alias of that table.
    """

    source: str
    key: str
    columns: Columns
    newest: SortKey
    joins: Mapping[str, str]
    list_conditions: Callable[[ListRequest, Lookups], list[Condition]]
    read_rows: Callable[[Driver, Statement, str], Any]


def _of_subscriptions(source: str) -> Relation:
    return Relation(
        source,
        "s.subscription_id",
        subscriptions.COLUMNS,
        subscriptions.NEWEST,
        {"p.": "JOIN products p USING (product_id)"},
        subscriptions.list_conditions,
        subscriptions.read_rows,
    )


OF_PROCESSES: Final = _of_subscriptions(
    "processes_subscriptions link JOIN subscriptions s USING (subscription_id) {join} WHERE link.process_id = parent.id"
)
"""The subscriptions that processes have touched."""

OF_PRODUCTS: Final = _of_subscriptions("subscriptions s {join} WHERE s.product_id = parent.id")
"""The subscriptions of products."""

# As in db/subscriptions/neighbours.py, for the reasons that are given there.
USING: Final = _of_subscriptions(
    """(
    SELECT DISTINCT found.subscription_id
      FROM subscription_instances own
     CROSS JOIN LATERAL (
           SELECT owner.subscription_id
             FROM subscription_instance_relations relation
            CROSS JOIN LATERAL (SELECT subscription_id FROM subscription_instances
                                 WHERE subscription_instance_id = relation.in_use_by_id LIMIT 1) owner
            WHERE relation.depends_on_id BETWEEN own.subscription_instance_id AND own.subscription_instance_id
            UNION ALL
           SELECT root.subscription_id FROM subscription_roots root
            WHERE root.depends_on_id BETWEEN own.subscription_instance_id AND own.subscription_instance_id
           OFFSET 0) found
     WHERE own.subscription_id = parent.id AND found.subscription_id <> parent.id
     OFFSET 0) users JOIN subscriptions s USING (subscription_id) {join} WHERE true"""
)
"""The subscriptions that use blocks of others."""

PROCESSES: Final = Relation(
    "processes_subscriptions link JOIN processes p USING (process_id) {join} WHERE link.subscription_id = parent.id",
    "p.process_id",
    processes.COLUMNS,
    processes.NEWEST,
    {"w.": "JOIN workflows w USING (workflow_id)"},
    processes.list_conditions,
    processes.read_rows,
)
"""The processes that have touched subscriptions."""


async def read_related(
    session: AsyncSession, relation: Relation, parents: Sequence[UUID], request: ListRequest
) -> dict[UUID, list[dict[str, Any]]]:
    """Return for each row the part of its list that the request asks for, the newest first unless it says otherwise.

    Raises:
        InvalidQueryError, QueryTimeoutError.
    """
    order = relation.columns.order(request.sort, relation.newest)
    lookups = Lookups()
    conditions = relation.list_conditions(request, lookups)
    async with open_list(session) as connection:
        answers = await lookups.read(connection)
        statement = Statement()
        ids, limit = statement.add(list(parents), "uuid[]"), statement.add(request.window.count, "int")
        source = _source(relation, order, conditions, statement, answers)
        sql = (
            f"SELECT parent.id, ARRAY(SELECT {relation.key} FROM {source} ORDER BY {order} LIMIT {limit}"  # noqa: S608
            f" OFFSET {statement.add(request.window.first, 'int')}) AS found FROM unnest({ids}) parent(id)"
        )
        found: dict[UUID, list[UUID]] = {row["id"]: row["found"] for row in await statement.fetch(connection, sql)}
        shown = Statement()
        wanted = list(dict.fromkeys(one for several in found.values() for one in several))
        name = relation.key.rpartition(".")[2]
        rows = await relation.read_rows(
            connection,
            shown,
            f"SELECT unnest({shown.add(wanted, 'uuid[]')}) AS {name}",
        )
    by_id = {row[name]: row for row in rows}
    return {parent: [by_id[one] for one in several if one in by_id] for parent, several in found.items()}


async def count_related(
    session: AsyncSession, relation: Relation, parents: Sequence[UUID], request: ListRequest
) -> dict[UUID, int | None]:
    """Return for each row how many rows its list has, ``None`` for more than are counted.

    Raises:
        InvalidQueryError, QueryTimeoutError.
    """
    lookups = Lookups()
    conditions = relation.list_conditions(request, lookups)
    async with open_list(session) as connection:
        answers = await lookups.read(connection)
        statement = Statement()
        ids, most = statement.add(list(parents), "uuid[]"), statement.add(COUNTED + 1, "int")
        source = _source(relation, "", conditions, statement, answers)
        sql = (
            f"SELECT parent.id, (SELECT count(*) FROM (SELECT FROM {source} LIMIT {most}) f) AS total"  # noqa: S608
            f" FROM unnest({ids}) parent(id)"
        )
        rows = await statement.fetch(connection, sql)
    return {row["id"]: row["total"] if row["total"] <= COUNTED else None for row in rows}


def _source(
    relation: Relation, order: str, conditions: Sequence[Condition], statement: Statement, answers: Sequence[object]
) -> str:
    join = "".join(sql for alias, sql in relation.joins.items() if alias in order)
    where = "".join(f" AND ({one(statement, answers)})" for one in conditions)
    return relation.source.format(join=join) + where
