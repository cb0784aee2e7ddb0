"""Steps, blocks of steps, lists of both, and workflows, as frozen values."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, Self

from orchestrator.authorization import AuthCallback
from orchestrator.errors import DefinitionError
from orchestrator.retry import RetryPolicy
from orchestrator.targets import Target

StepReturn = Mapping[str, Any] | None
"""What a step returns: new keys for the state, or nothing."""

StepFunction = Callable[..., Awaitable[StepReturn]] | Callable[..., StepReturn]
"""A step's function, async or plain. Its parameters are filled from the state by name and annotation."""

Predicate = Callable[[dict[str, Any]], bool] | Callable[[], bool]
"""Decides whether a conditional step runs, from the state or without parameters. It must be quick."""

FormFunction = Callable[..., Any]
"""Builds a form: an async or plain generator of pages, or a function that returns one page class."""

RunPredicate = Callable[..., Awaitable[bool | str]] | Callable[..., bool | str]
"""Decides whether a workflow may run now, for any user: ``True``, or ``False`` or a text with the reason.

It requests by name any of ``user``, ``workflow`` and ``session``.
"""

DEFAULT_QUEUE = "default"
"""The step queue of workflows."""

TASK_QUEUE = "tasks"
"""The step queue of tasks, apart so that a thousand validations never delay a customer."""

KEEP_FOREVER = timedelta.max
"""A ``retention`` for tasks that are never deleted."""

MAX_NAME_LENGTH = 200
"""The longest name of a step or workflow: AMQP short strings and routing keys have at most 255 bytes."""


def check_name(what: str, name: str) -> None:
    """Refuse a name that AMQP or the database could not carry."""
    if not isinstance(name, str) or not name.strip():
        raise DefinitionError(f"a {what} needs a name, not {name!r}")
    # Printable first: half a surrogate pair is not, and cannot be encoded.
    if not name.isprintable() or len(name.encode()) > MAX_NAME_LENGTH:
        raise DefinitionError(f"the {what} name {name[:40]!r}… must be printable and at most {MAX_NAME_LENGTH} bytes")


class StepKind(StrEnum):
    """How the engine treats a step."""

    RUN = "run"
    """Runs its function in a consumer."""
    ACTION = "action"
    """Runs its function and starts the external job of a callback step."""
    AWAIT = "await"
    """Parks until the external system answers."""
    INPUT = "input"
    """Parks until a form is filled in."""
    START = "start"
    """A marker: free."""
    DONE = "done"
    """A marker: free."""


@dataclass(frozen=True, slots=True)
class CallbackTerms:
    """What a callback step agreed with its external system.

    Args:
        result_key: the state key that receives the answer.
        route_key: the action's parameter that receives the HTTP path for the answer.
        timeout: how long to wait after the action has committed; ``None`` for ever.
    """

    result_key: str
    route_key: str
    timeout: timedelta | None


@dataclass(frozen=True, slots=True)
class Step:
    """One small, atomic, retryable unit of work. Made by the decorators in :mod:`orchestrator.workflow.language`, not by hand."""

    name: str
    kind: StepKind
    function: StepFunction | None = None
    form: FormFunction | None = None
    assignee: str | None = None
    retry: RetryPolicy | None = None
    timeout: timedelta | None = None
    queue: str | None = None
    callback: CallbackTerms | None = None
    conditions: tuple[Predicate, ...] = ()
    resume_auth_callback: AuthCallback | None = None
    retry_auth_callback: AuthCallback | None = None

    def __post_init__(self) -> None:
        check_name("step", self.name)

    def __rshift__(self, other: Step | Block | StepList) -> StepList:
        return StepList([self]) >> other


class BlockKind(StrEnum):
    """What holds a block's steps together."""

    GROUP = "group"
    CALLBACK = "callback"


@dataclass(frozen=True, slots=True)
class Block:
    """Several steps under one name: a ``step_group``, or the three parts of a ``callback_step``.

    A condition around a block is evaluated once, when the process arrives at the block.
    """

    name: str
    kind: BlockKind
    steps: StepList
    conditions: tuple[Predicate, ...] = ()
    resume_auth_callback: AuthCallback | None = None
    retry_auth_callback: AuthCallback | None = None

    def __post_init__(self) -> None:
        check_name("step", self.name)

    def __rshift__(self, other: Step | Block | StepList) -> StepList:
        return StepList([self]) >> other


class StepList(tuple[Step | Block, ...]):
    """An immutable list of steps; ``>>`` appends a step or another list and gives a new list."""

    __slots__ = ()

    def __new__(cls, steps: Iterable[Step | Block] = ()) -> Self:
        items = tuple(steps)
        for item in items:
            if not isinstance(item, Step | Block):
                raise DefinitionError(f"a StepList holds steps, not {item!r}: decorate the function with @step(...)")
        return super().__new__(cls, items)

    def __rshift__(self, other: Step | Block | StepList) -> StepList:
        if isinstance(other, StepList):
            return StepList([*self, *other])
        if isinstance(other, Step | Block):
            return StepList([*self, other])
        name = getattr(other, "__name__", None) or repr(other)
        raise DefinitionError(f"only steps and step lists can follow '>>', not {name}: decorate it with @step(...)")


@dataclass(frozen=True, slots=True)
class Workflow:
    """A named list of steps. Made by ``@workflow``.

    Args:
        initial_input_form: the form to fill in before a process exists; its result is the first state.
        is_task: tasks run on the ``tasks`` queue, and may run on a subscription that is out of sync.
        authorize_callback: who may start it, and – unless the others say – resume and retry it.
        resume_auth_callback, retry_auth_callback: for all steps that have none of their own.
        run_predicate: called before a start; anything but ``True`` refuses it.
        retention: of a task: how long finished ones are kept; ``None`` for as long as the setting says.
        run_ahead: how many steps may follow one without a command; ``None`` for as many as the setting says.
        secret_keys: keys of the state whose values are hidden from people and other programs.
    """

    name: str
    description: str
    steps: StepList
    target: Target = Target.SYSTEM
    is_task: bool = False
    initial_input_form: FormFunction | None = None
    authorize_callback: AuthCallback | None = None
    resume_auth_callback: AuthCallback | None = None
    retry_auth_callback: AuthCallback | None = None
    run_predicate: RunPredicate | None = None
    retention: timedelta | None = None
    run_ahead: int | None = None
    secret_keys: tuple[str, ...] = ()

    @property
    def is_described(self) -> bool:
        """Whether the code describes it; otherwise its name is the description, unless the database has another one."""
        return self.description != self.name

    @property
    def default_queue(self) -> str:
        """The step queue of steps that name none."""
        return TASK_QUEUE if self.is_task else DEFAULT_QUEUE


def leaves(steps: StepList) -> list[Step]:
    """List all steps of a list in order, those inside groups and callback steps included."""
    found: list[Step] = []
    for item in steps:
        found.extend([item] if isinstance(item, Step) else leaves(item.steps))
    return found
