"""Pages of schedules. There are thousands at most, so their table is read as a whole, and needs no index for this."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.lists.columns import (
    Choice,
    Columns,
    Condition,
    Flag,
    Id,
    Plain,
    Time,
    Words,
    any_of,
    has_words,
    negate,
)
from orchestrator.db.lists.page import COUNTED, Page, count, known_total
from orchestrator.db.lists.request import ListRequest, SortKey
from orchestrator.db.lists.statement import Lookups, Statement, open_list
from orchestrator.db.lists.subscriptions import is_id
from orchestrator.db.lists.words import Term, Text
from orchestrator.db.schedules import rows
from orchestrator.db.schedules.rows import StoredSchedule
from orchestrator.engine.schedule import Missed, Origin, Overlap, SlotResult

_PLAIN: Final = "s.name || ' ' || s.workflow || ' ' || coalesce(s.note, '')"
_NOTE: Final = "coalesce(s.note, '')"
# As services.schedule_reading.describe has it, but for a trigger that cannot be read: at its next slot a coordinator says so in
# the column ``broken``.
_STATE: Final = """
CASE WHEN NOT s.enabled THEN 'disabled'
     WHEN s.broken IS NOT NULL
          OR NOT EXISTS (SELECT FROM workflows w WHERE w.name = s.workflow AND w.deleted_at IS NULL) THEN 'broken'
     WHEN s.next_slot IS NULL THEN 'over'
     ELSE 'enabled' END
"""
_STATES: Final = ("enabled", "disabled", "broken", "over")

COLUMNS: Final = Columns(
    filters={
        "schedule_id": Id("s.schedule_id BETWEEN {first} AND {last}"),
        "name": Plain("s.name"),
        "workflow_name": Plain("s.workflow"),
        "origin": Choice("s.origin", tuple(one.value for one in Origin)),
        "enabled": Flag("s.enabled"),
        "state": Choice(_STATE, _STATES),
        "missed": Choice("s.missed", tuple(one.value for one in Missed)),
        "overlap": Choice("s.overlap", tuple(one.value for one in Overlap)),
        "note": Words(_NOTE, "s.words"),
        "last_result": Choice("s.last_result", tuple(one.value for one in SlotResult)),
        "next_run_time": Time("s.next_slot {compare}"),
        "due_at": Time("s.due_at {compare}"),
        "last_at": Time("s.last_at {compare}"),
        "created_by": Plain("s.created_by"),
        "created_at": Time("s.created_at {compare}"),
        "changed_by": Plain("s.changed_by"),
        "changed_at": Time("s.changed_at {compare}"),
    },
    sorts={
        "schedule_id": "s.schedule_id",
        "name": "s.name",
        "workflow_name": "s.workflow",
        "origin": "s.origin",
        "enabled": "s.enabled",
        "state": _STATE,
        "last_result": "s.last_result",
        "skips": "s.skips",
        "next_run_time": "s.next_slot",
        "due_at": "s.due_at",
        "last_at": "s.last_at",
        "created_by": "s.created_by",
        "created_at": "s.created_at",
        "changed_by": "s.changed_by",
        "changed_at": "s.changed_at",
    },
    nullable=frozenset({"s.last_result", "s.next_slot", "s.due_at", "s.last_at"}),
    aliases={"id": "schedule_id", "workflow": "workflow_name", "next_slot": "next_run_time", "status": "state"},
    key="s.schedule_id",
)
_BY_NAME: Final = SortKey("name", descending=False)

_ROWS: Final = text(
    f"SELECT {rows.COLUMNS} FROM schedules s WHERE schedule_id = ANY(CAST(:ids AS uuid[]))"  # noqa: S608
    " ORDER BY array_position(CAST(:ids AS uuid[]), schedule_id)"
)


async def page_schedules(session: AsyncSession, request: ListRequest) -> Page[StoredSchedule]:
    """Return a page of the schedules that were not removed, by their names unless the request says otherwise.

    Raises:
        InvalidQueryError: the list has no such column or value; the text names those that it has.
        QueryTimeoutError.
    """
    order = COLUMNS.order(request.sort, _BY_NAME)
    lookups = Lookups()
    conditions = [COLUMNS.filter_by(one, lookups) for one in request.filters]
    conditions += [_matching(term, lookups) for term in request.terms]
    async with open_list(session) as connection:
        answers = await lookups.read(connection)

        def where(statement: Statement) -> str:
            return " AND ".join(["s.deleted_at IS NULL", *(one(statement, answers) for one in conditions)])

        statement = Statement()
        fitting = where(statement)
        limit, offset = statement.add(request.window.count, "int"), statement.add(request.window.first, "int")
        found = await statement.fetch(
            connection,
            f"SELECT s.schedule_id FROM schedules s WHERE {fitting} ORDER BY {order} LIMIT {limit} OFFSET {offset}",  # noqa: S608
        )
        total = known_total(request.window, len(found))
        if total is None:
            total = await count(connection, f"schedules s WHERE {where(counter := Statement())}", counter, COUNTED)
    return Page(await _read(session, [row["schedule_id"] for row in found]), request.window.first, total)


async def _read(session: AsyncSession, ids: Sequence[UUID]) -> list[StoredSchedule]:
    return [StoredSchedule(**row) for row in (await session.execute(_ROWS, {"ids": list(ids)})).mappings()]


def _matching(term: Term, lookups: Lookups) -> Condition:
    condition = COLUMNS.search_in(term, lookups) if term.column is not None else None
    if condition is None:
        plain = term if term.column is None else term.without_column()
        condition = any_of(*(_has(one, lookups) for one in plain.texts))
    return negate(condition) if term.negated else condition


def _has(one: Text, lookups: Lookups) -> Condition:
    """Return the condition that a schedule's name, workflow or note has these words, or that its state or id is meant."""
    parts: list[Condition] = [lambda statement, _: has_words(statement, [one], ["s.words"], _PLAIN)]
    if any(one.fits(state) for state in _STATES):
        parts.append(COLUMNS.filters["state"].matching([one], lookups))
    if is_id(one):
        parts.append(COLUMNS.filters["schedule_id"].matching([one], lookups))
    return any_of(*parts)
