"""The language in which workflows are written: steps, and lists of them, as frozen values.

Nothing here runs anything. A decorated function becomes a :class:`Step`; ``>>`` strings steps into a :class:`StepList`;
``@workflow`` gives the list a name. The engine lays the list out flat (``orchestrator.engine.plan``) and walks it::

    @step("Reserve a VLAN")
    async def reserve_vlan(session: AsyncSession, node: str) -> dict[str, int]:
        ...
        return {"vlan": 142}

    @workflow("Create a port")
    def create_port() -> StepList:
        return init >> reserve_vlan >> configure_port >> done

Because steps are values they can be shared between workflows, kept in constants and produced by functions.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from typing import Any, Self, TypeVar

from orchestrator.errors import DefinitionError
from orchestrator.retry import RetryPolicy
from orchestrator.targets import Target

StepReturn = Mapping[str, Any] | None
"""What a step returns: new keys for the state, or nothing."""

StepFunction = Callable[..., Awaitable[StepReturn]] | Callable[..., StepReturn]
"""A step's function, async or plain. Its parameters are filled from the state by name and annotation."""

Predicate = Callable[[dict[str, Any]], bool] | Callable[[], bool]
"""Decides whether a conditional step runs: over the state, or over nothing (the environment). It must be quick."""

FormFunction = Callable[..., Any]
"""Makes a form: an async or plain generator of pages, or a function that returns one page class."""

DEFAULT_QUEUE = "default"
"""The step queue of workflows."""

TASK_QUEUE = "tasks"
"""The step queue of tasks, apart so that a thousand validations never delay a customer."""

MAX_NAME_LENGTH = 200
"""Of a step or workflow: names travel in AMQP short strings and routing keys, which end at 255 bytes."""

_QUEUE_NAME = re.compile(rf"[A-Za-z0-9_-]{{1,{MAX_NAME_LENGTH}}}")


def _check_name(what: str, name: str) -> None:
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
    """Parks until somebody fills in a form."""
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
    """One small, atomic, retryable unit of work. Made by the decorators below, not by hand."""

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

    def __post_init__(self) -> None:
        _check_name("step", self.name)

    def __rshift__(self, other: Step | Block | StepList) -> StepList:
        return StepList([self]) >> other


class BlockKind(StrEnum):
    """What holds a block's steps together."""

    GROUP = "group"
    CALLBACK = "callback"


@dataclass(frozen=True, slots=True)
class Block:
    """Several steps under one name: a ``step_group``, or the three parts of a ``callback_step``.

    A condition around a block is decided once, when the block is entered.
    """

    name: str
    kind: BlockKind
    steps: StepList
    conditions: tuple[Predicate, ...] = ()

    def __post_init__(self) -> None:
        _check_name("step", self.name)

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
        raise DefinitionError(f"only steps and step lists can follow '>>', not {other!r}: decorate it with @step(...)")


@dataclass(frozen=True, slots=True)
class Workflow:
    """A named list of steps. Made by ``@workflow``.

    Args:
        initial_input_form: the form to fill in before a process exists; its result is the first state.
        is_task: tasks belong to no product and run on the ``tasks`` queue.
    """

    name: str
    description: str
    steps: StepList
    target: Target = Target.SYSTEM
    is_task: bool = False
    initial_input_form: FormFunction | None = None

    @property
    def default_queue(self) -> str:
        """The step queue of steps that name none."""
        return TASK_QUEUE if self.is_task else DEFAULT_QUEUE


begin = StepList()
"""An empty list to start from: ``begin >> first >> second``."""

init = Step("Start", StepKind.START)
"""Marks the start of a process in its log."""

done = Step("Done", StepKind.DONE)
"""Marks the end of a process in its log."""


