"""Decisions as plain values: the next process, the new log entries, and what must be done."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from orchestrator.engine.events import Failure
from orchestrator.engine.process import Process
from orchestrator.engine.values import value
from orchestrator.types import ProcessStatus, State, StepStatus


class EntryKind(StrEnum):
    """What a log entry is about."""

    STEP = "step"
    PROCESS = "process"


@value(frozen=True, slots=True)
class Entry:
    """One row of the log; never changed once written.

    The state after any entry is the fold of all entries up to it: ``delta`` merged in, ``removed`` taken out.

    Args:
        name: the step's name, or for a process entry what happened to it.
        position: the step's position; ``None`` for a process entry.
        status: a step status, or for a process entry the process's status from here on.
        ran: whether the entry is about an attempt that ran, which began when the attempt was claimed.
    """

    sequence: int
    kind: EntryKind
    name: str
    status: StepStatus | ProcessStatus
    attempt: int
    author: str
    position: int | None = None
    delta: State = field(default_factory=dict)
    removed: tuple[str, ...] = ()
    failure: Failure | None = None
    note: str | None = None
    ran: bool = False


@value(frozen=True, slots=True)
class Dispatch:
    """Publish a command: run the step at ``position`` if the process's attempt is still ``attempt``.

    Args:
        lost: how many attempts of this step in a row were lost with their consumers; those of suspects run apart.
    """

    position: int
    attempt: int
    queue: str
    step: str
    lost: int = 0


@dataclass(frozen=True, slots=True)
class OpenCallback:
    """Store a new callback token before the action runs; it supersedes any earlier one of this process."""

    position: int
    step: str
    token: str
    timeout: timedelta | None


@dataclass(frozen=True, slots=True)
class ParkCallback:
    """Delete the token's plaintext, set the deadline and use an early answer, because the action has committed."""


@dataclass(frozen=True, slots=True)
class MoveCallback:
    """Store that the step that waits for the answer is now at another position of the plan."""

    position: int


@dataclass(frozen=True, slots=True)
class CloseCallback:
    """Invalidate the token; ``outcome`` says why: used, failed or superseded."""

    outcome: str


CallbackChange = OpenCallback | ParkCallback | MoveCallback | CloseCallback


@value(frozen=True, slots=True)
class Decision:
    """The next process and what must be done. It is stored as a whole or not at all.

    Args:
        entries: log rows to append, in order.
        dispatch: the one command to publish after the commit.
        callback: what happens to the process's callback row.
        retry_in: seconds after which a waiting step is due.
    """

    process: Process
    entries: tuple[Entry, ...]
    dispatch: Dispatch | None = None
    callback: CallbackChange | None = None
    retry_in: float | None = None
