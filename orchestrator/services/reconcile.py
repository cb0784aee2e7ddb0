"""Do what is due for a process according to its rows, whatever messages were lost."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db import callbacks
from orchestrator.db.engine_lock import is_paused
from orchestrator.db.processes.claims import LostClaim
from orchestrator.db.processes.due import lock_scheduled, schedule, take_lost, take_new
from orchestrator.db.processes.rows import load_process
from orchestrator.db.session import read_time
from orchestrator.engine.events import AttemptLost, CallbackFailed, Event, Failure, Loss, NotRun, PlanChanged, RetryDue
from orchestrator.engine.plan import Leaf, Plan
from orchestrator.engine.process import Process
from orchestrator.errors import DefinitionError, NotFoundError, WorkflowChangedError
from orchestrator.messages import Advanced
from orchestrator.registry import plan_of
from orchestrator.services.callbacks import apply_answer
from orchestrator.services.plans import find_move
from orchestrator.services.readers import explain_standstill, has_no_reader
from orchestrator.services.results import (
    build_next_step,
    decide_or_fail,
    describe_taken,
    describe_unannounced,
    store,
)
from orchestrator.settings import Limits
from orchestrator.types import ProcessStatus


async def look(session: AsyncSession, process_id: UUID, limits: Limits) -> Advanced | None:
    """Do what is due for a process, and return what must be published: its unpublished events and its next command.

    A process whose step is next is moved to the plan of this program, if that is the registered one and the process has another.

    Returns:
        ``None`` when there is no such process.

    Raises:
        PlanMismatchError: something is due, and another program must do it, which has the plan of the process.
    """
    found = await lock_scheduled(session, process_id)
    if found is None:
        return None
    process = found.process
    now = await read_time(session)
    plan = plan_of(process.workflow)
    leaf = None
    if not found.is_claimed and not await is_paused(session):
        message = await _do_due(session, plan, process, found.due_at, now, limits)
        if message is not None:
            return message
        leaf = _locate(plan, process) if process.status is ProcessStatus.RUNNING else None
        # Not when its command has just been published for the first time.
        if (
            leaf is not None
            and found.dispatches
            and (note := await explain_standstill(session, process, leaf)) is not None
        ):
            return await _advance(session, plan, process, NotRun(note), limits)
    return await describe_unannounced(
        session, plan, process, now, None if leaf is None else build_next_step(process, leaf)
    )


async def begin(session: AsyncSession, process_ids: Sequence[UUID], lease: float) -> list[Advanced]:
    """Take processes that a step has started and of which nothing was published yet; return what must be published about each.

    They have the plan that this program has, so each stands at its first step, and nothing about it has to be decided.
    """
    taken = await take_new(session, process_ids, lease)
    return [describe_taken(plan_of(one.process.workflow), one) for one in taken]


async def republish(
    session: AsyncSession, process_ids: Sequence[UUID], lease: float
) -> tuple[list[Advanced], list[UUID]]:
    """Take processes whose commands were lost.

    Returns:
        What must be published about those that stand at a step of the plan that this program has; and the processes about which
        more must be decided, one by one, by :func:`look`.
    """
    messages: list[Advanced] = []
    others: list[UUID] = []
    stands_still: dict[tuple[str, str], bool] = {}
    for one in await take_lost(session, process_ids, lease):
        process = one.process
        try:
            plan = plan_of(process.workflow)
            leaf = plan.locate(process)
        except (NotFoundError, DefinitionError, WorkflowChangedError):
            others.append(process.process_id)
            continue
        key = (process.workflow, leaf.queue)
        if key not in stands_still:
            stands_still[key] = await has_no_reader(session, process, leaf)
        if process.plan != plan.fingerprint or stands_still[key]:
            others.append(process.process_id)
        else:
            messages.append(describe_taken(plan, one))
    return messages, others


async def apply_early_answer(session: AsyncSession, process_id: UUID, limits: Limits) -> Advanced | None:
    """Let a process that has just parked continue, if its callback was answered before."""
    if not await callbacks.has_answer(session, process_id):
        return None
    process = await load_process(session, process_id, lock=True)
    callback = await callbacks.lock_parked(session, process_id)
    if callback is None or callback.outcome is None or process.status is not ProcessStatus.AWAITING_CALLBACK:
        return None
    return await apply_answer(session, process, callback, limits)


async def release_lost_claim(session: AsyncSession, claim: LostClaim, limits: Limits) -> Advanced:
    """Release the claim of a consumer that is presumed dead, for another attempt. The row is locked."""
    event = AttemptLost(claim.process.attempt, claim.consumer, Loss.SILENT, f"is presumed dead: it {claim.seen}")
    return await _advance(session, plan_of(claim.process.workflow), claim.process, event, limits)


async def _do_due(
    session: AsyncSession, plan: Plan, process: Process, due_at: datetime | None, now: datetime, limits: Limits
) -> Advanced | None:
    match process.status:
        case ProcessStatus.WAITING if due_at is not None and due_at <= now:
            return await _advance(session, plan, process, RetryDue(), limits)
        case ProcessStatus.RUNNING:
            move = await find_move(session, plan, process)
            if move is not None or _locate(plan, process) is None:
                return await _advance(session, plan, process, move or RetryDue(), limits)
        case ProcessStatus.AWAITING_CALLBACK:
            return await _check_callback(session, plan, process, now, limits)
    return None


async def _check_callback(
    session: AsyncSession, plan: Plan, process: Process, now: datetime, limits: Limits
) -> Advanced | None:
    callback = await callbacks.lock_parked(session, process.process_id)
    if callback is None:
        return None
    if callback.outcome is not None:
        return await apply_answer(session, process, callback, limits)
    if callback.deadline is None or callback.deadline > now:
        await schedule(session, process.process_id, callback.deadline)
        return None
    failure = Failure("CallbackTimeoutError", f"no answer within {callback.timeout:g} s of {process.step!r}")
    message = await _advance(session, plan, process, CallbackFailed(callback.position, failure), limits)
    await callbacks.mark_expired(session, callback)
    return message


async def _advance(session: AsyncSession, plan: Plan, process: Process, event: Event, limits: Limits) -> Advanced:
    move = None if isinstance(event, PlanChanged) else await find_move(session, plan, process)
    return await store(session, plan, process, decide_or_fail(plan, process, event, move), limits)


def _locate(plan: Plan, process: Process) -> Leaf | None:
    try:
        return plan.locate(process)
    except WorkflowChangedError:
        return None