def step(
    name: str, *, timeout: timedelta | float | None = None, queue: str | None = None
) -> Callable[[StepFunction], Step]:
    """Turn a function into a step that runs once and, if it raises, waits for somebody to retry it.

    Args:
        name: unique within a workflow; shown to people and stored with every running process.
        timeout: seconds or a timedelta after which the step is cancelled and fails; default ``ORCHESTRATOR_STEP_TIMEOUT``.
        queue: the step queue whose consumers run it; default ``default``, or ``tasks`` in a task.

    Raises:
        DefinitionError: the name or queue cannot be used.
    """

    def decorate(function: StepFunction) -> Step:
        return Step(name, StepKind.RUN, _callable(name, function), timeout=_timeout(name, timeout), queue=_queue(queue))

    return decorate


def retrystep(
    name: str,
    *,
    retry: RetryPolicy | None = None,
    timeout: timedelta | float | None = None,
    queue: str | None = None,
) -> Callable[[StepFunction], Step]:
    """Like :func:`step`, but when it raises the process is WAITING and the step is tried again by itself.

    Args:
        retry: how far apart and how often; default exponential with jitter and no limit.
        name, timeout, queue: as for :func:`step`.
    """

    def decorate(function: StepFunction) -> Step:
        return replace(step(name, timeout=timeout, queue=queue)(function), retry=retry or RetryPolicy())

    return decorate


def inputstep(name: str, assignee: str = "SYSTEM") -> Callable[[FormFunction], Step]:
    """Turn a form into a step that suspends the process until somebody has filled it in.

    The function only makes the form – it may be called any number of times and must have no side effects. What the form
    returns is merged over the state.

    Args:
        name: as for :func:`step`.
        assignee: who is asked; shown to people.
    """

    def decorate(form: FormFunction) -> Step:
        if not callable(form):
            raise DefinitionError(f"the input step {name!r} decorates a function that makes a form, not {form!r}")
        return Step(name, StepKind.INPUT, form=form, assignee=str(assignee))

    return decorate


Conditional = TypeVar("Conditional", Step, Block, Step | Block, StepList)


def conditional(predicate: Predicate) -> Callable[[Conditional], Conditional]:
    """Make steps depend on a predicate: when it is false they are logged as skipped and never run.

    A step's condition is decided once, in the commit that arrives at the step; a retry does not ask again. In a list each
    step asks for itself; a ``step_group`` or ``callback_step`` asks once for all of it.

    Args:
        predicate: over the state, or without parameters; quick and without side effects.
    """
    if not callable(predicate):
        raise DefinitionError(f"conditional(...) takes a function, not {predicate!r}")
    if inspect.iscoroutinefunction(predicate):  # what that returns is always true
        raise DefinitionError(f"conditional(...) takes a plain function: {predicate!r} is 'async def'")

    def wrap(wrapped: Conditional) -> Conditional:
        if isinstance(wrapped, StepList):
            return StepList([wrap(item) for item in wrapped])
        if isinstance(wrapped, Step | Block):
            return replace(wrapped, conditions=(predicate, *wrapped.conditions))
        raise DefinitionError(f"conditional(...) wraps steps and step lists, not {wrapped!r}")

    return wrap


def step_group(name: str, steps: StepList) -> Block:
    """Give several steps one name. Each keeps its own commit and log row; a condition around the group is asked once."""
    if not steps:
        raise DefinitionError(f"the step group {name!r} has no steps")
    return Block(name, BlockKind.GROUP, StepList(steps))


