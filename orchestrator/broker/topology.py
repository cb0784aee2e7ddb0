"""Every exchange, queue and binding of the engine, as values; no other module names them.

There is one exchange for each kind of writer, so that permissions are granted by exchange, and one queue for each kind of
reader.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from orchestrator.workflow import DEFAULT_QUEUE, TASK_QUEUE

QueueType = Literal["quorum", "classic"]


class Exchanges(StrEnum):
    """The names of the exchanges."""

    COMMANDS = "orchestrator.commands"
    STEPS = "orchestrator.steps"
    RESULTS = "orchestrator.results"
    CALLBACKS = "orchestrator.callbacks"
    EVENTS = "orchestrator.events"
    DEAD = "orchestrator.dead"


class Queues(StrEnum):
    """The names of the queues; step queues are named by :func:`step_queue`."""

    COMMANDS = "orchestrator.commands"
    CONTROL = "orchestrator.control"
    RESULTS = "orchestrator.results"
    TASKS_RESULTS = f"orchestrator.results.{TASK_QUEUE}"
    CALLBACKS = "orchestrator.callbacks"
    LETTERS = "orchestrator.letters"
    DEAD = "orchestrator.dead"


RESULT_KEY = "result"
"""The routing key of step results and look requests."""

TASKS_RESULT_KEY = f"{RESULT_KEY}.{TASK_QUEUE}"
"""The routing key of results of steps of the queue ``tasks``: thousands of them must not delay the others."""

DELIVERY_LIMIT = 20
"""How often a command or callback is redelivered before the broker dead-letters it: enough for restarts, not for ever."""

UNLIMITED = 1_000_000
"""The delivery limit of queues without one: RabbitMQ's own value for that, -1, drops messages at once on version 3.10."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """An exchange to declare, and who writes to it."""

    name: Exchanges
    type: Literal["topic", "direct", "fanout"]
    writers: str


@dataclass(frozen=True, slots=True)
class Queue:
    """A durable queue to declare, its bindings to one exchange, and who reads it.

    Args:
        keys: of its bindings.
        former: keys of bindings of older versions, which are removed once all others exist.
        precious: whether its messages exist nowhere else, so that the broker must dead-letter rather than drop them.
            Step commands and results can be rebuilt from the database at any time.
    """

    name: str
    exchange: Exchanges
    keys: tuple[str, ...]
    reader: str
    precious: bool = False
    former: tuple[str, ...] = ()

    def arguments(self, queue_type: QueueType) -> dict[str, str | int]:
        """Return the ``x-`` arguments. They cannot be changed once the queue exists, so they are few."""
        arguments: dict[str, str | int] = {"x-queue-type": queue_type}
        if self.precious:
            arguments["x-dead-letter-exchange"] = Exchanges.DEAD.value
            if queue_type == "quorum":
                # At-least-once dead-lettering (RabbitMQ 3.10) needs the queue to refuse rather than drop when it is full.
                arguments |= {
                    "x-delivery-limit": DELIVERY_LIMIT,
                    "x-dead-letter-strategy": "at-least-once",
                    "x-overflow": "reject-publish",
                }
        elif self.name in {Queues.LETTERS, Queues.DEAD} and queue_type == "quorum":
            # RabbitMQ 4 would drop a letter that was returned twenty times, because PostgreSQL was unreachable or had no room, or
            # because operators have read it.
            arguments["x-delivery-limit"] = UNLIMITED
        return arguments


_SEND_AGAIN = "coordinator, API, command line"
"""The programs that republish messages of others: commands whose workflow is busy, and dead letters."""

EXCHANGES = (
    Exchange(Exchanges.COMMANDS, "topic", f"other services, {_SEND_AGAIN}"),
    Exchange(Exchanges.STEPS, "direct", "coordinator, consumers"),
    Exchange(Exchanges.RESULTS, "direct", "consumers, API, command line"),
    Exchange(Exchanges.CALLBACKS, "topic", f"external systems, {_SEND_AGAIN}"),
    Exchange(Exchanges.EVENTS, "topic", "coordinator"),
    Exchange(Exchanges.DEAD, "fanout", "broker, coordinator, consumers"),
)

_CONTROL_KEYS = (
    "process.resume",
    "process.abort",
    "process.get",
    "subscription.get",
    "workflow.list",
)

FIXED_QUEUES = (
    Queue(
        Queues.COMMANDS.value,
        Exchanges.COMMANDS,
        ("workflow.start",),
        "coordinator",
        precious=True,
        former=_CONTROL_KEYS,
    ),
    # A queue of its own, so that thousands of starts do not delay commands about running processes.
    Queue(
        Queues.CONTROL.value,
        Exchanges.COMMANDS,
        (*_CONTROL_KEYS, "backlog.get"),
        "coordinator",
        precious=True,
    ),
    Queue(Queues.RESULTS.value, Exchanges.RESULTS, (RESULT_KEY,), "coordinator"),
    Queue(Queues.TASKS_RESULTS.value, Exchanges.RESULTS, (TASKS_RESULT_KEY,), "coordinator"),
    Queue(
        Queues.CALLBACKS.value,
        Exchanges.CALLBACKS,
        ("callback.completed", "callback.failed", "callback.progress"),
        "coordinator",
        precious=True,
    ),
    Queue(Queues.LETTERS.value, Exchanges.DEAD, ("",), "coordinator"),
    # Coordinators put copies here, through the default exchange.
    Queue(Queues.DEAD.value, Exchanges.DEAD, (), "operators", former=("",)),
)


def result_key(queue: str | None) -> str:
    """Return the routing key of a result of a step of this queue."""
    return TASKS_RESULT_KEY if queue == TASK_QUEUE else RESULT_KEY


def step_queue(name: str) -> str:
    """Return the broker's name of a step queue."""
    return f"{Exchanges.STEPS}.{name}"


def listener_queue(name: str) -> str:
    """Return the broker's name of the queue that wakes one program at events; it is deleted with the program's connection."""
    return f"{Exchanges.EVENTS}.{name}"


def is_of_engine(queue: str) -> bool:
    """Return whether a queue is one of the engine's. A message published straight to it would bypass the permissions."""
    return queue in set(Queues) or queue.startswith((step_queue(""), listener_queue("")))


def queue_name(queue: str) -> str:
    """Return the authors' name of a step queue, which is its routing key."""
    return queue.removeprefix(step_queue(""))


@dataclass(frozen=True, slots=True)
class Topology:
    """Everything that one installation declares.

    Args:
        queue_type: of every queue.
        step_queues: the authors' names of the step queues, the two standard ones included.
    """

    queue_type: QueueType = "quorum"
    step_queues: frozenset[str] = field(default_factory=lambda: frozenset({DEFAULT_QUEUE, TASK_QUEUE}))

    @classmethod
    def of(cls, queue_type: QueueType, step_queues: Iterable[str] = ()) -> Topology:
        """Build a topology with the standard step queues and these."""
        return cls(queue_type, frozenset({DEFAULT_QUEUE, TASK_QUEUE, *step_queues}))

    @property
    def queues(self) -> tuple[Queue, ...]:
        """All queues, to be declared."""
        steps = (Queue(step_queue(name), Exchanges.STEPS, (name,), "consumers") for name in sorted(self.step_queues))
        return (*FIXED_QUEUES, *steps)
