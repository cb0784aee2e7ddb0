"""Looking at a process again: whatever was lost on the way, the rows say what is due."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db import callbacks
from orchestrator.db.engine_lock import is_paused
from orchestrator.db.processes.advance import store_decision
from orchestrator.db.processes.claims import Claim
from orchestrator.db.processes.due import lock_scheduled, schedule
from orchestrator.db.processes.outbox import list_unannounced
from orchestrator.db.processes.rows import load_process
from orchestrator.db.session import read_time
from orchestrator.engine.decision import Decision
from orchestrator.engine.events import AttemptLost, CallbackFailed, Failure, RetryDue
from orchestrator.engine.plan import Leaf, Plan
from orchestrator.engine.process import Process
from orchestrator.errors import WorkflowChangedError
from orchestrator.messages import Advanced, LoggedEntry, NextStep
from orchestrator.registry import plan_of
from orchestrator.services.callbacks import apply_answer
from orchestrator.services.results import caught_up, describe, due_in, judge
from orchestrator.settings import Limits
from orchestrator.types import ProcessStatus


async def look(session: AsyncSession, process_id: UUID, limits: Limits) -> Advanced | None:
    """Do what is due for a process and say what must be published: its unpublished events and its next command.

    Returns:
        ``None`` when there is no such process.
    """
    found = await lock_scheduled(session, process_id)
    if found is None:
        return None
    process, claimed = found.process, found.is_claimed
    now = await read_time(session)
    plan = plan_of(process.workflow)
    paused = await is_paused(session)
    moved = None if paused or claimed else await _do_due(session, plan, process, found.due_at, now, limits)
    if moved is not None:
        process = moved
        claimed = False
    entries = [LoggedEntry.model_validate(row) for row in await list_unannounced(session, process_id)]
    running = process.status is ProcessStatus.RUNNING and not claimed and not paused
    leaf = _place(plan, process) if running else None
    return describe(plan, process, now, entries, None if leaf is None else _next(process, leaf))


async def early_answer(session: AsyncSession, process_id: UUID, limits: Limits) -> Advanced | None:
    """Let a process that has just parked go on, if its callback was answered before it did."""
    if not await callbacks.has_answer(session, process_id):
        return None
    process = await load_process(session, process_id, lock=True)
    callback = await callbacks.lock_parked(session, process_id)
    if callback is None or callback.outcome is None or process.status is not ProcessStatus.AWAITING_CALLBACK:
        return None
    return await apply_answer(session, process, callback, limits)


async def lost(session: AsyncSession, claim: Claim, limit: int, limits: Limits, *, counted: bool = True) -> Advanced:
    """Give back the claim of a consumer that is presumed dead. The row is locked; ``counted`` as in ``AttemptLost``."""
    process = claim.process
    plan = plan_of(process.workflow)
    decision = judge(plan, process, AttemptLost(process.attempt, claim.consumer, limit=limit, counted=counted))
    at = await store_decision(session, process, decision, due_in=due_in(decision, limits.redispatch_after))
    return await caught_up(session, plan, decision, at)


async def _do_due(
    session: AsyncSession, plan: Plan, process: Process, due_at: datetime | None, now: datetime, limits: Limits
) -> Process | None:
    is_due = due_at is not None and due_at <= now
    if process.status is ProcessStatus.WAITING and is_due:
        return await _store(session, process, judge(plan, process, RetryDue()), limits)
    if process.status is ProcessStatus.AWAITING_CALLBACK:
        callback = await callbacks.lock_parked(session, process.process_id)
        if callback is None:
            return None
        if callback.outcome is not None:
            await apply_answer(session, process, callback, limits)
            return await load_process(session, process.process_id)
        if callback.deadline is not None and callback.deadline <= now:
            failure = Failure("CallbackTimeoutError", f"no answer within {callback.timeout:g} s of {process.step!r}")
            decision = judge(plan, process, CallbackFailed(callback.position, failure))
            moved = await _store(session, process, decision, limits)
            await callbacks.mark_expired(session, callback)
            return moved
        await schedule(session, process.process_id, callback.deadline)
        return None
    if process.status is ProcessStatus.RUNNING and _place(plan, process) is None:
        return await _store(session, process, judge(plan, process, RetryDue()), limits)
    return None


async def _store(session: AsyncSession, process: Process, decision: Decision, limits: Limits) -> Process:
    await store_decision(session, process, decision, due_in=due_in(decision, limits.redispatch_after))
    return decision.process


def _place(plan: Plan, process: Process) -> Leaf | None:
    try:
        return plan.locate(process)
    except WorkflowChangedError:
        return None


def _next(process: Process, leaf: Leaf) -> NextStep:
    # The position in the row, not in the plan: the claim compares rows. The step's name finds the place in changed code.
    return NextStep(
        position=process.position, attempt=process.attempt, queue=leaf.queue, step=leaf.step.name, lost=process.lost
    )
