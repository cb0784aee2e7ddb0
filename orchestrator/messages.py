"""The messages on RabbitMQ: versioned models and their codec. They carry ids, never a process's state.

The shapes that other services use (start, resume, abort, callbacks, events) are public; the step command and the step
result are the engine's own, and carry a version so that old and new programs can run side by side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_core import from_json, to_json

from orchestrator.authorization import MAX_USER
from orchestrator.errors import MessageError
from orchestrator.text import MAX_PROBLEMS, MAX_REASON, NO_NULL
from orchestrator.types import JSON
from orchestrator.validation import Problems, find_problems, leave_out_unknown

MAX_DECLINES = 64
"""The most consumers that a declined command names; the oldest are left out."""

VERSION = 1
"""The version of every message below. It is raised when a reader of the old version would misunderstand the new one."""


class MessageType(StrEnum):
    """The ``type`` property of each message."""

    STEP_COMMAND = "step.command"
    STEP_RESULT = "step.result"
    LOOK = "process.look"
    START = "workflow.start"
    RESUME = "process.resume"
    ABORT = "process.abort"
    STARTED = "workflow.started"
    REFUSED = "workflow.refused"
    RESUMED = "process.resumed"
    ABORTED = "process.aborted"
    GET_PROCESS = "process.get"
    PROCESS = "process.found"
    GET_SUBSCRIPTION = "subscription.get"
    SUBSCRIPTION = "subscription.found"
    LIST_WORKFLOWS = "workflow.list"
    WORKFLOWS = "workflow.listed"
    GET_BACKLOG = "backlog.get"
    BACKLOG = "backlog.found"
    CALLBACK_COMPLETED = "callback.completed"
    CALLBACK_FAILED = "callback.failed"
    CALLBACK_PROGRESS = "callback.progress"
    PROCESS_EVENT = "process.event"
    STEP_EVENT = "step.event"


class Message(BaseModel):
    """The base of all messages: unknown fields are refused, so that a misspelt one is not ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=False)


class Internal(Message):
    """The base of the engine's own messages: a program may send more than this one knows, when it is newer."""

    model_config = ConfigDict(extra="ignore", frozen=True, str_strip_whitespace=False)

    version: Literal[1] = 1


Name = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=NO_NULL)]
User = Annotated[str, StringConstraints(min_length=1, max_length=MAX_USER, pattern=NO_NULL)]
Key = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=NO_NULL)]
Reason = Annotated[str, StringConstraints(max_length=MAX_REASON, pattern=NO_NULL)]

Count = Annotated[int, Field(ge=0, lt=2**31)]
"""The range of the database's integers."""


class StepCommand(Internal):
    """Run the step at ``position`` if the process's attempt is still ``attempt``.

    Args:
        announced: up to which log entry the broker has confirmed the process's events; the claim stores it at no extra cost.
        lost: how many attempts of this step in a row were lost with their consumers.
        declined_by: the consumers that have passed the command on because they cannot run the step, the newest last, each
            as often as it has seen the command.
        plan: the fingerprint of the process's plan when this was sent; the row decides.
        unread: whether no queue was bound a moment ago for the events of the workflow's steps, so that they may wait.
    """

    process_id: UUID
    workflow: str
    step: str
    position: Count
    attempt: Count
    announced: Count = 0
    lost: Count = 0
    declined_by: tuple[UUID, ...] = Field(default=(), max_length=MAX_DECLINES)
    plan: str | None = None
    unread: bool = False


class NextStep(Message):
    """The command that follows a result."""

    position: Count
    attempt: Count
    queue: str
    step: str
    lost: Count = 0


class LoggedEntry(Message):
    """A log entry for other systems: without state or error text. ``at`` is set when it may differ from the message's."""

    sequence: int
    kind: Literal["step", "process"]
    name: str
    status: str
    attempt: int
    author: str
    position: int | None = None
    at: datetime | None = None


class Advanced(Internal):
    """A process has advanced: the events to publish, and the next step command. All of it can be read from the rows again.

    Args:
        announced: up to which log entry the broker has confirmed the process's events, as the rows know it. Events of entries
            that do not follow it must not be published yet: those between may be missing.
        plan: the fingerprint of the plan that has decided what is next.
    """

    process_id: UUID
    workflow: str
    target: str
    is_task: bool
    status: str
    sequence: Count
    user: str
    subscription_ids: list[UUID] = Field(default_factory=list)
    at: datetime
    announced: Count = 0
    entries: list[LoggedEntry]
    next: NextStep | None = None
    plan: str | None = None


class Look(Internal):
    """Read the rows of a process, which another program has changed, and do what is due."""

    process_id: UUID


