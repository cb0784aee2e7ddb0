"""One run of a workflow as an immutable value, as the core sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid5

from orchestrator.errors import UnreadableStateError
from orchestrator.types import ProcessStatus, State

SYSTEM = "SYSTEM"
"""The assignee of a process that needs no action of a person."""


@dataclass(frozen=True, slots=True)
class Process:
    """One run of a workflow.

    Args:
        position: the leaf step of the plan that is next, or under way; the plan's length when the process is completed.
        step: the name of that step, so that it is found again after the code has changed; ``None`` at the end.
        entered: whether the conditions of this position have been evaluated.
        attempt: raised by one each time a step is claimed; never falls. The fencing token.
        sequence: of the newest log entry; counts from 1 without gaps.
        failures: failed tries of the present step since an operator last retried it.
        lost: consumers in a row that fell silent while running the present step.
        interruptions: attempts in a row that ended for a reason beyond the step, such as a lost database connection.
        crashes: child processes in a row that died while running the present step alone.
        rewinds: how often the process has gone back: a retry to the action of a callback step, an operator to an earlier step.
        state: what the process knows.
        unreadable: keys of the state whose values cannot be read, each with the reason; they are not in ``state``.
        started_by: who started the process.
        actor: who started, resumed or retried it last: the author of the steps that run now.
        assignee: who must act on it now; ``SYSTEM`` for the engine itself.
        plan: the fingerprint of the plan that decides what is next; ``None`` for one that an engine before 0.1.0 has stored.
    """

    process_id: UUID
    workflow: str
    status: ProcessStatus
    position: int
    step: str | None
    attempt: int
    sequence: int
    state: State
    started_by: str
    actor: str
    entered: bool = True
    failures: int = 0
    lost: int = 0
    interruptions: int = 0
    crashes: int = 0
    rewinds: int = 0
    assignee: str = SYSTEM
    unreadable: Mapping[str, str] = field(default_factory=dict)
    plan: str | None = None

    def idempotency_key(self, step: str) -> str:
        """Return a UUID that names this step of this process to external systems: the same on every attempt.

        Only a process that goes back requests new external work, and gets new keys: by a retry of a callback step, or because
        an operator rewinds it.
        """
        key = uuid5(self.process_id, step)
        return str(uuid5(key, str(self.rewinds)) if self.rewinds else key)

    def require_readable(self) -> None:
        """Check that the whole state could be read, because nothing may be decided or run with a part of it.

        Raises:
            UnreadableStateError: a key cannot be read.
        """
        if self.unreadable:
            keys = "; ".join(f"the value of {key!r}: {reason}" for key, reason in self.unreadable.items())
            raise UnreadableStateError(
                f"the state of this process cannot be read ({keys}): replace or remove it with 'orchestrator patch"
                f" {self.process_id}' and retry, or abort the process"
            )


class OpenProcess(Process):
    """A process that is not finished yet: its fields can be set until it is closed.

    A frozen dataclass sets each of its fields by a call, and a decision changes a process several times. One open copy for all
    of that takes a sixth of the time.
    """

    __slots__ = ()
    # Both, or the interpreter looks for each of them at each assignment.
    __setattr__, __delattr__ = object.__setattr__, object.__delattr__

    def close(self) -> None:
        """Make it immutable, like every other process."""
        self.__class__ = Process  # type: ignore[assignment]


def open_copy(process: Process) -> OpenProcess:
    """Return a copy whose fields can be set."""
    copy: Any = object.__new__(OpenProcess)
    # Written out: a loop over the names takes four times as long.
    copy.process_id = process.process_id
    copy.workflow = process.workflow
    copy.status = process.status
    copy.position = process.position
    copy.step = process.step
    copy.attempt = process.attempt
    copy.sequence = process.sequence
    copy.state = process.state
    copy.started_by = process.started_by
    copy.actor = process.actor
    copy.entered = process.entered
    copy.failures = process.failures
    copy.lost = process.lost
    copy.interruptions = process.interruptions
    copy.crashes = process.crashes
    copy.rewinds = process.rewinds
    copy.assignee = process.assignee
    copy.unreadable = process.unreadable
    copy.plan = process.plan
    made: OpenProcess = copy
    return made


def with_changes(process: Process, **changes: object) -> Process:
    """Return a process with other values in these fields, as ``dataclasses.replace`` does, in a fraction of the time.

    Raises:
        AttributeError: there is no such field.
    """
    changed = open_copy(process)
    for name, value in changes.items():
        setattr(changed, name, value)
    changed.close()
    return changed
