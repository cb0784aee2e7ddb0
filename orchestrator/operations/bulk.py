"""Retry or abort many processes: each in a transaction of its own, so that the refusal of one does not stop the others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.engine_lock import is_paused
from orchestrator.db.processes.filter import ProcessFilter
from orchestrator.db.processes.matching import Match, find_matching
from orchestrator.db.processes.rows import load_process
from orchestrator.db.session import Database, is_connection_error
from orchestrator.engine.events import Aborted, Retried
from orchestrator.engine.transitions import TRANSITIONS
from orchestrator.errors import (
    ConflictError,
    DefinitionError,
    EnginePausedError,
    InvalidInputError,
    RequestError,
)
from orchestrator.messages import Advanced
from orchestrator.services import control
from orchestrator.settings import Limits
from orchestrator.types import ProcessStatus

logger = structlog.get_logger(__name__)

AT_ONCE: Final = 3
"""Processes that are handled at the same time: most of the program's connections are left to others."""

MOST: Final = 10_000
"""Processes of one call."""

Act = Callable[[AsyncSession], Awaitable[Advanced]]
Change = Callable[[str, Act], Awaitable[Advanced]]
"""Carries out an act about a process of this workflow."""
"""Runs a use case in a transaction of its own and notifies the coordinators once it has committed."""


class BulkAction(StrEnum):
    """What can be done to many processes."""

    RETRY = "retry"
    ABORT = "abort"


_EVENTS: Final[Mapping[BulkAction, type]] = {BulkAction.RETRY: Retried, BulkAction.ABORT: Aborted}


@dataclass(frozen=True, slots=True)
class Selection:
    """The processes that an action is for.

    Args:
        matched: how many there are; ``found`` are those that one call takes on.
    """

    action: BulkAction
    matched: int
    found: Sequence[Match]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the action was not done to a process; ``key`` is the reason's stable name."""

    process_id: UUID
    workflow: str
    key: str
    detail: str


@dataclass(frozen=True, slots=True)
class BulkOutcome:
    """What came of it.

    Args:
        left: how many more would have fitted than one call takes on.
    """

    matched: int
    done: int
    refusals: Sequence[Refusal]
    left: int


async def select_processes(
    database: Database, action: BulkAction, wanted: ProcessFilter, limit: int = MOST
) -> Selection:
    """Find the processes for an action: those that fit, and are in a status that allows it.

    Raises:
        InvalidInputError: nothing is said about which, or a status does not allow the action.
        EnginePausedError: no process is retried now.
    """
    if wanted.is_empty:
        raise InvalidInputError(
            f"say which processes to {action.value}: by status, workflow, step, kind, time, subscription, customer or assignee"
        )
    allowed = [status.value for status in TRANSITIONS[_EVENTS[action]]]
    wrong = [status for status in wanted.statuses if status not in allowed]
    if wrong:
        raise InvalidInputError(
            f"a process that is {wrong[0]} cannot be the target of {action.value!r}: use {', '.join(allowed)}"
        )
    async with database.transaction() as session:
        if action is BulkAction.RETRY and await is_paused(session):
            raise EnginePausedError(
                "the engine is paused: no process is retried until it is unpaused; its status says who has paused it, and why"
            )
        matched, found = await find_matching(session, replace(wanted, statuses=wanted.statuses or allowed), limit)
    return Selection(action, matched, found)


async def act_on_all(
    selection: Selection, change: Change, user: str, limits: Limits, reason: str | None = None
) -> BulkOutcome:
    """Do the action to each process of a selection. One that has changed since then is left alone, and is a refusal.

    Raises:
        a connection error: the database is away. What was done is done, and repeating the call does the rest.
    """
    few = asyncio.Semaphore(AT_ONCE)
    refusals: list[Refusal] = []

    async def handle(match: Match) -> None:
        async with few:
            try:
                await change(
                    match.workflow, lambda session: _act(session, selection.action, match, user, limits, reason)
                )
            except (RequestError, DefinitionError) as error:
                key = error.key if isinstance(error, RequestError) else "definition"
                refusals.append(Refusal(match.process_id, match.workflow, key, str(error)))
            except Exception as error:
                if is_connection_error(error):
                    raise
                # A bug in the engine, about one process.
                logger.exception("bulk action failed", process_id=str(match.process_id), workflow=match.workflow)
                detail = "it has failed; the program's log says why"
                refusals.append(Refusal(match.process_id, match.workflow, "defect", detail))

    try:
        async with asyncio.TaskGroup() as tasks:
            for match in selection.found:
                tasks.create_task(handle(match))
    except* Exception as group:
        raise group.exceptions[0] from None
    taken = len(selection.found)
    return BulkOutcome(selection.matched, taken - len(refusals), refusals, selection.matched - taken)


async def _act(
    session: AsyncSession, action: BulkAction, match: Match, user: str, limits: Limits, reason: str | None
) -> Advanced:
    if action is BulkAction.RETRY:
        return await control.retry(session, match.process_id, user, limits, seen=match.sequence)
    now = await load_process(session, match.process_id, lock=True)
    # Of a running one every step is news, and none of it a reason to let it go on.
    if now.status.value != match.status or (now.sequence != match.sequence and now.status != ProcessStatus.RUNNING):
        raise ConflictError(f"the process has changed since it was found: it is {now.status.value} now")
    return await control.abort(session, match.process_id, user, limits, reason)
