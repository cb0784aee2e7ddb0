"""Control a process that exists: resume, retry, abort, patch, skip, rewind."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.authorization import Action, Attempted
from orchestrator.db.engine_lock import is_paused
from orchestrator.db.processes.idempotency import Command, is_repeated, record_command
from orchestrator.db.processes.queries import read_past
from orchestrator.db.processes.rows import load_process
from orchestrator.db.subscriptions.locks import list_locked
from orchestrator.engine.decide import decide
from orchestrator.engine.events import Aborted, Event, Patched, Retried, Rewound, StepSkipped, Submitted
from orchestrator.engine.plan import Plan
from orchestrator.engine.process import Process
from orchestrator.engine.rewind import plan_rewind
from orchestrator.engine.transitions import require_allowed, require_possible
from orchestrator.errors import (
    ConflictError,
    EnginePausedError,
    FormIncompleteError,
    IllegalTransitionError,
    InvalidInputError,
    InvalidResultError,
    NotFoundError,
    StepError,
    WorkflowChangedError,
)
from orchestrator.messages import Advanced
from orchestrator.registry import plan_of
from orchestrator.services.hooks import authorize, check_input, check_pages, run_form
from orchestrator.services.injection import load_arguments
from orchestrator.services.plans import find_move
from orchestrator.services.reconcile import look
from orchestrator.services.results import make_stamp, store
from orchestrator.services.texts import check_text, require_reason
from orchestrator.settings import Limits
from orchestrator.text import MAX_REASON, count_more
from orchestrator.types import JSON, ProcessStatus, State
from orchestrator.workflow import StepKind

_NAMED = 20
"""Subscriptions that the entry of an abort names."""


async def resume(
    session: AsyncSession,
    process_id: UUID,
    inputs: Sequence[State],
    user: str,
    limits: Limits,
    *,
    key: str | None = None,
    seen: int | None = None,
) -> Advanced:
    """Give a suspended process its input; retry a failed or waiting one.

    Args:
        key: a repeated command with the same key changes nothing and returns the process as it is then.
        seen: the newest log entry that the caller knows of, ``None`` for no check. So with the functions below.

    Raises:
        NotFoundError, InvalidInputError, FormIncompleteError, EnginePausedError.
        ForbiddenError: the user may not do this (so with the functions below, except abort).
        ConflictError: the process waits for no input and has not failed, or another request was faster; the key was used
            for a different command.
        PlanMismatchError: the process has another plan, and this program may not move it (so with retry and skip).
    """
    check_pages(inputs)
    process = await load_process(session, process_id)
    command = Command(process_id, key, ("resume", list(inputs), seen))
    # After the process was read: a request that moved it with this key has committed both together.
    if await is_repeated(session, command):
        return await _answer_repeated(session, process_id, limits)
    await _check(session, process, seen)
    if process.status is not ProcessStatus.SUSPENDED:
        if any(inputs):
            raise IllegalTransitionError(f"a process that is {process.status.value} takes no input")
        await _authorize(session, process, user, Action.RETRY)
        return await _apply(session, process, Retried(user), limits, command)
    await _authorize(session, process, user, Action.RESUME)
    delta = await _collect_input(session, process, inputs, limits)
    return await _apply(session, process, Submitted(user, delta), limits, command)


async def retry(
    session: AsyncSession, process_id: UUID, user: str, limits: Limits, *, seen: int | None = None
) -> Advanced:
    """Try a failed or waiting process again, from the state after its last successful step.

    Raises:
        NotFoundError, EnginePausedError.
        ConflictError: it is neither failed nor waiting, or another request was faster.
    """
    process = await load_process(session, process_id)
    await _check(session, process, seen)
    await _authorize(session, process, user, Action.RETRY)
    return await _apply(session, process, Retried(user), limits)


async def abort(
    session: AsyncSession,
    process_id: UUID,
    user: str,
    limits: Limits,
    reason: str | None = None,
    *,
    key: str | None = None,
) -> Advanced:
    """End a process at once; the writes of a step that is running are rolled back.

    Subscriptions that it holds stay out of sync, because the engine does not know how far its external work has come; the
    log names them.

    Args:
        key: as in :func:`resume`.

    Raises:
        NotFoundError.
        InvalidInputError: the reason is too long, or cannot be stored.
        ConflictError: it is final already; the key was used for a different command.
    """
    if reason is not None:
        check_text(reason, "the reason", MAX_REASON)
    process = await load_process(session, process_id, lock=True)
    command = Command(process_id, key, ("abort", reason))
    if await is_repeated(session, command):
        return await _answer_repeated(session, process_id, limits)
    left = await list_locked(session, process_id)
    if left:
        more = [count_more(len(left) - _NAMED)] if len(left) > _NAMED else []
        names = ", ".join([*map(str, left[:_NAMED]), *more])
        note = f"leaves out of sync: {names} ('orchestrator subscriptions set-in-sync' once you have checked them)"
        reason = f"{reason}; {note}" if reason else note
    return await _apply(session, process, Aborted(user, reason), limits, command)


async def patch(
    session: AsyncSession,
    process_id: UUID,
    user: str,
    reason: str,
    changes: Mapping[str, JSON],
    removed: Sequence[str],
    limits: Limits,
    *,
    seen: int | None = None,
) -> Advanced:
    """Correct the state of a failed or suspended process; the log records the change in an entry of its own.

    Raises:
        NotFoundError, InvalidInputError.
        ConflictError: the process is in another status.
    """
    reason = require_reason(reason)
    process = await load_process(session, process_id)
    _refuse_if_moved(process, seen)
    await _authorize(session, process, user, Action.PATCH)
    delta = check_input(changes, "the patch", limits, process.state)
    unknown = [key for key in removed if key not in process.state and key not in process.unreadable]
    if unknown:
        raise InvalidInputError(f"the state has no key {unknown[0]!r} to remove")
    both = [key for key in removed if key in delta]
    if both:
        raise InvalidInputError(f"the key {both[0]!r} is both set and removed")
    if not delta and not removed:
        raise InvalidInputError("the patch changes nothing: set or remove a key")
    return await _apply(session, process, Patched(user, reason, delta, tuple(removed)), limits)


async def skip(
    session: AsyncSession, process_id: UUID, user: str, reason: str, limits: Limits, *, seen: int | None = None
) -> Advanced:
    """Skip the step at which a process has failed and continue after it.

    Raises:
        NotFoundError, InvalidInputError, EnginePausedError.
        ConflictError: the process has not failed.
    """
    reason = require_reason(reason)
    process = await load_process(session, process_id)
    await _check(session, process, seen)
    await _authorize(session, process, user, Action.SKIP)
    return await _apply(session, process, StepSkipped(user, reason), limits)


async def rewind(
    session: AsyncSession,
    process_id: UUID,
    user: str,
    step: str,
    reason: str,
    limits: Limits,
    *,
    seen: int | None = None,
) -> Advanced:
    """Take a process that rests back to an earlier step, with the state as it was after the step before it.

    Subscriptions and external systems stay as they are: only the state and the place go back.

    Raises:
        NotFoundError, EnginePausedError.
        InvalidInputError: there is no reason, or no such step.
        ConflictError: it runs or is final; it has not come to the step; another request was faster.
    """
    reason = require_reason(reason)
    process = await load_process(session, process_id)
    await _check(session, process, seen)
    require_possible(process, Rewound)
    await _authorize(session, process, user, Action.REWIND)
    entries = await read_past(session, process_id)
    event = plan_rewind(plan_of(process.workflow), process, entries, step, user, reason)
    return await _apply(session, process, event, limits)


async def input_form(session: AsyncSession, process_id: UUID) -> JSON:
    """Return the JSON schema of the first page that a suspended process waits for; ``None`` when it waits for none.

    Raises:
        NotFoundError.
        PlanMismatchError: the form belongs to the plan of another program.
    """
    process = await load_process(session, process_id)
    if process.status is not ProcessStatus.SUSPENDED:
        return None
    await find_move(session, plan_of(process.workflow), process)
    try:
        await _fill(session, process, [])
    except InvalidInputError as error:
        return getattr(error, "form", None)
    return None


async def find_page(
    session: AsyncSession, process_id: UUID, inputs: Sequence[State], user: str
) -> FormIncompleteError | None:
    """Return the page that a suspended process asks for after these, as its error has it; ``None`` when these are all.

    Nothing is changed, also when these are all.

    Raises:
        NotFoundError.
        InvalidInputError: one of the pages does not fit.
        ForbiddenError: the user may not give the input.
        ConflictError: the process waits for no input.
        PlanMismatchError: the form belongs to the plan of another program.
    """
    check_pages(inputs)
    process = await load_process(session, process_id)
    if process.status is not ProcessStatus.SUSPENDED:
        raise ConflictError(f"the process waits for no input: it is {process.status.value}")
    await find_move(session, plan_of(process.workflow), process)
    await _authorize(session, process, user, Action.RESUME)
    try:
        await _fill(session, process, inputs)
    except FormIncompleteError as error:
        return FormIncompleteError(error.form, process.sequence, meta=error.meta)
    return None


async def try_form(session: AsyncSession, process: Process) -> None:
    """Make the first page of the form that a suspended process waits for, whoever may show it.

    Raises:
        ConflictError, DefinitionError: it cannot be made.
    """
    with contextlib.suppress(InvalidInputError):
        await _fill(session, process, [])


async def _apply(
    session: AsyncSession, process: Process, event: Event, limits: Limits, command: Command | None = None
) -> Advanced:
    plan = plan_of(process.workflow)
    # The row is locked only now: forms and authorization callbacks ran before, and may have taken long. A lock held for so
    # long would block an abort, and a whole batch of other steps' commits.
    now = await load_process(session, process.process_id, lock=True)
    if command is not None and await is_repeated(session, command):
        # Delivered twice at the same time: the other delivery has just been carried out.
        return await _answer_repeated(session, process.process_id, limits)
    if (now.sequence, now.attempt) != (process.sequence, process.attempt):
        # First of all it may be in a status by now that does not allow this; that says more.
        require_allowed(now, event)
        raise ConflictError("the process has changed in the meantime: look at it again")
    # These two need no plan, so that an operator can always end or correct a process.
    move = None if isinstance(event, Aborted | Patched) else await find_move(session, plan, now)
    try:
        decision = decide(plan, now, event, make_stamp(), move)
    except WorkflowChangedError as error:
        raise ConflictError(str(error)) from error
    message = await store(session, plan, process, decision, limits)
    if command is not None:
        await record_command(session, command, process.sequence + 1)
    return message


async def _answer_repeated(session: AsyncSession, process_id: UUID, limits: Limits) -> Advanced:
    """Answer a repeated command with what is due, because the program that carried it out may have died before it published."""
    message = await look(session, process_id, limits)
    if message is None:
        raise NotFoundError(f"there is no process {process_id}")
    return message


async def _check(session: AsyncSession, process: Process, seen: int | None) -> None:
    _refuse_if_moved(process, seen)
    if await is_paused(session):
        raise EnginePausedError(
            "the engine is paused: no process is resumed until it is unpaused; its status says who has paused it, and why"
        )
    if not process.status.is_final:
        # Before authorization callbacks and forms: those of another plan's program are asked.
        await find_move(session, plan_of(process.workflow), process)


def _refuse_if_moved(process: Process, seen: int | None) -> None:
    if seen is not None and seen != process.sequence:
        raise ConflictError(
            f"the process is at entry {process.sequence} of its log, and you have seen entry {seen}: look at it again,"
            f" then say that you have seen {process.sequence}",
            {"seen": seen, "sequence": process.sequence},
        )


async def _authorize(session: AsyncSession, process: Process, user: str, action: Action) -> None:
    plan = plan_of(process.workflow)
    try:
        leaf = plan.locate(process)
    except WorkflowChangedError:
        leaf = None  # the code no longer has the step and its callback: the workflow's callback decides
    attempted = Attempted(user, process.workflow, process.step, action)
    await authorize(plan.authorizer(action, leaf), attempted, session)


async def _collect_input(session: AsyncSession, process: Process, inputs: Sequence[State], limits: Limits) -> State:
    try:
        filled = await _fill(session, process, inputs)
    except FormIncompleteError as error:
        raise FormIncompleteError(error.form, process.sequence, meta=error.meta) from error
    except InvalidResultError as error:
        raise InvalidInputError(str(error)) from error
    return check_input(filled, f"the form of {process.step!r}", limits, process.state)


async def _fill(session: AsyncSession, process: Process, inputs: Sequence[State]) -> State:
    plan: Plan = plan_of(process.workflow)
    try:
        leaf = plan.locate(process)
    except WorkflowChangedError as error:
        raise ConflictError(str(error)) from error
    if leaf.step.kind is not StepKind.INPUT or leaf.step.form is None:
        raise ConflictError(f"the step {leaf.step.name!r} takes no input")
    what = f"the form of {leaf.step.name!r}"
    engine = {
        "process_id": process.process_id,
        "idempotency_key": process.idempotency_key(leaf.step.name),
        "state": process.state,
        "session": session,
    }
    try:
        process.require_readable()
        loaded = await load_arguments(session, leaf.arguments, process.state)
        arguments = leaf.arguments.fill(process.state, engine, loaded)
    except StepError as error:
        raise ConflictError(f"{what} cannot be made: {error}") from error
    return await run_form(leaf.step.form, arguments, inputs, what)
