"""Where the consumer of a test dies, and what its steps did before and after."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID

from orchestrator.engine.events import Event, StepFailed, StepSucceeded
from orchestrator.engine.process import Process
from orchestrator.types import State

When = Literal["before", "after_run", "after_commit"]

Observe = Callable[[], object | Awaitable[object]]


class ConsumerCrash(BaseException):
    """The consumer dies here. No code that handles errors sees it, as it sees no ``kill -9``."""


@dataclass(slots=True)
class CrashPoint:
    """One crash to come, and whether it has happened.

    Args:
        step: the name of the step.
        when: before its function runs, after that and before the commit, or after the commit.
    """

    step: str
    when: When
    has_happened: bool = False


@dataclass(frozen=True, slots=True)
class _Outcome:
    delta: State
    observed: object


@dataclass(slots=True)
class Repetition:
    """Steps that run twice, and in what the two runs differ.

    Args:
        steps: their names; none for all.
        observe: returns what is to be the same after both, beside what the step has returned.
        ignoring: keys of the state that may differ.
    """

    steps: Collection[str]
    observe: Observe | None
    ignoring: Collection[str]
    repeated: set[str] = field(default_factory=set)
    differences: list[str] = field(default_factory=list)
    _first: dict[tuple[UUID, int, str], _Outcome | None] = field(default_factory=dict)

    async def see(self, process: Process, step: str, event: Event) -> bool:
        """Take note of how a step has run; return whether its consumer is to die now, so that it runs again."""
        if self.steps and step not in self.steps:
            return False
        key = (process.process_id, process.rewinds, step)
        if key not in self._first:
            if not isinstance(event, StepSucceeded):
                return False  # a failure is stored, and retried by whoever retries
            self._first[key] = await self._observe(event)
            return True
        first, self._first[key] = self._first[key], None
        if first is None:
            return False
        self.repeated.add(step)
        if isinstance(event, StepFailed):
            said = f"{event.failure.type}: {event.failure.message}"
            self.differences.append(
                f"{step!r} succeeded, and failed when it ran again: {said}\n{event.failure.traceback}"
            )
        elif isinstance(event, StepSucceeded):
            self._compare(step, first, await self._observe(event))
        return False

    async def _observe(self, event: StepSucceeded) -> _Outcome:
        observed = None
        if self.observe is not None:
            observed = self.observe()
            if inspect.isawaitable(observed):
                observed = await observed
        delta = {key: value for key, value in event.delta.items() if key not in self.ignoring}
        return _Outcome(delta, copy.deepcopy(observed))

    def _compare(self, step: str, first: _Outcome, second: _Outcome) -> None:
        for key in sorted(first.delta.keys() | second.delta.keys()):
            before, after = first.delta.get(key), second.delta.get(key)
            if before != after:
                self.differences.append(f"{step!r} returned {key}={before!r}, and when it ran again {key}={after!r}")
        if first.observed != second.observed:
            self.differences.append(
                f"after {step!r} there was {first.observed!r}, and when it had run again {second.observed!r}"
            )


@dataclass(slots=True)
class Crashes:
    """Everything that is to make the consumer of a test die."""

    points: list[CrashPoint] = field(default_factory=list)
    repetitions: list[Repetition] = field(default_factory=list)

    def reach(self, step: str, when: When) -> None:
        """Die if a crash is to come here.

        Raises:
            ConsumerCrash.
        """
        for point in self.points:
            if not point.has_happened and (point.step, point.when) == (step, when):
                point.has_happened = True
                raise ConsumerCrash

    async def end_run(self, process: Process, step: str, event: Event) -> None:
        """Take note of how a step has run, before that is stored; die if it is to run again.

        Raises:
            ConsumerCrash.
        """
        dies = [await one.see(process, step, event) for one in self.repetitions]
        if any(dies):
            raise ConsumerCrash
        self.reach(step, "after_run")
