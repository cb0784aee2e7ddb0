"""Build the messages that the engine publishes; dead letters are built by :mod:`orchestrator.broker.dead_letters`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from random import getrandbits
from typing import Any
from uuid import UUID

from orchestrator.broker.topology import RESULT_KEY, Exchanges, result_key
from orchestrator.messages import (
    Advanced,
    Look,
    MessageType,
    NextStep,
    ProcessEvent,
    StepCommand,
    StepEvent,
    encode,
)

SINCE = "since"
"""The header of a step command that has not been handed back: since when it waits."""

_DIRECT = "amq.rabbitmq.reply-to."


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to publish.

    Args:
        exchange: one of ours, or ``""`` for a reply straight into the sender's queue.
        mandatory: whether the broker says so when no queue takes the message.
        optional: whether that is no error. Events need no reader.
        properties: further properties, by the client library's names; those of another sender's message that is passed on.
    """

    exchange: str
    routing_key: str
    type: str
    body: bytes
    correlation_id: str | None = None
    headers: Mapping[str, Any] = field(default_factory=dict)
    mandatory: bool = True
    properties: Mapping[str, Any] = field(default_factory=dict)
    optional: bool = False


def step_command(message: Advanced, following: NextStep, announced: int, *, unread: bool = False) -> Outgoing:
    """Build the command that runs the next step of the process in ``message``; ``announced`` goes to the claim.

    Its header ``since`` says since when it waits for a consumer, by the database's clock. A queue is in order: so it shows which
    commands are no longer in it.
    """
    command = StepCommand(
        process_id=message.process_id,
        workflow=message.workflow,
        step=following.step,
        position=following.position,
        attempt=following.attempt,
        announced=announced,
        lost=following.lost,
        plan=message.plan,
        unread=unread,
    )
    return _of_process(
        Exchanges.STEPS,
        following.queue,
        MessageType.STEP_COMMAND,
        command,
        message.workflow,
        following.step,
        since=message.at,
    )


def declined_command(command: StepCommand, queue: str) -> Outgoing:
    """Build a command again that a consumer of ``queue`` cannot carry out, for the end of that queue."""
    return _of_process(Exchanges.STEPS, queue, MessageType.STEP_COMMAND, command, command.workflow, command.step)


def step_result(message: Advanced, step: str | None, queue: str | None = None) -> Outgoing:
    """Build the message that a consumer publishes after it has stored the outcome of ``step`` of a step queue."""
    return _of_process(Exchanges.RESULTS, result_key(queue), MessageType.STEP_RESULT, message, message.workflow, step)


def look(process_id: UUID, workflow: str, step: str | None = None) -> Outgoing:
    """Build the request that a coordinator read the rows of a process and publish what is due."""
    message = Look(process_id=process_id)
    return _of_process(Exchanges.RESULTS, RESULT_KEY, MessageType.LOOK, message, workflow, step)


def event(routing_key: str, message: ProcessEvent) -> Outgoing:
    """Build a process event or a step event."""
    kind = MessageType.STEP_EVENT if isinstance(message, StepEvent) else MessageType.PROCESS_EVENT
    return _of_process(Exchanges.EVENTS, routing_key, kind, message, message.workflow, optional=True)


def reply(reply_to: str, correlation_id: str | None, kind: MessageType, body: bytes) -> Outgoing:
    """Build the answer to a command or a query, for the queue that its sender has named."""
    # Direct reply-to is no queue: the broker delivers such a message, and returns it when it is mandatory
    # (https://www.rabbitmq.com/docs/direct-reply-to#limitations).
    is_queue = not reply_to.startswith(_DIRECT)
    return Outgoing("", reply_to, kind.value, body, correlation_id, mandatory=is_queue)


def _of_process(
    exchange: Exchanges,
    routing_key: str,
    kind: MessageType,
    message: StepCommand | Advanced | Look | ProcessEvent,
    workflow: str,
    step: str | None = None,
    *,
    optional: bool = False,
    since: datetime | None = None,
) -> Outgoing:
    # A process is one trace: its id serves as the W3C trace id (both are 16 bytes), so that nothing need be stored.
    span = getrandbits(64) or 1
    headers = {"workflow": workflow, "traceparent": f"00-{message.process_id.hex}-{span:016x}-01"}
    if step is not None:
        headers["step"] = step
    if since is not None:
        headers[SINCE] = since.isoformat()
    return Outgoing(
        exchange, routing_key, kind.value, encode(message), str(message.process_id), headers, optional=optional
    )
