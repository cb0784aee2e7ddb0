"""The queries that other services send, and the answers. They are public, as the commands of :mod:`orchestrator.messages` are."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import Field

from orchestrator.messages import Message
from orchestrator.types import JSON


class GetProcess(Message):
    """Ask for a process, its log and its state."""

    version: Literal[1] = 1
    process_id: UUID


class GetSubscription(Message):
    """Ask for a subscription and its blocks."""

    version: Literal[1] = 1
    subscription_id: UUID


class ListWorkflows(Message):
    """Ask which workflows there are."""

    version: Literal[1] = 1


class GetBacklog(Message):
    """Ask how many starts wait."""

    version: Literal[1] = 1


class BacklogFound(Message):
    """The answer to a query for the backlog.

    Args:
        starts: that wait in the queue, and are with no coordinator yet.
        coordinators: how many read the queue.
        per_second: how many starts the coordinator that answers has ended in a second, of late.
        seconds: how long a start that is sent now waits at this rate; ``None`` if none was ended of late.
    """

    version: Literal[1] = 1
    starts: int
    coordinators: int
    per_second: float
    seconds: float | None


class FoundEntry(Message):
    """An entry of a process's log: an attempt of a step, or something that was done to the process.

    Args:
        failure: the error's class and message.
    """

    sequence: int
    kind: Literal["step", "process"]
    name: str
    position: int | None
    attempt: int
    status: str
    author: str
    consumer: str | None
    note: str | None
    failure: dict[str, JSON] | None
    started_at: datetime
    finished_at: datetime


class ProcessFound(Message):
    """The answer to a query for a process.

    Args:
        steps: its log, in order; the newest entries, if all would make the message too large.
        state: the present state; ``None`` if it would make the message too large.
        left_out: which of ``steps`` and ``state`` are not complete.
        parent_id: the process one of whose steps has started it.
    """

    process_id: UUID
    parent_id: UUID | None
    workflow: str
    is_task: bool
    status: str
    step: str | None
    sequence: int
    started_by: str
    actor: str
    assignee: str
    started_at: datetime
    updated_at: datetime
    due_at: datetime | None
    claimed: bool
    note: str | None
    noted_by: str | None
    noted_at: datetime | None
    steps: list[FoundEntry]
    state: dict[str, Any] | None
    left_out: list[Literal["steps", "state"]] = Field(default_factory=list)


class FoundBlock(Message):
    """A block in one place of a subscription; ``blocks`` are those in its fields, shown at its first place only."""

    field: str
    position: int
    name: str
    subscription_instance_id: UUID
    owner_subscription_id: UUID
    label: str | None
    resources: dict[str, Any]
    blocks: list[FoundBlock]
    is_repeated: bool


class SubscriptionFound(Message):
    """The answer to a query for a subscription.

    Args:
        locked_by: the process that holds it.
        blocks: ``None`` if they would make the message too large.
        uses, in_use_by: other subscriptions whose blocks it uses, or that use its blocks.
    """

    subscription_id: UUID
    description: str
    status: str
    insync: bool
    customer_id: str
    product: str
    product_id: UUID
    product_type: str
    product_tag: str
    note: str | None
    version: int
    start_date: datetime | None
    end_date: datetime | None
    created_at: datetime
    updated_at: datetime
    locked_by: UUID | None
    fixed_inputs: dict[str, str]
    blocks: list[FoundBlock] | None
    uses: list[UUID]
    in_use_by: list[UUID]
    left_out: list[Literal["blocks"]] = Field(default_factory=list)


class FoundWorkflow(Message):
    """A workflow that migrations have registered."""

    name: str
    target: str
    is_task: bool
    description: str


class WorkflowsListed(Message):
    """The answer to a query for the workflows, by name."""

    workflows: list[FoundWorkflow]
