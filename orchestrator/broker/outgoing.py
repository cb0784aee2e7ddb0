"""Build every message that the engine publishes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID, uuid4

from orchestrator.broker.incoming import MAX_HEADER, Delivery
from orchestrator.broker.topology import RESULT_KEY, Exchanges
from orchestrator.messages import (
    Advanced,
    Look,
    Message,
    MessageType,
    NextStep,
    ProcessEvent,
    StepCommand,
    StepEvent,
    encode,
)
from orchestrator.text import sanitise


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to publish.

    Args:
        exchange: one of ours, or ``""`` for a reply straight into the sender's queue.
        mandatory: whether it is an error that no queue takes the message. False for events, which need no subscriber.
    """

    exchange: str
    routing_key: str
    type: str
    body: bytes
    correlation_id: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    mandatory: bool = True


def step_command(message: Advanced, following: NextStep, announced: int) -> Outgoing:
    """Build the command that runs the next step of the process in ``message``; ``announced`` goes to the claim."""
    command = StepCommand(
        process_id=message.process_id,
        workflow=message.workflow,
        step=following.step,
        position=following.position,
        attempt=following.attempt,
        announced=announced,
        lost=following.lost,
        plan=message.plan,
    )
    return _of_process(
        Exchanges.STEPS, following.queue, MessageType.STEP_COMMAND, command, message.workflow, following.step
    )


def declined_command(command: StepCommand, queue: str) -> Outgoing:
    """Build a command again that a consumer of ``queue`` cannot carry out, for the end of that queue."""
    return _of_process(Exchanges.STEPS, queue, MessageType.STEP_COMMAND, command, command.workflow, command.step)


def step_result(message: Advanced, step: str | None) -> Outgoing:
    """Build the message that a consumer publishes after it has stored the outcome of ``step``."""
    return _of_process(Exchanges.RESULTS, RESULT_KEY, MessageType.STEP_RESULT, message, message.workflow, step)


def look(process_id: UUID, workflow: str, step: str | None = None) -> Outgoing:
    """Build the request that a coordinator read the rows of a process and publish what is due."""
    message = Look(process_id=process_id)
    return _of_process(Exchanges.RESULTS, RESULT_KEY, MessageType.LOOK, message, workflow, step)


def event(routing_key: str, message: ProcessEvent) -> Outgoing:
    """Build a process event or a step event."""
    kind = MessageType.STEP_EVENT if isinstance(message, StepEvent) else MessageType.PROCESS_EVENT
    return _of_process(Exchanges.EVENTS, routing_key, kind, message, message.workflow, mandatory=False)


def reply(reply_to: str, correlation_id: str | None, kind: MessageType, answer: Message) -> Outgoing:
    """Build the answer to a command, for the queue that its sender has named."""
    return Outgoing("", reply_to, kind.value, encode(answer), correlation_id)


def dead_letter(delivery: Delivery, reason: str) -> Outgoing:
    """Build the dead letter for a delivery that cannot be processed; its header ``x-reason`` says why."""
    return Outgoing(
        Exchanges.DEAD,
        "",
        delivery.type or "",
        delivery.body,
        # A callback's correlation id is its token, which operators who read the dead-letter queue must not see.
        None if delivery.queue == Exchanges.CALLBACKS else delivery.correlation_id,
        {
            "x-reason": sanitise(reason)[:MAX_HEADER],
            "x-queue": delivery.queue,
            "x-routing-key": delivery.routing_key,
            **delivery.trace,
        },
    )


def _of_process(
    exchange: Exchanges,
    routing_key: str,
    kind: MessageType,
    message: StepCommand | Advanced | Look | ProcessEvent,
    workflow: str,
    step: str | None = None,
    *,
    mandatory: bool = True,
) -> Outgoing:
    # A process is one trace: its id serves as the W3C trace id (both are 16 bytes), so that nothing need be stored.
    headers = {"workflow": workflow, "traceparent": f"00-{message.process_id.hex}-{uuid4().hex[:16]}-01"}
    if step is not None:
        headers["step"] = step
    return Outgoing(
        exchange, routing_key, kind.value, encode(message), str(message.process_id), headers, mandatory=mandatory
    )
