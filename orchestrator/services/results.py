"""What an edge publishes after it has committed a decision."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from secrets import token_urlsafe
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.processes.outbox import list_unannounced
from orchestrator.engine.decide import Decision, decide
from orchestrator.engine.events import CodeChanged, Event, Failure, Stamp
from orchestrator.engine.plan import Plan
from orchestrator.engine.process import Process
from orchestrator.engine.references import subscription_ids
from orchestrator.errors import WorkflowChangedError
from orchestrator.messages import Advanced, LoggedEntry, NextStep, ProcessEvent, StepEvent

FIRST_LOOK = 2.0
"""Seconds after which a process that has just begun to wait for a callback is looked at, in case its answer came early
and the message that says so was lost."""


def new_stamp() -> Stamp:
    """Time and chance for one decision."""
    # 32 bytes: nobody guesses a callback token.
    return Stamp(datetime.now(UTC), token_urlsafe(32))


def judge(plan: Plan, process: Process, event: Event) -> Decision:
    """The decision, or – when the code no longer has the step – the decision to fail for that reason."""
    try:
        plan.locate(process)
    except WorkflowChangedError as error:
        event = CodeChanged(Failure(type(error).__name__, str(error)))
    return decide(plan, process, event, new_stamp())


def advanced(plan: Plan, decision: Decision, at: datetime) -> Advanced:
    """The message about a stored decision."""
    process, dispatch = decision.process, decision.dispatch
    return describe(
        plan,
        process,
        at,
        [
            LoggedEntry(
                sequence=entry.sequence,
                kind=entry.kind.value,
                name=entry.name,
                status=entry.status.value,
                attempt=entry.attempt,
                author=entry.author,
                position=entry.position,
            )
            for entry in decision.entries
        ],
        None
        if dispatch is None
        else NextStep(
            position=dispatch.position,
            attempt=dispatch.attempt,
            queue=dispatch.queue,
            step=dispatch.step,
            lost=dispatch.lost,
        ),
    )


async def caught_up(session: AsyncSession, plan: Plan, decision: Decision, at: datetime) -> Advanced:
    """The message about a decision stored in this session, with all entries before it that may not have been told yet.

    A result whose message was lost is otherwise passed over: the next step's claim marks everything up to this decision.
    """
    entries = [LoggedEntry.model_validate(row) for row in await list_unannounced(session, decision.process.process_id)]
    return advanced(plan, decision, at).model_copy(update={"entries": entries})


def describe(
    plan: Plan, process: Process, at: datetime, entries: Sequence[LoggedEntry], next_step: NextStep | None
) -> Advanced:
    """The message about a process and these entries of its log."""
    return Advanced(
        process_id=process.process_id,
        workflow=process.workflow,
        target=plan.workflow.target.value,
        is_task=plan.workflow.is_task,
        status=process.status.value,
        sequence=process.sequence,
        user=process.actor,
        subscription_ids=subscription_ids(process.state),
        at=at,
        entries=list(entries),
        next=next_step,
    )


def due_in(decision: Decision, redispatch_after: float) -> float | None:
    """Seconds until somebody must look at the process again, whatever is lost on the way; ``None`` for never."""
    if decision.dispatch is not None:
        return redispatch_after
    if decision.retry_in is not None:
        return decision.retry_in
    return FIRST_LOOK if decision.process.status.value == "awaiting_callback" else None


def events_of(message: Advanced) -> list[tuple[str, ProcessEvent]]:
    """The events for the outside with their routing keys, in order: one for each entry of the log."""
    found: list[tuple[str, ProcessEvent]] = []
    for entry in message.entries:
        common: dict[str, Any] = {
            "process_id": message.process_id,
            "workflow": message.workflow,
            "target": message.target,
            "is_task": message.is_task,
            "status": entry.status,
            "sequence": entry.sequence,
            "at": message.at,
            "user": entry.author,
            "subscription_ids": message.subscription_ids,
        }
        # Built without validation: every value comes from a validated message, and this runs for every step.
        if entry.kind == "step":
            event: ProcessEvent = StepEvent.model_construct(
                **common, step=entry.name, position=entry.position or 0, attempt=entry.attempt
            )
        else:
            event = ProcessEvent.model_construct(**common)
        found.append((f"{entry.kind}.{message.workflow}.{entry.status}", event))
    return found