def callback_step(
    name: str,
    action_step: Step,
    validate_step: Step,
    result_key: str = "callback_result",
    callback_route_key: str = "callback_route",
    timeout: timedelta | float | None = None,
) -> Block:
    """Start an external job, hold nothing while it works, and judge its answer.

    Args:
        name: of the waiting part, as it appears in the log.
        action_step: starts the job. It may ask for ``callback_token``, ``callback_exchange`` and ``callback_route`` and
            hands them to the external system.
        validate_step: judges the answer, which it finds in the state under ``result_key``; raising fails the process, and
            a retry then starts again at the action with a new token.
        result_key: the state key for the answer.
        callback_route_key: the name of the action's parameter for the HTTP path.
        timeout: seconds or a timedelta to wait after the action has committed; ``None`` waits for ever.
    """
    for part, role in ((action_step, "action_step"), (validate_step, "validate_step")):
        if not isinstance(part, Step) or part.kind is not StepKind.RUN:
            raise DefinitionError(f"the {role} of the callback step {name!r} must come from @step or @retrystep")
        if part.conditions:
            raise DefinitionError(f"the {role} of the callback step {name!r} is conditional: put that around all of it")
    terms = CallbackTerms(result_key, callback_route_key, _timeout(name, timeout))
    waiting = Step(name, StepKind.AWAIT, callback=terms)
    action = replace(action_step, kind=StepKind.ACTION, callback=terms)
    return Block(name, BlockKind.CALLBACK, StepList([action, waiting, validate_step]))


def workflow(
    description: str | None = None,
    initial_input_form: FormFunction | None = None,
    target: Target = Target.SYSTEM,
    *,
    is_task: bool = False,
) -> Callable[[Callable[[], StepList]], Workflow]:
    """Turn a function that returns a step list into a workflow named like the function.

    Args:
        description: for people; default the function's docstring.
        initial_input_form: the form to fill in to start it.
        target: what it is for.
        is_task: whether it is a task.

    Raises:
        DefinitionError: the function does not return steps, or two steps have one name.
    """

    def decorate(function: Callable[[], StepList]) -> Workflow:
        name = getattr(function, "__name__", "")
        if not name.isidentifier():
            raise DefinitionError(f"@workflow(...) decorates a function, whose name it takes, not {function!r}")
        _check_name("workflow", name)
        steps = function()
        if isinstance(steps, Step | Block):
            steps = StepList([steps])
        if not isinstance(steps, StepList):
            raise DefinitionError(f"the workflow {name!r} must return a StepList, not {steps!r}")
        _refuse_equal_names(name, steps)
        text = description or inspect.getdoc(function) or name
        return Workflow(name, text, steps, Target(target), is_task, initial_input_form)

    return decorate


def leaves(steps: StepList) -> list[Step]:
    """All steps of a list in order, those inside groups and callback steps included."""
    found: list[Step] = []
    for item in steps:
        found.extend([item] if isinstance(item, Step) else leaves(item.steps))
    return found


def _refuse_equal_names(workflow_name: str, steps: StepList) -> None:
    if not steps:
        raise DefinitionError(f"the workflow {workflow_name!r} has no steps")
    names = [leaf.name for leaf in leaves(steps)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        # A running process finds its place by the step's name after the code has changed, so names must be unique.
        raise DefinitionError(f"the workflow {workflow_name!r} has two steps named {twice[0]!r}: name each differently")


def _callable(name: str, function: StepFunction) -> StepFunction:
    if not callable(function):
        raise DefinitionError(f"the step {name!r} decorates {function!r}, which is not a function")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise DefinitionError(f"the step {name!r} is a generator: only input steps yield pages")
    return function


def _timeout(name: str, timeout: timedelta | float | None) -> timedelta | None:
    try:
        span = timeout if timeout is None or isinstance(timeout, timedelta) else timedelta(seconds=timeout)
    except (TypeError, ValueError, OverflowError) as error:
        raise DefinitionError(f"the timeout of {name!r} is seconds or a timedelta, not {timeout!r}") from error
    if span is not None and span <= timedelta(0):
        raise DefinitionError(f"the timeout of {name!r} must be longer than nothing, not {timeout!r}")
    return span


def _queue(queue: str | None) -> str | None:
    if queue is not None and not (isinstance(queue, str) and _QUEUE_NAME.fullmatch(queue)):
        raise DefinitionError(
            f"a step queue's name holds letters, digits, '-' and '_' only, at most {MAX_NAME_LENGTH}, not {queue!r}"
        )
    return queue
