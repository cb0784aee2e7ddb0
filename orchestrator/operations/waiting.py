"""Explain why no consumer has claimed a step: who reads its queue, and what keeps them from running it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.db.status import ConsumerSighting
from orchestrator.registry import step_queues_by_workflow
from orchestrator.workflow.values import DEFAULT_QUEUE, TASK_QUEUE

MAX_NAMES = 5
"""Workflows or consumers that one line names."""


@dataclass(frozen=True, slots=True)
class Reader:
    """A living consumer of a step's queue; ``inability`` says why it cannot run the step, ``None`` that it can."""

    name: str
    inability: str | None
    running: int
    concurrency: int
    is_blocked: bool = False

    @property
    def busyness(self) -> str | None:
        """Return what keeps it from taking a step now, as a predicate; ``None`` when it is free."""
        if self.is_blocked:
            return "does not respond: its event loop is blocked"
        return f"runs {self.running} steps, at most {self.concurrency}" if self.running >= self.concurrency else None


@dataclass(frozen=True, slots=True)
class Wait:
    """What a step waits for that no consumer has claimed.

    Args:
        queue: its queue; ``None`` when this program does not know the step.
        readers: the living consumers of that queue; all living ones when it is not known.
        running: how many consumers are alive.
        ahead: how many steps have waited in that queue longer; ``None`` when nobody has counted.
    """

    queue: str | None
    readers: Sequence[Reader]
    running: int
    paused: bool
    ahead: int | None = None

    @classmethod
    def of(
        cls,
        workflow: str,
        queue: str | None,
        consumers: Sequence[ConsumerSighting],
        *,
        paused: bool,
        plans: Sequence[str] = (),
        ahead: int | None = None,
    ) -> Wait:
        """Build it from what the database knows of all consumers.

        Args:
            plans: the fingerprints of plans of which a consumer must have one; none for any.
        """
        alive = [one for one in consumers if one.alive]
        readers = [
            Reader(
                one.name,
                one.explain_inability(workflow, plans),
                one.running,
                one.concurrency,
                one.blocked_for is not None,
            )
            for one in alive
            if queue is None or queue in one.queues
        ]
        return cls(queue, readers, len(alive), paused, ahead)

    @property
    def is_stuck(self) -> bool:
        """Whether no living consumer can run the step."""
        return not self.paused and all(one.inability is not None for one in self.readers)

    def summary(self) -> str:
        """Return in a few words what the step waits for."""
        queue = "its queue" if self.queue is None else f"the queue '{self.queue}'"
        ahead = "" if self.ahead is None else f"; {self.ahead} ahead"
        if self.paused:
            return "the engine is paused"
        if not self.running:
            return "no consumer is running; 'orchestrator dev' starts a coordinator and a consumer"
        if not self.readers:
            return f"no consumer reads {queue}: '{reader_of(self.queue or DEFAULT_QUEUE)}' starts one{ahead}"
        if self.is_stuck:
            return f"no consumer of {queue} can run it{ahead}"
        if self.queue is None:
            return "this program does not know that step (ORCHESTRATOR_WORKFLOWS), and so not its queue"
        read = "" if self.ahead is None else f", {len(self.readers)} {_number('consumer', self.readers)} it"
        if all(one.busyness is not None for one in self.readers if one.inability is None):
            return f"waits in {queue}: every consumer that can run it is busy{ahead}{read}"
        return f"waits in {queue} for its turn{ahead}{read}"

    def details(self) -> Iterator[str]:
        """Yield a line for each consumer that reads the queue and cannot run the step, or is busy."""
        if self.paused:
            return
        reasons = [(one.name, one.inability or one.busyness) for one in self.readers]
        shown = [(name, reason) for name, reason in reasons if reason is not None]
        reads = "" if self.queue is None else "reads this queue, but "
        for name, reason in shown[:MAX_NAMES]:
            yield f"{name} {reads}{reason}"
        if len(shown) > MAX_NAMES:
            yield f"and {len(shown) - MAX_NAMES} more"

    def document(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "queue": self.queue,
            "ahead": self.ahead,
            "waits_for": self.summary(),
            "readers": [
                {
                    "name": one.name,
                    "inability": one.inability,
                    "running": one.running,
                    "concurrency": one.concurrency,
                }
                for one in self.readers
            ],
        }


def list_inabilities(consumers: Sequence[ConsumerSighting]) -> Iterator[str]:
    """Yield what living consumers cannot run of the workflows that have steps in the queues they read, a line for each reason.

    What this program does not know either is found only when a process waits for it.
    """
    queues = step_queues_by_workflow()
    for one in (one for one in consumers if one.alive):
        found: dict[str, list[str]] = {}
        for workflow in sorted({*queues, *one.broken}):
            reads = workflow in one.broken or queues[workflow] & set(one.queues)
            if reads and (inability := one.explain_inability(workflow)) is not None:
                found.setdefault(inability.replace(f"'{workflow}'", "{}", 1), []).append(workflow)
        for reason, workflows in found.items():
            names = ", ".join(f"'{name}'" for name in workflows[:MAX_NAMES])
            more = f" and {len(workflows) - MAX_NAMES} more" if len(workflows) > MAX_NAMES else ""
            yield f"{one.name} {reason.replace('{}', names + more, 1)}"


def _number(noun: str, some: Sequence[object]) -> str:
    return f"{noun} reads" if len(some) == 1 else f"{noun}s read"


def reader_of(queue: str) -> str:
    """Return the command that reads a step queue."""
    return "orchestrator consumer" if queue in {DEFAULT_QUEUE, TASK_QUEUE} else f"orchestrator consumer --queue {queue}"
