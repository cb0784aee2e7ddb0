"""Handle completion messages from external systems: accept them, keep early ones, or refuse them with a reason."""

from __future__ import annotations

import json
from dataclasses import replace
from uuid import UUID

import structlog
from pydantic_core import from_json, to_json
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db import callbacks
from orchestrator.db.callbacks import StoredCallback
from orchestrator.db.notices import Change, Notice, notify
from orchestrator.db.processes.due import make_due
from orchestrator.db.processes.rows import load_process
from orchestrator.db.session import read_time
from orchestrator.engine.events import CallbackCompleted, CallbackFailed, Event, Failure
from orchestrator.engine.process import Process
from orchestrator.engine.state import (
    MAX_NESTING,
    check_size,
    describe_nesting,
    measure_nesting,
    read_object,
    store_and_read,
)
from orchestrator.errors import (
    CallbackRefusedError,
    ConflictError,
    DefinitionError,
    InvalidInputError,
    InvalidResultError,
    MessageError,
    NotFoundError,
    PlanMismatchError,
)
from orchestrator.messages import Advanced
from orchestrator.registry import plan_of
from orchestrator.services.plans import find_move
from orchestrator.services.results import decide_or_fail, store
from orchestrator.settings import Limits
from orchestrator.text import cut, sanitise, shorten
from orchestrator.types import JSON, ProcessStatus, State

logger = structlog.get_logger(__name__)

COMPLETED, FAILED = "completed", "failed"
"""The outcomes that an external system can report."""

UNUSABLE = "unusable"
"""The outcome that is kept of an answer that no state could hold: its sender would only send the same again."""

MAX_DETAILS = 64_000
"""Bytes of JSON of a progress report, and of what a failed job says of itself: people read them. A result may have more."""

_REASON = "error"
"""The key of a payload under which an external system says why its job failed."""

_REFUSALS = {
    "used": "this callback was already answered",
    "failed": "this callback was already answered",
    "superseded": "this callback was superseded: the step was retried, skipped, rewound or aborted",
    "expired": "this callback's deadline has passed",
}


async def receive(
    session: AsyncSession,
    token: str | bytes,
    outcome: str,
    body: bytes,
    limits: Limits,
    *,
    process_id: UUID | None = None,
    note: str | None = None,
) -> Advanced | None:
    """Accept an external system's answer. One that is nested too deeply for the state fails its step.

    Args:
        token: or its SHA-256, which is all that a dead letter keeps of it.
        process_id: the process that the sender names; with the token of another one the callback is unknown.
        note: what the log is to say about the answer. Nothing keeps it for later: such an answer is applied now, or refused.

    Returns:
        The message to publish, or ``None`` when the answer came before the action's commit: then it is kept, and applied
        when the process parks.

    Raises:
        CallbackRefusedError: the token is unknown, or its callback is closed.
        MessageError: the body is not a JSON object.
        InvalidInputError: the payload cannot enter a state.
        ConflictError: there is a note, and the process does not wait yet.
        NotFoundError, DefinitionError, PlanMismatchError: there is a note, and this program cannot apply the answer.
    """
    outcome, payload = _read_answer(outcome, body)
    callback, process = await _lock(session, token, process_id)
    _require_open(callback)
    if callback.outcome is not None:
        raise CallbackRefusedError("used", _REFUSALS["used"])
    if callback.deadline is not None and callback.deadline <= await read_time(session):
        raise CallbackRefusedError("expired", _REFUSALS["expired"])
    is_parked = process.status is ProcessStatus.AWAITING_CALLBACK and callback.status == "parked"
    if note is not None and not is_parked:
        raise ConflictError(
            "the process does not wait for its callback yet: answer it once its page says that it waits"
        )
    await callbacks.store_answer(session, callback, outcome, payload)
    if not is_parked:
        return None
    answered = replace(callback, outcome=outcome, payload=payload)
    try:
        return await apply_answer(session, process, answered, limits, note)
    except (NotFoundError, DefinitionError, PlanMismatchError) as error:
        if note is not None:
            raise
        # A rolling deploy: another coordinator has the code and finds the answer, because the process is due.
        logger.warning("answer kept for another coordinator", error=str(error))
        await make_due(session, process.process_id)
        return None


async def report_progress(
    session: AsyncSession, token: str | bytes, body: bytes, *, process_id: UUID | None = None
) -> None:
    """Store the newest progress report of an external job, for operators to see.

    Args:
        process_id: as for :func:`receive`.

    Raises:
        CallbackRefusedError, InvalidInputError, MessageError: as :func:`receive`.
    """
    if len(body) > MAX_DETAILS:
        raise InvalidInputError(f"the progress report has {len(body)} bytes: {MAX_DETAILS} are the limit")
    progress = _read_payload(body, "the progress report")
    callback, process = await _lock(session, token, process_id)
    _require_open(callback)
    await callbacks.store_progress(session, callback, progress)
    # It is not in the log, and so no event.
    await notify(session, Notice(Change.PROCESSES, process.process_id))


