"""What can happen to a process. Events are values: the input of :func:`orchestrator.engine.decide.decide`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from orchestrator.engine.values import value
from orchestrator.types import JSON, ProcessStatus, State


@value(frozen=True, slots=True)
class Stamp:
    """The source of randomness for a decision, passed in so that the core has none.

    Args:
        make_token: returns a fresh unguessable callback token; called if the decision opens a callback, which few do.
    """

    make_token: Callable[[], str]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt failed, as it is logged.

    Args:
        type: the error's class.
        message: the text for the operator.
        traceback: where it happened; empty for failures that have none.
        details: what the author attached.
        status: the process's status if there is no automatic retry.
    """

    type: str
    message: str
    traceback: str = ""
    details: JSON = None
    status: ProcessStatus = ProcessStatus.FAILED


@dataclass(frozen=True, slots=True)
class Started:
    """A process begins; ``state`` is the result of its initial form, ``note`` what the log says besides."""

    state: State
    note: str | None = None


@value(frozen=True, slots=True)
class StepSucceeded:
    """The function of the present step returned ``delta``."""

    attempt: int
    delta: State
    note: str | None = None


@dataclass(frozen=True, slots=True)
class StepFailed:
    """The function of the present step raised; ``retry_in`` seconds until the next try, ``None`` for no automatic retry."""

    attempt: int
    failure: Failure
    retry_in: float | None = None
    note: str | None = None


class Loss(Enum):
    """How an attempt ended without an outcome, as far as it was observed."""

    GIVEN_BACK = auto()
    """Its consumer stopped in good order."""
    INTERRUPTED = auto()
    """Its consumer lives: it lost its connection to the database, for example. Says nothing about the step."""
    SILENT = auto()
    """Its consumer sends no heartbeats any more: it has died, or its machine is frozen or cut off."""
    SHARED = auto()
    """The child process that ran it and other steps died, because of one of them perhaps."""
    CRASHED = auto()
    """The child process that ran it alone died."""


@dataclass(frozen=True, slots=True)
class AttemptLost:
    """The attempt ended without an outcome.

    Args:
        because: what was observed, as a predicate that follows the consumer's name.
        limit: how many child processes in a row may die while they run this step alone before it is failed.
    """

    attempt: int
    consumer: str
    loss: Loss = Loss.SILENT
    because: str = "is silent"
    limit: int = 5


@dataclass(frozen=True, slots=True)
class NotRun:
    """No consumer that reads the present step's queue can run it, for the reasons in ``note``."""

    note: str


@dataclass(frozen=True, slots=True)
class RetryDue:
    """The delay of a waiting step is over."""


@dataclass(frozen=True, slots=True)
class CallbackCompleted:
    """The external system answered with a result; ``note`` is what the log says besides."""

    position: int
    payload: JSON
    note: str | None = None


@dataclass(frozen=True, slots=True)
class CallbackFailed:
    """The external system answered that it failed, or did not answer in time; ``note`` is what the log says besides."""

    position: int
    failure: Failure
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Submitted:
    """A user filled in the form of an input step."""

    user: str
    delta: State


@dataclass(frozen=True, slots=True)
class Retried:
    """A user has requested another try."""

    user: str


@dataclass(frozen=True, slots=True)
class Aborted:
    """A user ended the process."""

    user: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Patched:
    """An operator corrected the state: keys set and keys removed."""

    user: str
    reason: str
    delta: Mapping[str, JSON]
    removed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StepSkipped:
    """An operator decided that the failed step is not to run."""

    user: str
    reason: str


@dataclass(frozen=True, slots=True)
class Rewound:
    """An operator takes the process back to an earlier step.

    Args:
        step: the step that begins anew; of a callback step its first part.
        sequence: the log entry whose state is restored.
        delta, removed: the changes that turn the present state into that one.
    """

    user: str
    reason: str
    step: str
    sequence: int
    delta: Mapping[str, JSON]
    removed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PlanChanged:
    """A program that has the registered plan moves the process to it.

    Args:
        before: the steps of the process's present plan; ``None`` when they are unknown.
        number: of the registered plan.
    """

    before: Sequence[dict[str, JSON]] | None
    number: int


@dataclass(frozen=True, slots=True)
class CodeChanged:
    """The present workflow has no step at which the process could go on."""

    failure: Failure


Event = (
    Started
    | StepSucceeded
    | StepFailed
    | AttemptLost
    | NotRun
    | RetryDue
    | CallbackCompleted
    | CallbackFailed
    | Submitted
    | Retried
    | Aborted
    | Patched
    | StepSkipped
    | Rewound
    | PlanChanged
    | CodeChanged
)
