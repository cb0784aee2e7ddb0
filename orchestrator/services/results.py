"""Decide about a process, store the decision, and build the message that an entry point publishes after the commit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from secrets import token_urlsafe
from typing import TypedDict
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.processes.advance import store_decision
from orchestrator.db.processes.due import Taken
from orchestrator.db.processes.outbox import Unannounced, read_unannounced
from orchestrator.db.processes.rows import load_process
from orchestrator.db.session import read_time
from orchestrator.engine.decide import Decision, decide
from orchestrator.engine.decision import Dispatch
from orchestrator.engine.events import CodeChanged, Event, Failure, PlanChanged, Stamp
from orchestrator.engine.plan import Leaf, Plan
from orchestrator.engine.process import Process
from orchestrator.engine.references import subscription_ids
from orchestrator.errors import NotFoundError, WorkflowChangedError
from orchestrator.messages import VERSION, Advanced, LoggedEntry, NextStep, ProcessEvent, StepEvent, read_event
from orchestrator.settings import Limits

FIRST_LOOK = 2.0
"""Seconds after which the reconciler looks at a process that has just begun to wait for a callback, in case the answer came
early and the message that says so was lost."""

MAX_NAMED = 1_000
"""Subscriptions that an event names. A process may refer to as many as its state holds, and an event must fit every broker."""


def make_stamp() -> Stamp:
    """Return the source of random tokens for one decision."""
    return Stamp(_make_token)


def _make_token() -> str:
    return token_urlsafe(32)  # so many bytes nobody guesses


def decide_or_fail(plan: Plan, process: Process, event: Event, move: PlanChanged | None = None) -> Decision:
    """Decide about an event, or, when the registered plan no longer has the step, decide to fail the process for that reason.

    Args:
        move: what :func:`orchestrator.services.plans.find_move` has found.
    """
    try:
        plan.locate(process)
        return decide(plan, process, event, make_stamp(), move)
    except WorkflowChangedError as error:
        return decide(plan, process, CodeChanged(Failure(type(error).__name__, str(error))), make_stamp())


async def store(session: AsyncSession, plan: Plan, process: Process, decision: Decision, limits: Limits) -> Advanced:
    """Store a decision about a process that is locked in this session; return the message about it.

    The message also has the entries of earlier decisions whose events are not known to be confirmed: they come first.
    """
    at = await store_decision(session, process, decision, due_in=compute_due_in(decision, limits.redispatch_after))
    return await describe_unannounced(session, plan, decision.process, at, _next_step(decision.dispatch))


class EntryFields(TypedDict):
    """The fields of a :class:`LoggedEntry`: most are never in a message of their own, and so not validated one by one."""

    sequence: int
    kind: str
    name: str
    status: str
    attempt: int
    author: str
    position: int | None
    at: datetime | None


def read_fields(decision: Decision, at: datetime | None = None) -> list[EntryFields]:
    """Return what messages say about the log entries of a decision.

    Args:
        at: when they were stored, for a message about a later decision.
    """
    return [
        {
            "sequence": entry.sequence,
            # Exactly texts: of a member of an enum, whoever writes JSON asks for its value, by a call into Python's library.
            "kind": str(entry.kind),
            "name": entry.name,
            "status": str(entry.status),
            "attempt": entry.attempt,
            "author": entry.author,
            "position": entry.position,
            "at": at,
        }
        for entry in decision.entries
    ]


def describe_decision(
    plan: Plan, decision: Decision, at: datetime, announced: int = 0, earlier: Sequence[EntryFields] = ()
) -> Advanced:
    """Build the message about a stored decision.

    Args:
        announced: what the rows said when it was stored.
        earlier: the entries of decisions before it about which no message was sent, or may not have arrived.
    """
    return Advanced.model_validate({**read_decision(plan, decision, earlier), "at": at, "announced": announced})


def read_decision(plan: Plan, decision: Decision, earlier: Sequence[EntryFields] = ()) -> dict[str, object]:
    """Return the fields of the message about a decision, but for ``at`` and ``announced``, which are known when it is stored."""
    workflow = plan.workflow
    entries = [*earlier, *read_fields(decision)]
    return _read(workflow.target.value, workflow.is_task, decision.process, entries, _next_step(decision.dispatch))


def describe_entries(
    plan: Plan,
    process: Process,
    at: datetime,
    announced: int,
    entries: Sequence[EntryFields],
    next_step: NextStep | None = None,
) -> Advanced:
    """Build the message about entries of the log of a process, as it was stored ``at`` a time."""
    known = Unannounced(announced, plan.workflow.target.value, plan.workflow.is_task)
    return _describe(known, process, at, entries, next_step)


async def describe_unannounced(
    session: AsyncSession, plan: Plan, process: Process, at: datetime, next_step: NextStep | None
) -> Advanced:
    """Build the message about a process and the oldest entries of its log whose events are not known to be confirmed."""
    found = await read_unannounced(session, process.process_id)
    assert found is not None, "the process was read in this transaction"  # noqa: S101 - a programming error, not a user's
    known = replace(found, target=plan.workflow.target.value, is_task=plan.workflow.is_task)
    return _describe(known, process, at, _read_entries(found), next_step)


async def read_announcement(session: AsyncSession, process_id: UUID) -> Advanced | None:
    """Build the message about events alone; it needs no code of the workflow.

    Returns:
        ``None`` when there is no such process any more.
    """
    try:
        process = await load_process(session, process_id)
    except NotFoundError:
        return None
    found = await read_unannounced(session, process_id)
    if found is None:
        return None
    return _describe(found, process, await read_time(session), _read_entries(found), None)


def describe_taken(plan: Plan, taken: Taken) -> Advanced:
    """Build the message about a process whose command is to be published: its unconfirmed events, and the command.

    Raises:
        WorkflowChangedError: the plan does not have the step at which it stands.
    """
    process, leaf = taken.process, plan.locate(taken.process)
    entries = [LoggedEntry.model_validate(entry) for entry in taken.entries]
    known = Unannounced(taken.announced, taken.target, taken.is_task)
    return _describe(known, process, taken.at, entries, build_next_step(process, leaf))


def build_next_step(process: Process, leaf: Leaf) -> NextStep:
    """Build the command for the step at which a process stands, from its row."""
    # The position in the row, not in the plan: the claim compares rows. The step's name finds the place in changed code.
    return NextStep(
        position=process.position, attempt=process.attempt, queue=leaf.queue, step=leaf.step.name, lost=process.lost
    )


def compute_due_in(decision: Decision, redispatch_after: float) -> float | None:
    """Return the seconds until the reconciler must look at the process, if messages are lost; ``None`` for never."""
    if decision.dispatch is not None:
        return redispatch_after
    if decision.retry_in is not None:
        return decision.retry_in
    return FIRST_LOOK if decision.process.status.value == "awaiting_callback" else None


def event_key(message: Advanced, entry: LoggedEntry) -> str:
    """Return the routing key of the event of a log entry."""
    return f"{entry.kind}.{message.workflow}.{entry.status}"


def build_event(message: Advanced, entry: LoggedEntry) -> ProcessEvent:
    """Build the public event of a log entry."""
    kind = StepEvent if entry.kind == "step" else ProcessEvent
    return kind.model_construct(**read_event(message, entry))


def _read_entries(found: Unannounced) -> list[LoggedEntry]:
    return [LoggedEntry.model_validate(row) for row in found.entries]


def _describe(
    known: Unannounced,
    process: Process,
    at: datetime,
    entries: Sequence[LoggedEntry | EntryFields],
    next_step: NextStep | None,
) -> Advanced:
    # In one call: to validate each entry apart takes three times as long.
    fields = _read(known.target, known.is_task, process, entries, next_step)
    return Advanced.model_validate({**fields, "at": at, "announced": known.announced})


def _read(
    target: str,
    is_task: bool,
    process: Process,
    entries: Sequence[LoggedEntry | EntryFields],
    next_step: NextStep | None,
) -> dict[str, object]:
    return {
        "version": VERSION,
        "process_id": process.process_id,
        "workflow": process.workflow,
        "target": target,
        "is_task": is_task,
        "status": str(process.status),
        "sequence": process.sequence,
        "user": process.actor,
        "subscription_ids": subscription_ids(process.state)[:MAX_NAMED],
        "entries": entries,
        "next": next_step,
        "plan": process.plan,
    }


def _next_step(dispatch: Dispatch | None) -> NextStep | None:
    if dispatch is None:
        return None
    return NextStep(
        position=dispatch.position,
        attempt=dispatch.attempt,
        queue=dispatch.queue,
        step=dispatch.step,
        lost=dispatch.lost,
    )