async def apply_answer(
    session: AsyncSession, process: Process, callback: StoredCallback, limits: Limits, note: str | None = None
) -> Advanced:
    """Let a parked process continue with the answer in its callback; both are locked.

    Args:
        note: what the log is to say about it.

    Raises:
        PlanMismatchError: the process has another plan, and this program may not move it.
    """
    plan = plan_of(process.workflow)
    move = await find_move(session, plan, process)
    try:
        decision = decide_or_fail(plan, process, _event(callback, note), move)
        if callback.outcome == COMPLETED:
            check_size(decision.process.state, soft=limits.state_soft_limit, hard=limits.state_hard_limit)
    except InvalidResultError as error:
        # The token is used: the sender cannot send another answer, and a process that kept waiting would wait for ever.
        failure = Failure(type(error).__name__, f"the callback's answer cannot be taken: {error}")
        decision = decide_or_fail(plan, process, CallbackFailed(callback.position, failure, note), move)
    return await store(session, plan, process, decision, limits)


def _require_open(callback: StoredCallback) -> None:
    if callback.status not in {"open", "parked"}:
        raise CallbackRefusedError(
            callback.status, _REFUSALS.get(callback.status, f"this callback is {callback.status}")
        )


def _read_answer(outcome: str, body: bytes) -> tuple[str, State]:
    """Return an answer as it is stored. It stands within the state, or within the details of a failure."""
    nesting = measure_nesting(body) + 1
    if nesting > MAX_NESTING and _is_json(body):
        problem = describe_nesting(nesting)
        return (UNUSABLE, {_REASON: problem}) if outcome == COMPLETED else (outcome, _keep_reason(body, problem))
    payload = _read_payload(body, "the callback")
    return outcome, payload if outcome == COMPLETED else _bound_failure(payload, len(body))


def _bound_failure(payload: State, size: int) -> State:
    """Return what an external system says about its failure, as it is stored: an answer is not refused for its words."""
    reason = _read_reason(payload)
    said = payload if reason is None else {**payload, _REASON: shorten(reason)}
    if size <= MAX_DETAILS or len(to_json(said)) <= MAX_DETAILS:
        return said
    about = f"the rest of the answer, which has {size} bytes: {MAX_DETAILS} are the limit"
    # Whatever it is: a reason need not be a text.
    is_kept = _REASON in said and len(to_json(said[_REASON])) < MAX_DETAILS
    return {**({_REASON: said[_REASON]} if is_kept else {}), "left_out": about}


def _keep_reason(body: bytes, problem: str) -> State:
    """Return what is kept of a failure that cannot be stored: its reason, and why the rest is left out."""
    reason = _read_reason(read_object(body.decode(errors="replace").strip())[0])
    said = {} if reason is None else {_REASON: sanitise(shorten(reason))}
    return {**said, "left_out": f"the rest of the answer: {problem}"}


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except RecursionError:
        return True
    except ValueError:
        return False
    return True


def _read_payload(body: bytes, what: str) -> State:
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise MessageError(f"the body is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise MessageError("the body must be a JSON object")
    try:
        found = store_and_read(value)
    except ValueError as error:
        raise InvalidInputError(f"{what} cannot be stored as JSON: {error}") from error
    assert isinstance(found, dict)  # noqa: S101 - a dict was written
    return found


def _event(callback: StoredCallback, note: str | None) -> Event:
    """Return the event that an answer stands for.

    Raises:
        InvalidResultError: it cannot enter the state.
    """
    if callback.unreadable is not None:
        raise InvalidResultError(f"it cannot be read: {callback.unreadable}")
    if callback.outcome == UNUSABLE:
        raise InvalidResultError(str(_read_reason(callback.payload)))
    try:
        # Rows may be older than this rule.
        payload = store_and_read(callback.payload, within=1)
    except ValueError as error:
        raise InvalidResultError(str(error)) from error
    if callback.outcome == COMPLETED:
        return CallbackCompleted(callback.position, payload, note)
    return CallbackFailed(callback.position, _failure(payload), note)


def _read_reason(payload: JSON) -> str | None:
    text = payload.get(_REASON) if isinstance(payload, dict) else None
    return text if isinstance(text, str) and text else None


def _failure(payload: JSON) -> Failure:
    reason = _read_reason(payload)
    if reason is None:
        # Its sender has its own words for why, or none. It is no dead letter: the process would wait for an answer that came.
        said = cut(to_json(payload).decode())
        reason = f"it sent {said}, without a text under {_REASON!r}, which would stand here"
    return Failure("CallbackFailedError", shorten(f"the external system reports failure: {reason}"), details=payload)


async def _lock(session: AsyncSession, token: str | bytes, named: UUID | None) -> tuple[StoredCallback, Process]:
    """Lock the process that a token belongs to, then the callback: all transactions lock in this order."""
    process_id = await callbacks.find_process_by_token(session, token)
    if process_id is None or named not in {None, process_id}:
        raise CallbackRefusedError("unknown", "there is no such callback token")
    process = await load_process(session, process_id, lock=True)
    # For every log line about this message from here on.
    structlog.contextvars.bind_contextvars(process_id=str(process_id), workflow=process.workflow, step=process.step)
    callback = await callbacks.lock_by_token(session, token)
    if callback is None:
        raise CallbackRefusedError("unknown", "there is no such callback token")
    return callback, process
