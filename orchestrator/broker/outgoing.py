"""Build the messages that the engine publishes; dead letters are built by :mod:`orchestrator.broker.dead_letters`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from random import getrandbits
from typing import Any
from uuid import UUID

from pydantic_core import to_json

from orchestrator.broker.topology import RESULT_KEY, Exchanges, result_key
from orchestrator.messages import (
    VERSION,
    Advanced,
    LoggedEntry,
    Look,
    MessageType,
    NextStep,
    StepCommand,
    encode,
    read_event,
)

SINCE = "since"
"""The header of a step command, unless it was handed back, that says since when it waits."""

_DIRECT = "amq.rabbitmq.reply-to."

_PROCESS_EVENT, _STEP_EVENT = MessageType.PROCESS_EVENT.value, MessageType.STEP_EVENT.value
_STEP_COMMAND = MessageType.STEP_COMMAND.value


# Not frozen: setting nine fields of a frozen one takes as long as encoding the body, and three are made for each process.
@dataclass(slots=True)
class Outgoing:
    """A message to publish; immutable.

    Args:
        exchange: one of the engine's, or ``""`` for a reply straight into the sender's queue.
        mandatory: whether the broker returns the message when no queue takes it.
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

    Its header ``since`` says since when it waits for a consumer, by the database's clock. Because a queue is in order, it shows
    which commands have left the queue.
    """
    # A StepCommand, encoded without its model: every value comes from a validated message, and this runs for every process.
    command = {
        "version": VERSION,
        "process_id": message.process_id,
        "workflow": message.workflow,
        "step": following.step,
        "position": following.position,
        "attempt": following.attempt,
        "announced": announced,
        "lost": following.lost,
        "declined_by": (),
        "plan": message.plan,
        "unread": unread,
    }
    return _of_process(
        Exchanges.STEPS,
        following.queue,
        _STEP_COMMAND,
        to_json(command),
        message.process_id,
        message.workflow,
        following.step,
        since=message.at,
    )


def declined_command(command: StepCommand, queue: str) -> Outgoing:
    """Rebuild a command that a consumer of ``queue`` cannot run, for the end of that queue."""
    return _of_process(
        Exchanges.STEPS, queue, _STEP_COMMAND, encode(command), command.process_id, command.workflow, command.step
    )


def step_result(message: Advanced, step: str | None, queue: str | None = None) -> Outgoing:
    """Build the message that a consumer publishes after it has stored the outcome of ``step`` of a step queue."""
    return _of_process(
        Exchanges.RESULTS,
        result_key(queue),
        MessageType.STEP_RESULT.value,
        encode(message),
        message.process_id,
        message.workflow,
        step,
    )


def result_to_be(
    fields: Mapping[str, object], process_id: UUID, workflow: str, step: str | None, queue: str | None
) -> Outgoing:
    """Build the same message before the outcome is stored; :func:`complete` adds what is known only then.

    Args:
        fields: those of an :class:`Advanced` but for ``at`` and ``announced``, from values that need no validation.
    """
    kind = MessageType.STEP_RESULT.value
    return _of_process(Exchanges.RESULTS, result_key(queue), kind, to_json(fields), process_id, workflow, step)


def complete(message: Outgoing, at: datetime, announced: int) -> Outgoing:
    """Return the message about an outcome that is stored now. It is the same one, changed: complete it once."""
    message.body = b'{"at":"%s","announced":%d,%s' % (at.isoformat().encode(), announced, message.body[1:])
    return message


def look(process_id: UUID, workflow: str, step: str | None = None) -> Outgoing:
    """Build the request that a coordinator read the rows of a process and publish what is due."""
    body = encode(Look(process_id=process_id))
    return _of_process(Exchanges.RESULTS, RESULT_KEY, MessageType.LOOK.value, body, process_id, workflow, step)


def event(routing_key: str, message: Advanced, entry: LoggedEntry) -> Outgoing:
    """Build the process event or the step event of a log entry in ``message``."""
    kind = _STEP_EVENT if entry.kind == "step" else _PROCESS_EVENT
    # Encoding the fields without their model takes a quarter of the time.
    body = to_json(read_event(message, entry))
    return _of_process(Exchanges.EVENTS, routing_key, kind, body, message.process_id, message.workflow, optional=True)


def reply(reply_to: str, correlation_id: str | None, kind: MessageType, body: bytes) -> Outgoing:
    """Build the answer to a command or a query, for the queue that its sender has named."""
    # Direct reply-to is no queue: the broker delivers such a message, and returns it when it is mandatory
    # (https://www.rabbitmq.com/docs/direct-reply-to#limitations).
    is_queue = not reply_to.startswith(_DIRECT)
    return Outgoing("", reply_to, kind.value, body, correlation_id, mandatory=is_queue)


def _of_process(
    exchange: Exchanges,
    routing_key: str,
    kind: str,
    body: bytes,
    process_id: UUID,
    workflow: str,
    step: str | None = None,
    *,
    optional: bool = False,
    since: datetime | None = None,
) -> Outgoing:
    # A process is one trace: its id serves as the W3C trace id (both are 16 bytes), so that nothing need be stored.
    span = getrandbits(64) or 1
    headers = {"workflow": workflow, "traceparent": f"00-{process_id.hex}-{span:016x}-01"}
    if step is not None:
        headers["step"] = step
    if since is not None:
        headers[SINCE] = since.isoformat()
    return Outgoing(exchange, routing_key, kind, body, str(process_id), headers, optional=optional)
