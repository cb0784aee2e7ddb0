"""The protocol between a consumer and its child processes: lines of JSON over a pair of sockets."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from orchestrator.broker.outgoing import Outgoing
from orchestrator.types import StepStatus

LONGEST_LINE = 16 * 1024 * 1024
"""The most bytes of a line; the longest lines publish messages."""


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Begin(_Line):
    """The first line to a child.

    Args:
        consumer_id, consumer: the consumer for which it runs steps.
        pool_size: how many database connections the steps may use at once.
        queues: the step queues of these steps, which share the connections.
    """

    kind: Literal["begin"] = "begin"
    consumer_id: UUID
    consumer: str
    pool_size: int
    queues: tuple[str, ...]


class Run(_Line):
    """Run the step of this attempt, which the consumer has claimed."""

    kind: Literal["run"] = "run"
    process_id: UUID
    attempt: int


class Cancel(_Line):
    """Cancel an attempt, because its claim is gone."""

    kind: Literal["cancel"] = "cancel"
    process_id: UUID
    attempt: int


class Ready(_Line):
    """The child has imported the workflows, or, the second time, connected to the database."""

    kind: Literal["ready"] = "ready"


class Ended(_Line):
    """An attempt has ended: its outcome is stored, or it no longer held its claim.

    Args:
        error: why the child cannot run it; then it still holds its claim.
    """

    kind: Literal["ended"] = "ended"
    process_id: UUID
    attempt: int
    error: str | None = None


class Publish(_Line):
    """Publish a message for the child, which has no connection to the broker."""

    kind: Literal["publish"] = "publish"
    message: Outgoing


class Count(_Line):
    """Count an attempt in the consumer's metrics."""

    kind: Literal["count"] = "count"
    workflow: str
    step: str
    status: StepStatus
    warned: bool
    blocked: bool


class Failed(_Line):
    """The child cannot go on, for a reason beyond the steps."""

    kind: Literal["failed"] = "failed"
    error: str


class Ending(_Line):
    """The child ends itself because of a step.

    Args:
        how: a predicate.
    """

    kind: Literal["ending"] = "ending"
    how: str


class Imported(_Line):
    """The process that is forked has imported the workflows.

    Args:
        can_fork: whether forks of it would work.
    """

    kind: Literal["imported"] = "imported"
    can_fork: bool


class Forked(_Line):
    """A child was forked."""

    kind: Literal["forked"] = "forked"
    pid: int


class NotForked(_Line):
    """A child could not be forked."""

    kind: Literal["not_forked"] = "not_forked"
    error: str


class Exited(_Line):
    """A child has ended; ``code`` is negative for a signal."""

    kind: Literal["exited"] = "exited"
    pid: int
    code: int


ToChild = Annotated[Begin | Run | Cancel, Field(discriminator="kind")]
FromChild = Annotated[Ready | Ended | Publish | Count | Failed | Ending, Field(discriminator="kind")]
FromNursery = Annotated[Imported | Forked | NotForked | Exited, Field(discriminator="kind")]

to_child: TypeAdapter[Begin | Run | Cancel] = TypeAdapter(ToChild)
from_child: TypeAdapter[Ready | Ended | Publish | Count | Failed | Ending] = TypeAdapter(FromChild)
from_nursery: TypeAdapter[Imported | Forked | NotForked | Exited] = TypeAdapter(FromNursery)


def encode_line(line: _Line) -> bytes:
    """Return a line as it is sent."""
    return line.model_dump_json().encode() + b"\n"
