"""The decorators that turn functions into steps, and the functions that combine steps into blocks."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import timedelta
from enum import Enum

from orchestrator.authorization import MAX_USER, AuthCallback, check_callback
from orchestrator.errors import DefinitionError
from orchestrator.retry import MAX_DELAY, RetryPolicy
from orchestrator.targets import Target
from orchestrator.types import Assignee
from orchestrator.workflow.values import (
    MAX_NAME_LENGTH,
    Block,
    BlockKind,
    CallbackTerms,
    FormFunction,
    RunPredicate,
    Step,
    StepFunction,
    StepKind,
    StepList,
    Workflow,
    check_name,
    leaves,
)

_QUEUE_NAME = re.compile(rf"[A-Za-z0-9_-]{{1,{MAX_NAME_LENGTH}}}")

begin = StepList()
"""An empty list to start from: ``begin >> first >> second``."""

init = Step("Start", StepKind.START)
"""Marks the start of a process in its log."""

done = Step("Done", StepKind.DONE)
"""Marks the end of a process in its log."""


def step(
    name: str,
    *,
    timeout: timedelta | float | None = None,
    queue: str | None = None,
    retry_auth_callback: AuthCallback | None = None,
) -> Callable[[StepFunction], Step]:
    """Turn a function into a step that runs once and, if it raises, waits until an operator retries it.

    Args:
        name: unique within a workflow; shown to people and stored with every running process.
        timeout: seconds or a timedelta after which the step is cancelled and fails; default ``ORCHESTRATOR_STEP_TIMEOUT``.
        queue: the step queue whose consumers run it; default ``default``, or ``tasks`` in a task.
        retry_auth_callback: who may retry or skip it; default the group's, then the workflow's.

    Raises:
        DefinitionError: the name or queue cannot be used.
    """

    def decorate(function: StepFunction) -> Step:
        check_callback(retry_auth_callback, f"the retry_auth_callback of the step {name!r}")
        return Step(
            name,
            StepKind.RUN,
            _callable(name, function),
            timeout=_timeout(name, timeout),
            queue=_queue(queue),
            retry_auth_callback=retry_auth_callback,
        )

    return decorate


def retrystep(
    name: str,
    *,
    retry: RetryPolicy | None = None,
    timeout: timedelta | float | None = None,
    queue: str | None = None,
    retry_auth_callback: AuthCallback | None = None,
) -> Callable[[StepFunction], Step]:
    """Turn a function into a step that is retried automatically: when it raises, the process is WAITING until the next try.

    Args:
        retry: the delays between tries and their limit; default exponential with jitter and no limit.
        name, timeout, queue, retry_auth_callback: as for :func:`step`.
    """

    def decorate(function: StepFunction) -> Step:
        made = step(name, timeout=timeout, queue=queue, retry_auth_callback=retry_auth_callback)(function)
        return replace(made, retry=retry or RetryPolicy())

    return decorate


def inputstep(
    name: str,
    assignee: Assignee | str = Assignee.SYSTEM,
    *,
    resume_auth_callback: AuthCallback | None = None,
    retry_auth_callback: AuthCallback | None = None,
) -> Callable[[FormFunction], Step]:
    """Turn a form into a step that suspends the process until the form is filled in.

    The function only builds the form. It may be called any number of times and must have no side effects. What the form
    returns is merged over the state.

    Args:
        name: as for :func:`step`.
        assignee: who is to fill it in, shown to people: a member of ``Assignee``, or another text of at most 200 characters.
        resume_auth_callback: who may fill it in; default the group's, then the workflow's.
        retry_auth_callback: as for :func:`step`.
    """

    def decorate(form: FormFunction) -> Step:
        if not callable(form):
            raise DefinitionError(f"the input step {name!r} decorates a function that makes a form, not {form!r}")
        check_callback(resume_auth_callback, f"the resume_auth_callback of the input step {name!r}")
        check_callback(retry_auth_callback, f"the retry_auth_callback of the input step {name!r}")
        who = str(assignee.value if isinstance(assignee, Enum) else assignee)
        if len(who) > MAX_USER:
            raise DefinitionError(f"the assignee of the input step {name!r} has more than {MAX_USER} characters")
        return Step(
            name,
            StepKind.INPUT,
            form=form,
            assignee=who,
            resume_auth_callback=resume_auth_callback,
            retry_auth_callback=retry_auth_callback,
        )

    return decorate


def step_group(
    name: str,
    steps: StepList,
    *,
    resume_auth_callback: AuthCallback | None = None,
    retry_auth_callback: AuthCallback | None = None,
) -> Block:
    """Give several steps one name. Each keeps its own commit and log row; a condition around the group is evaluated once.

    Args:
        resume_auth_callback, retry_auth_callback: for the steps in it that have none of their own.
    """
    if not steps:
        raise DefinitionError(f"the step group {name!r} has no steps")
    check_callback(resume_auth_callback, f"the resume_auth_callback of the step group {name!r}")
    check_callback(retry_auth_callback, f"the retry_auth_callback of the step group {name!r}")
    return Block(
        name,
        BlockKind.GROUP,
        StepList(steps),
        resume_auth_callback=resume_auth_callback,
        retry_auth_callback=retry_auth_callback,
    )


def callback_step(
    name: str,
    action_step: Step,
    validate_step: Step,
    result_key: str = "callback_result",
    callback_route_key: str = "callback_route",
    timeout: timedelta | float | None = None,
    *,
    retry_auth_callback: AuthCallback | None = None,
) -> Block:
    """Start an external job, hold nothing while it runs, and validate its answer.

    Args:
        name: of the waiting part, as it appears in the log. If one of the other parts has this name, the waiting part is
            called ``"<name> - Await callback"``.
        action_step: starts the job. It may have parameters ``callback_token``, ``callback_exchange`` and ``callback_route``,
            and passes them to the external system.
        validate_step: validates the answer, which it finds in the state under ``result_key``; raising fails the process, and
            a retry then starts again at the action with a new token.
        result_key: the state key for the answer.
        callback_route_key: the name of the action's parameter for the HTTP path.
        timeout: seconds or a timedelta to wait after the action has committed; ``None`` waits for ever.
        retry_auth_callback: for those of its parts that have none of their own.
    """
    for part, role in ((action_step, "action_step"), (validate_step, "validate_step")):
        if not isinstance(part, Step) or part.kind is not StepKind.RUN:
            raise DefinitionError(f"the {role} of the callback step {name!r} must come from @step or @retrystep")
        if part.conditions:
            raise DefinitionError(f"the {role} of the callback step {name!r} is conditional: put that around all of it")
    terms = CallbackTerms(result_key, callback_route_key, _timeout(name, timeout))
    is_taken = name in (action_step.name, validate_step.name)
    waiting = Step(f"{name} - Await callback" if is_taken else name, StepKind.AWAIT, callback=terms)
    action = replace(action_step, kind=StepKind.ACTION, callback=terms)
    check_callback(retry_auth_callback, f"the retry_auth_callback of the callback step {name!r}")
    parts = StepList([action, waiting, validate_step])
    return Block(name, BlockKind.CALLBACK, parts, retry_auth_callback=retry_auth_callback)


def workflow(
    description: str | None = None,
    initial_input_form: FormFunction | None = None,
    target: Target = Target.SYSTEM,
    *,
    is_task: bool = False,
    authorize_callback: AuthCallback | None = None,
    resume_auth_callback: AuthCallback | None = None,
    retry_auth_callback: AuthCallback | None = None,
    run_predicate: RunPredicate | None = None,
    retention: timedelta | None = None,
    run_ahead: int | None = None,
    secret_keys: Collection[str] = (),
) -> Callable[[Callable[[], StepList]], Workflow]:
    """Turn a function that returns a step list into a workflow named like the function.

    Args:
        description: for people; default the function's docstring.
        initial_input_form: the form to fill in to start it.
        target, is_task: what it is for, and whether it is a task.
        authorize_callback: who may start it and, unless the next two say otherwise, resume and retry it; by default everyone.
        resume_auth_callback, retry_auth_callback: for all steps that have none of their own.
        run_predicate: called before a start; returns ``True``, or ``False`` or a text with the reason to refuse it.
        retention: of a task: how long it is kept once it has ended, or ``KEEP_FOREVER``; default
            ``TASK_LOG_RETENTION_DAYS``.
        run_ahead: how many further steps a consumer runs without a command for each; 0 for none; default
            ``ORCHESTRATOR_RUN_AHEAD``, and where that is 0 no step runs ahead. Tasks never run ahead.
        secret_keys: keys of the state whose values only steps and forms get, such as a password; people see ``(hidden)``.

    Raises:
        DefinitionError: the function does not return steps, two steps have one name, or the form is no function.
    """
    check_description(description, "workflow")

    def decorate(function: Callable[[], StepList]) -> Workflow:
        name = getattr(function, "__name__", "")
        if not name.isidentifier():
            raise DefinitionError(f"@workflow(...) decorates a function, whose name it takes, not {function!r}")
        check_name("workflow", name)
        steps = function()
        if isinstance(steps, Step | Block):
            steps = StepList([steps])
        if not isinstance(steps, StepList):
            raise DefinitionError(f"the workflow {name!r} must return a StepList, not {steps!r}")
        _refuse_equal_names(name, steps)
        for role, callback in (
            ("authorize_callback", authorize_callback),
            ("resume_auth_callback", resume_auth_callback),
            ("retry_auth_callback", retry_auth_callback),
        ):
            check_callback(callback, f"the {role} of the workflow {name!r}")
        check_form(initial_input_form, name)
        check_callback(run_predicate, f"the run_predicate of the workflow {name!r}", ("user", "workflow", "session"))
        _check_retention(name, retention, is_task=is_task)
        _check_run_ahead(name, run_ahead)
        _check_secret_keys(name, secret_keys)
        text = description or inspect.getdoc(function) or name
        return Workflow(
            name,
            text,
            steps,
            Target(target),
            is_task,
            initial_input_form,
            authorize_callback,
            resume_auth_callback,
            retry_auth_callback,
            run_predicate,
            retention,
            run_ahead,
            tuple(sorted(secret_keys)),
        )

    return decorate


def check_description(description: object, decorator: str) -> None:
    """Check that a decorator was written with its parentheses.

    Raises:
        DefinitionError: it got a function.
    """
    if callable(description):
        raise DefinitionError(f"write @{decorator}(...) with parentheses, not just @{decorator}")


def check_form(form: object, name: str) -> None:
    """Check that a workflow's form, if it has one, is a function.

    Raises:
        DefinitionError: it is something else, for example a page.
    """
    if isinstance(form, type):
        raise DefinitionError(
            f"the initial_input_form of the workflow {name!r} is the class {form.__name__}: it takes a function that returns"
            f" or yields pages; write initial_input_form=lambda: {form.__name__}"
        )
    if form is not None and not callable(form):
        raise DefinitionError(f"the initial_input_form of the workflow {name!r} takes a function, not {form!r}")


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


def _check_retention(name: str, retention: object, *, is_task: bool) -> None:
    if retention is None:
        return
    if not isinstance(retention, timedelta) or retention < timedelta(0):
        raise DefinitionError(
            f"the retention of the task {name!r} is a timedelta of at least 0, or KEEP_FOREVER, not {retention!r}"
        )
    if not is_task:
        raise DefinitionError(
            f"the workflow {name!r} has a retention, but only tasks are ever deleted: leave it out, or make it a task"
        )


def _check_secret_keys(name: str, keys: object) -> None:
    if isinstance(keys, str) or not isinstance(keys, Collection) or not all(isinstance(one, str) for one in keys):
        raise DefinitionError(
            f'the secret_keys of the workflow {name!r} are names, such as ("password",), not {keys!r}'
        )


def _check_run_ahead(name: str, steps: object) -> None:
    if steps is not None and (not isinstance(steps, int) or isinstance(steps, bool) or steps < 0):
        raise DefinitionError(f"the run_ahead of the workflow {name!r} is a number of steps, 0 for none, not {steps!r}")


def _timeout(name: str, timeout: timedelta | float | None) -> timedelta | None:
    try:
        span = timeout if timeout is None or isinstance(timeout, timedelta) else timedelta(seconds=timeout)
    except (TypeError, ValueError, OverflowError) as error:
        raise DefinitionError(f"the timeout of {name!r} is seconds or a timedelta, not {timeout!r}") from error
    if span is not None and span <= timedelta(0):
        raise DefinitionError(f"the timeout of {name!r} must be longer than 0 seconds, not {timeout!r}")
    if span is not None and span.total_seconds() > MAX_DELAY:
        raise DefinitionError(f"the timeout of {name!r} is at most {MAX_DELAY / 86_400:g} days, not {timeout!r}")
    return span


def _queue(queue: str | None) -> str | None:
    if queue is not None and not (isinstance(queue, str) and _QUEUE_NAME.fullmatch(queue)):
        raise DefinitionError(
            f"a step queue's name holds letters, digits, '-' and '_' only, at most {MAX_NAME_LENGTH}, not {queue!r}"
        )
    return queue
