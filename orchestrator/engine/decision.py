"""What a decision says: the next process, the log's new rows and what must be done. Plain values."""

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

    The state after any entry is the fold of all entries up to it: ``delta`` merged over, ``removed`` taken away.

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
    """Make a callback token ready before the action runs; any earlier one of this process is superseded."""

    position: int
    step: str
    token: str
    timeout: timedelta | None


@dataclass(frozen=True, slots=True)
class ParkCallback:
    """The action has committed: delete the token's plaintext, set the deadline, look for an early answer."""


@dataclass(frozen=True, slots=True)
class MoveCallback:
    """The step that waits for the answer stands at another position of the plan now."""

    position: int


@dataclass(frozen=True, slots=True)
class CloseCallback:
    """The token is no longer valid; ``outcome`` says why: used, failed or superseded."""

    outcome: str


CallbackChange = OpenCallback | ParkCallback | MoveCallback | CloseCallback


@value(frozen=True, slots=True)
class Decision:
    """The next process and what must be done: all of it, or none.

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
