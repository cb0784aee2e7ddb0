"""What operators do to processes: many at once, their state and place, their note, their end as a row."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import Path
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field
from starlette.responses import Response

from orchestrator.api.bodies import Router
from orchestrator.api.bulk import carry_out
from orchestrator.api.callers import Caller, Role, requires
from orchestrator.api.context import Context
from orchestrator.api.problems import Responses
from orchestrator.db.processes.filter import ProcessFilter
from orchestrator.messages import Advanced, Name
from orchestrator.operations.bulk import MOST, BulkAction, select_processes
from orchestrator.services import control, notes
from orchestrator.text import MAX_NOTE, MAX_REASON
from orchestrator.types import ProcessStatus

router = Router(prefix="/processes", tags=["processes"])

SHOWN: Final = 100
"""Refusals of a bulk action that are named one by one."""

_REFUSALS: Final[Responses] = {
    400: {"description": "It cannot be done like this; the text says why."},
    403: {"description": "The user may not do this."},
    404: {"description": "There is no such process."},
    409: {"description": "It may not be done now, or the process has changed; `reasons` says why."},
    503: {"description": "The engine is paused, or the database is away."},
}

ProcessId = Annotated[UUID, Path(description="The process.")]
Operator = Annotated[Caller, requires(Role.OPERATE)]
Reason = Annotated[str, Field(min_length=1, max_length=MAX_REASON, description="Why; goes into the process's log.")]
Seen = Annotated[
    int | None,
    Field(
        ge=0, description="The newest log entry that the caller knows of: refused with 409 when there is a newer one."
    ),
]


def _require_text(value: object) -> object:
    """Refuse numbers, which pydantic takes for seconds since 1970."""
    if not isinstance(value, str) or value.lstrip("+-").replace(".", "").isdigit():
        raise ValueError("a time such as 2026-11-26T09:30:00+01:00")
    return value


Moment = Annotated[AwareDatetime, BeforeValidator(_require_text)]


class Strict(BaseModel):
    """The base of all bodies here: unknown fields are refused, so that a misspelt one is not ignored."""

    model_config = ConfigDict(extra="forbid")


class ChangedProcess(BaseModel):
    """Where the process stands after the request: its status and its newest log entry."""

    process_id: UUID
    status: str
    sequence: int


class Count(BaseModel):
    """How many processes were resumed."""

    count: int


class BulkRequest(Strict):
    """What to do to which processes: all conditions that are given must hold, and one must be given."""

    action: BulkAction
    statuses: list[ProcessStatus] = Field(default=[], max_length=20, description="Default: all that allow the action.")
    workflow: Name | None = None
    step: Name | None = Field(None, description="The step at which the process stands.")
    is_task: bool | None = None
    since: Moment | None = Field(None, description="Changed last at this time or later.")
    until: Moment | None = Field(None, description="Changed last before this time.")
    subscription_id: UUID | None = Field(None, description="It has touched this subscription.")
    customer_id: Name | None = Field(None, description="It has touched a subscription of this customer.")
    assignee: Name | None = Field(None, description="Who is to act on it.")
    reason: str | None = Field(None, max_length=MAX_REASON, description="Why; goes into the log of what is aborted.")
    limit: int = Field(1_000, ge=1, le=MOST, description="How many at most, the oldest first.")
    dry_run: bool = Field(default=False, description="Only count.")

    def filter(self) -> ProcessFilter:
        """Return the conditions."""
        statuses = tuple(one.value for one in self.statuses)
        return ProcessFilter(
            statuses,
            self.workflow,
            self.step,
            self.is_task,
            self.since,
            self.until,
            None if self.subscription_id is None else self.subscription_id.hex,
            self.customer_id,
            self.assignee,
        )


class RefusedProcess(BaseModel):
    """Why the action was not done to a process; ``key`` is the reason's stable name."""

    process_id: UUID
    workflow: str
    key: str
    detail: str


class BulkAnswer(BaseModel):
    """What came of a bulk action."""

    matched: int = Field(description="How many processes fit.")
    done: int
    refused: int
    refusals: list[RefusedProcess] = Field(description="The first hundred of those that were refused.")
    left: int = Field(description="How many more fit than the limit allowed: repeat the request.")


class NoteRequest(Strict):
    """A note on a process; ``null`` removes it."""

    note: str | None = Field(max_length=MAX_NOTE)


class Note(BaseModel):
    """The note that the process has now."""

    process_id: UUID
    note: str | None