class StartWorkflow(Message):
    """Start a workflow. ``inputs`` are the pages of its form, in order."""

    version: Literal[1] = 1
    workflow: Name
    inputs: list[dict[str, Any]] = Field(default_factory=list)
    user: User = "amqp"
    idempotency_key: Key | None = None


class ResumeProcess(Message):
    """Give a suspended process its input; without pages, retry a failed or waiting one.

    Args:
        seen: the newest log entry that the sender knows; when there are newer ones, the command is refused.
    """

    version: Literal[1] = 1
    process_id: UUID
    inputs: list[dict[str, Any]] = Field(default_factory=list)
    user: User = "amqp"
    idempotency_key: Key | None = None
    seen: Count | None = None


class AbortProcess(Message):
    """End a process."""

    version: Literal[1] = 1
    process_id: UUID
    user: User = "amqp"
    reason: Reason | None = None
    idempotency_key: Key | None = None


class StartReply(Message):
    """The answer to a start; ``created`` is false for a repeated message."""

    process_id: UUID
    created: bool


class Accepted(Message):
    """The answer to a resume or an abort."""

    process_id: UUID
    status: str


class Refused(Message):
    """The answer to a command that was not carried out."""

    error: str
    detail: str
    reasons: list[dict[str, Any]] = Field(default_factory=list)
    form: JSON = None


class ProcessEvent(Message):
    """A process has a new status. At least once, in order of ``sequence`` for each process."""

    process_id: UUID
    workflow: str
    target: str
    is_task: bool
    status: str
    sequence: int
    at: datetime
    user: str
    subscription_ids: list[UUID] = Field(default_factory=list)


class StepEvent(ProcessEvent):
    """An attempt of a step has ended, or a step was skipped or is waiting."""

    step: str
    position: int
    attempt: int


def read_event(message: Advanced, entry: LoggedEntry) -> dict[str, Any]:
    """Return the fields of the event of a log entry in ``message``: of a :class:`StepEvent`, or of a :class:`ProcessEvent`.

    They need no validation, since every value comes from a message that was checked.
    """
    fields: dict[str, Any] = {
        "process_id": message.process_id,
        "workflow": message.workflow,
        "target": message.target,
        "is_task": message.is_task,
        "status": entry.status,
        "sequence": entry.sequence,
        "at": entry.at or message.at,
        "user": entry.author,
        "subscription_ids": message.subscription_ids,
    }
    if entry.kind == "step":
        fields |= {"step": entry.name, "position": entry.position or 0, "attempt": entry.attempt}
    return fields


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that could not be processed.

    Args:
        letter_id: given by the program that has dead-lettered it; ``None`` when the broker has.
        died_at: when it was dead-lettered; ``None`` when that is unknown.
        queue: where it was; ``exchange`` and ``routing_key`` are those to which it was published.
        properties: what the sender has set, headers included, as JSON; never the token of a callback.
        packed_headers: the headers as AMQP has them, for a replay.
        token_hash: the SHA-256 of a callback's token.
        digest: of all this; it identifies a letter that is delivered twice.
        unhandled: whether the broker dead-lettered the message because it was returned too often, without any program
            having handled it.
    """

    letter_id: UUID | None
    reason: str
    died_at: datetime | None
    queue: str
    exchange: str
    routing_key: str
    properties: Mapping[str, Any]
    packed_headers: bytes | None
    body: bytes
    token_hash: bytes | None
    digest: bytes
    unhandled: bool = False


M = TypeVar("M", bound=Message)


def encode(message: Message) -> bytes:
    """Return the body of a message."""
    return message.model_dump_json(exclude_none=False).encode()


def decode(model: type[M], body: bytes) -> M:
    """Read a body.

    Raises:
        MessageError: the body is not such a message; the text names the fields, without repeating the body.
    """
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        problems = _find_problems(model, body, error)
        if any(problem["loc"] == ("version",) for problem in problems.first):
            raise MessageError(f"unknown message version: this engine knows version {VERSION}") from None
        if problems.first[0]["type"] == "json_invalid":
            raise MessageError(f"the body is not JSON: {problems.first[0]['msg']}") from None
        raise MessageError(f"the body is not a valid {model.__name__}: {problems.describe('body')}") from None


def _find_problems(model: type[Message], body: bytes, error: ValidationError) -> Problems:
    left_out = 0
    if error.error_count() > MAX_PROBLEMS:
        few, left_out = leave_out_unknown(model, from_json(body))
        try:
            model.model_validate_json(to_json(few))
        except ValidationError as fewer:
            error = fewer
    return find_problems(error, lambda one: one.errors(include_input=False, include_url=False), left_out)
