"""Completion messages from external systems: accepted, kept because they are early, or refused with the reason."""

from __future__ import annotations

import structlog
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.processes import rows as processes
from orchestrator.db.processes.advance import hash_token
from orchestrator.db.processes.due import database_time
from orchestrator.db.tables import CallbackRow, ProcessRow
from orchestrator.engine.events import CallbackCompleted, CallbackFailed, Event, Failure
from orchestrator.engine.process import Process
from orchestrator.engine.state import canonical, check_size
from orchestrator.errors import (
    CallbackRefusedError,
    DefinitionError,
    InvalidInputError,
    InvalidResultError,
    NotFoundError,
)
from orchestrator.messages import Advanced
from orchestrator.registry import plan_of
from orchestrator.services.results import caught_up, due_in, judge
from orchestrator.services.start import StartLimits
from orchestrator.types import JSON, ProcessStatus, State

logger = structlog.get_logger(__name__)

COMPLETED, FAILED = "completed", "failed"
"""The outcomes that an external system can report."""

_REFUSALS = {
    "used": "this callback was already answered",
    "failed": "this callback was already answered",
    "superseded": "this callback is no longer wanted: the step was retried, skipped or aborted",
    "expired": "this callback's deadline has passed",
}


async def receive(
    session: AsyncSession, token: str, outcome: str, payload: State, limits: StartLimits
) -> Advanced | None:
    """Take an external system's answer.

    Returns:
        What to publish, or ``None`` when the answer came before the action's commit: it is kept, and consumed when the
        process parks.

    Raises:
        CallbackRefusedError: the token is unknown, or its answer is not wanted (any more).
        InvalidInputError: the payload cannot enter a state.
    """
    row, process = await _lock(session, token)
    if row.status not in {"open", "parked"}:
        raise CallbackRefusedError(row.status, _REFUSALS.get(row.status, f"this callback is {row.status}"))
    if row.outcome is not None:
        raise CallbackRefusedError("used", _REFUSALS["used"])
    try:
        payload = canonical(payload, "the callback")
    except InvalidResultError as error:
        raise InvalidInputError(str(error)) from error
    if row.deadline is not None and row.deadline <= await database_time(session):
        raise CallbackRefusedError("expired", _REFUSALS["expired"])
    row.outcome, row.payload, row.received_at = outcome, payload, func.now()
    await session.flush()
    if process.status is not ProcessStatus.AWAITING_CALLBACK or row.status != "parked":
        return None
    try:
        plan_of(process.workflow)
    except (NotFoundError, DefinitionError) as error:
        # A rolling deploy: another coordinator has the code, and finds the answer when it looks.
        logger.error("answer kept: this coordinator lacks the workflow", error=str(error))  # noqa: TRY400
        due = await session.get_one(ProcessRow, process.process_id)
        due.due_at = due.wake_at = func.now()
        return None
    return await apply_answer(session, process, row, limits)


async def report_progress(session: AsyncSession, token: str, progress: State) -> None:
    """Keep the newest progress report of an external job, for people to see.

    Raises:
        CallbackRefusedError, InvalidInputError: as :func:`receive`.
    """
    row, _ = await _lock(session, token)
    if row.status not in {"open", "parked"}:
        raise CallbackRefusedError(row.status, _REFUSALS.get(row.status, f"this callback is {row.status}"))
    try:
        row.progress = canonical(progress, "the progress report")
    except InvalidResultError as error:
        raise InvalidInputError(str(error)) from error


async def apply_answer(session: AsyncSession, process: Process, row: CallbackRow, limits: StartLimits) -> Advanced:
    """Let a parked process go on with the answer in ``row``; both are locked."""
    plan = plan_of(process.workflow)
    event: Event
    if row.outcome == COMPLETED:
        event = CallbackCompleted(row.position, row.payload)
    else:
        event = CallbackFailed(row.position, _failure(row.payload))
    decision = judge(plan, process, event)
    try:
        if row.outcome == COMPLETED:
            check_size(decision.process.state, soft=limits.state_soft_limit, hard=limits.state_hard_limit)
    except InvalidResultError as error:
        # The answer is used up: its sender cannot give a smaller one, and a process that waited on would wait for ever.
        failure = Failure(type(error).__name__, f"the callback's answer cannot be taken: {error}")
        decision = judge(plan, process, CallbackFailed(row.position, failure))
    at = await processes.store(session, process, decision, due_in=due_in(decision, limits.redispatch_after))
    return await caught_up(session, plan, decision, at)


def _failure(payload: JSON) -> Failure:
    text = payload.get("error") if isinstance(payload, dict) else None
    words = text if isinstance(text, str) and text else "the external system gave no reason"
    return Failure("CallbackFailedError", f"the external system reports failure: {words}", details=payload)


async def _lock(session: AsyncSession, token: str) -> tuple[CallbackRow, Process]:
    """The callback and its process, locked in the order that everybody keeps: process, then callback."""
    hashed = hash_token(token)
    process_id = await session.scalar(select(CallbackRow.process_id).where(CallbackRow.token_hash == hashed))
    if process_id is None:
        raise CallbackRefusedError("unknown", "there is no such callback token")
    process = await processes.load(session, process_id, lock=True)
    # For whatever is logged about this message from here on, by whoever received it.
    structlog.contextvars.bind_contextvars(process_id=str(process_id), workflow=process.workflow, step=process.step)
    query = select(CallbackRow).where(CallbackRow.token_hash == hashed).with_for_update()
    row = await session.scalar(query.execution_options(populate_existing=True))
    if row is None:
        raise CallbackRefusedError("unknown", "there is no such callback token")
    return row, process