class StateRequest(Strict):
    """Keys of the state to set and to remove."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"set": {"vlan": 142}, "reason": "typo in the order"}]})

    set: dict[str, Any] = {}
    remove: list[str] = Field(default=[], max_length=1_000)
    reason: Reason
    seen: Seen = None


class SkipRequest(Strict):
    """Why the step is left out."""

    reason: Reason
    seen: Seen = None


class RewindRequest(Strict):
    """The step to go back to, and why."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"step": "Reserve a VLAN", "reason": "released the VLAN in the IPAM"}]}
    )

    step: Name
    reason: Reason
    seen: Seen = None


@router.put("/resume-all", operation_id="resume_all_tasks", responses={503: _REFUSALS[503]})
async def resume_all(context: Context, caller: Operator) -> Count:
    """Retry all failed and waiting tasks, 10,000 at most; `count` says how many were retried."""
    selection = await select_processes(context.database, BulkAction.RETRY, ProcessFilter(is_task=True))
    return Count(count=(await carry_out(context, selection, caller.name)).done)


@router.put("/bulk", operation_id="act_on_processes", responses={400: _REFUSALS[400], 503: _REFUSALS[503]})
async def act_on_processes(context: Context, caller: Operator, body: BulkRequest) -> BulkAnswer:
    """Retry or abort all processes that fit, each in a transaction of its own.

    One that has changed since it was found is left alone. The refusal of one does not stop the others.
    """
    selection = await select_processes(context.database, body.action, body.filter(), body.limit)
    if body.dry_run:
        return BulkAnswer(matched=selection.matched, done=0, refused=0, refusals=[], left=selection.matched)
    outcome = await carry_out(context, selection, caller.name, body.reason)
    return BulkAnswer(
        matched=outcome.matched,
        done=outcome.done,
        refused=len(outcome.refusals),
        refusals=[
            RefusedProcess(process_id=one.process_id, workflow=one.workflow, key=one.key, detail=one.detail)
            for one in outcome.refusals[:SHOWN]
        ],
        left=outcome.left,
    )


@router.patch("/{process_id}/state", operation_id="patch_process_state", responses=_REFUSALS)
async def patch_state(context: Context, caller: Operator, process_id: ProcessId, body: StateRequest) -> ChangedProcess:
    """Correct the state of a failed or suspended process; the correction is an entry of its own in the log."""
    return _describe(
        await context.change_process(
            process_id,
            lambda session: control.patch(
                session, process_id, caller.name, body.reason, body.set, body.remove, context.limits, seen=body.seen
            ),
        )
    )


@router.put("/{process_id}/skip", operation_id="skip_step", responses=_REFUSALS)
async def skip(context: Context, caller: Operator, process_id: ProcessId, body: SkipRequest) -> ChangedProcess:
    """Leave out the step at which a process has failed, and go on after it."""
    return _describe(
        await context.change_process(
            process_id,
            lambda session: control.skip(session, process_id, caller.name, body.reason, context.limits, seen=body.seen),
        )
    )


@router.put("/{process_id}/rewind", operation_id="rewind_process", responses=_REFUSALS)
async def rewind(context: Context, caller: Operator, process_id: ProcessId, body: RewindRequest) -> ChangedProcess:
    """Take a process that rests back to an earlier step, with the state as it was after the step before it.

    Subscriptions and external systems stay as they are.
    """
    return _describe(
        await context.change_process(
            process_id,
            lambda session: control.rewind(
                session, process_id, caller.name, body.step, body.reason, context.limits, seen=body.seen
            ),
        )
    )


@router.patch("/{process_id}", operation_id="set_process_note", responses={404: _REFUSALS[404]})
async def set_note(context: Context, caller: Operator, process_id: ProcessId, body: NoteRequest) -> Note:
    """Replace the note on a process, whatever its status; `null` removes it."""
    async with context.transaction() as session:
        note = await notes.set_note(session, process_id, body.note, caller.name)
    return Note(process_id=process_id, note=note)


@router.delete(
    "/{process_id}",
    status_code=HTTPStatus.NO_CONTENT,
    operation_id="delete_process",
    responses={
        400: {"description": "It is no task, or not finished."},
        404: _REFUSALS[404],
        409: {"description": "The broker has not confirmed all its events yet."},
    },
)
async def delete(context: Context, caller: Operator, process_id: ProcessId) -> Response:
    """Delete a finished task with its log. Who did it stays in the database."""
    async with context.transaction() as session:
        await notes.delete(session, process_id, caller.name)
    return Response(status_code=HTTPStatus.NO_CONTENT)


def _describe(message: Advanced) -> ChangedProcess:
    return ChangedProcess(process_id=message.process_id, status=message.status, sequence=message.sequence)
