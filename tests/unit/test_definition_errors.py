"""What an author wrote wrong is refused when it is imported, in words that say what to do."""

from __future__ import annotations

import functools
import re
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.engine.plan import Plan
from orchestrator.errors import DefinitionError
from orchestrator.retry import MAX_DELAY
from orchestrator.workflow import (
    StepList,
    Workflow,
    begin,
    callback_step,
    conditional,
    inputstep,
    retrystep,
    step,
    step_group,
    workflow,
)
from tests.unit.walk import external, nothing, work

if TYPE_CHECKING:
    from nowhere import Imported  # type: ignore[import-not-found]

a, b = work("a"), work("b")
wrong: Any = None


def untyped(value: object) -> Any:
    """The value, as a program without type checker passes it."""
    return value


def yes() -> bool:
    return True


def generator() -> Iterator[dict[str, int]]:
    yield {}


async def async_generator() -> AsyncIterator[dict[str, int]]:
    yield {}


def returning(value: Any) -> Callable[[], Any]:
    def flow() -> Any:
        return value

    return flow


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: step("")(nothing), "a step needs a name, not ''"),
        (lambda: step("  ")(nothing), "a step needs a name, not '  '"),
        (lambda: step(wrong)(nothing), "a step needs a name, not None"),
        (lambda: step("x" * 201)(nothing), "must be printable and at most 200 bytes"),
        (lambda: step("é" * 101)(nothing), "must be printable and at most 200 bytes"),
        (lambda: step("a\nb")(nothing), "must be printable and at most 200 bytes"),
        (lambda: step("a\ud800")(nothing), "must be printable and at most 200 bytes"),
        (lambda: step_group("", StepList([a])), "a step needs a name, not ''"),
        (lambda: callback_step("", a, b), "a step needs a name, not ''"),
        (lambda: inputstep("")(nothing), "a step needs a name, not ''"),
    ],
)
def test_a_step_without_a_usable_name_is_refused(make: Callable[[], object], text: str) -> None:
    with pytest.raises(DefinitionError, match=re.escape(text)):
        make()


def test_an_assignee_that_is_too_long_is_refused() -> None:
    with pytest.raises(DefinitionError, match="the assignee of the input step 'a' has more than 200 characters"):
        inputstep("a", assignee="x" * 201)(nothing)


def test_a_name_of_exactly_the_limit_is_accepted() -> None:
    assert step("é" * 100)(nothing).name == "é" * 100


@pytest.mark.parametrize("timeout", [0, -1, -0.5, float("nan"), float("inf"), "10"])
@pytest.mark.parametrize("decorator", [step, retrystep])
def test_a_timeout_that_is_no_time_is_refused(decorator: Any, timeout: Any) -> None:
    with pytest.raises(DefinitionError, match=f"the timeout of 'a' .*not {re.escape(repr(timeout))}"):
        decorator("a", timeout=timeout)(nothing)


@pytest.mark.parametrize("timeout", [timedelta.max, MAX_DELAY + 1, 1e13])
def test_a_timeout_that_the_database_cannot_hold_is_refused_when_it_is_written(timeout: Any) -> None:
    """Not when the external job has been ordered."""
    for make in (lambda: callback_step("w", a, b, timeout=timeout), lambda: step("w", timeout=timeout)(nothing)):
        with pytest.raises(DefinitionError, match="the timeout of 'w' is at most 3650 days, not"):
            make()
    callback_step("w", a, b, timeout=timedelta(seconds=MAX_DELAY))


def test_the_timeout_of_a_callback_step_is_checked_as_well() -> None:
    with pytest.raises(DefinitionError, match="the timeout of 'w' must be longer than 0 seconds, not 0"):
        callback_step("w", a, b, timeout=0)


@pytest.mark.parametrize("queue", ["", "a b", "a.b", "#", "*", "-\n", "é", "x" * 201, 5])
def test_a_queue_that_the_broker_would_read_otherwise_is_refused(queue: Any) -> None:
    with pytest.raises(DefinitionError, match="a step queue's name holds letters, digits, '-' and '_' only"):
        step("a", queue=queue)(nothing)


@pytest.mark.parametrize("queue", ["ims", "IMS-2", "a_b", "x" * 200])
def test_a_queue_of_plain_letters_is_accepted(queue: str) -> None:
    assert step("a", queue=queue)(nothing).queue == queue


@pytest.mark.parametrize("function", [None, 5, "reserve", {}])
def test_what_is_not_a_function_is_no_step(function: Any) -> None:
    with pytest.raises(
        DefinitionError, match=re.escape(f"the step 'a' decorates {function!r}, which is not a function")
    ):
        step("a")(function)
    with pytest.raises(DefinitionError, match="the input step 'a' decorates a function that makes a form"):
        inputstep("a")(function)


@pytest.mark.parametrize("function", [generator, async_generator])
def test_a_generator_is_no_step(function: Any) -> None:
    with pytest.raises(DefinitionError, match="the step 'a' is a generator: only input steps yield pages"):
        step("a")(function)
    assert inputstep("a")(function).form is function


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: StepList([wrong]), "a StepList holds steps, not None: decorate the function with @step(...)"),
        (lambda: StepList([a, untyped(nothing)]), "a StepList holds steps, not <function nothing"),
        (lambda: a >> untyped(nothing), "only steps and step lists can follow '>>', not nothing: decorate it"),
        (lambda: begin >> untyped([a]), "only steps and step lists can follow '>>', not [Step("),
        (lambda: step_group("g", begin), "the step group 'g' has no steps"),
        (lambda: conditional(wrong), "conditional(...) takes a function, not None"),
        (
            lambda: conditional(yes)(untyped(nothing)),
            "conditional(...) wraps steps and step lists, not <function nothing",
        ),
    ],
)
def test_lists_and_conditions_take_only_what_they_can_hold(make: Callable[[], object], text: str) -> None:
    with pytest.raises(DefinitionError, match=re.escape(text)):
        make()


@pytest.mark.parametrize("role", ["action_step", "validate_step"])
@pytest.mark.parametrize(
    ("part", "text"),
    [
        (nothing, "must come from @step or @retrystep"),
        (inputstep("i")(nothing), "must come from @step or @retrystep"),
        (external("inner"), "must come from @step or @retrystep"),
        (StepList([a]), "must come from @step or @retrystep"),
        (conditional(yes)(a), "is conditional: put that around all of it"),
    ],
)
def test_the_parts_of_a_callback_step_are_plain_steps(role: str, part: Any, text: str) -> None:
    """B36."""
    parts: dict[str, Any] = {"action_step": a, "validate_step": b, role: part}

    with pytest.raises(DefinitionError, match=f"the {role} of the callback step 'w' {text}"):
        callback_step("w", **parts)


@pytest.mark.parametrize("value", [None, [a], (a, b), "a", nothing, (a >> b) + (a >> b)])
def test_a_workflow_that_returns_no_step_list_is_refused(value: Any) -> None:
    with pytest.raises(DefinitionError, match="the workflow 'flow' must return a StepList, not "):
        workflow("x")(returning(value))


@pytest.mark.parametrize(
    "steps",
    [a >> a, a >> step_group("g", StepList([a])), external("a") >> a, external("job") >> work("job: check")],
)
def test_two_steps_of_one_name_are_refused(steps: StepList) -> None:
    """A process finds its place by the step's name after the code has changed."""
    with pytest.raises(DefinitionError, match=r"the workflow 'flow' has two steps named '(a|job: check)': name each"):
        workflow("x")(returning(steps))


def test_a_workflow_without_steps_is_refused() -> None:
    with pytest.raises(DefinitionError, match="the workflow 'flow' has no steps"):
        workflow("x")(returning(begin))


@pytest.mark.parametrize("function", [lambda: StepList([a]), partial(StepList, [a])])
def test_a_workflow_takes_its_name_from_a_function_that_has_one(function: Any) -> None:
    with pytest.raises(DefinitionError, match=r"@workflow\(...\) decorates a function, whose name it takes, not"):
        workflow("x")(function)


def test_a_workflow_with_an_over_long_name_is_refused() -> None:
    function = returning(a)
    function.__name__ = "x" * 201

    with pytest.raises(DefinitionError, match=r"the workflow name 'xxx.* must be printable and at most 200 bytes"):
        workflow("x")(function)


def positional(*args: str) -> None: ...
def keywords(**more: str) -> None: ...
def positional_only(a: str, /) -> None: ...
@functools.singledispatch
def of_both_kinds(value: object, session: object) -> Any: ...
@of_both_kinds.register
async def of_the_other_kind(value: int, session: object) -> None: ...
def unresolvable(a: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821
def imported_for_types_only(a: Imported) -> None: ...


class Opaque:
    """Nothing that pydantic can read."""


def opaque(a: Opaque) -> None: ...


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (positional, "the step 's' of 'flow' has the parameter '*args: 'str'': parameters are filled by name only"),
        (keywords, "the step 's' of 'flow' has the parameter '**more: 'str'': parameters are filled by name only"),
        (positional_only, "the step 's' of 'flow' has the parameter 'a: 'str'': parameters are filled by name only"),
        (
            of_both_kinds,
            "the step 's' of 'flow' asks for 'session', and is a plain function for some types and 'async def'",
        ),
        (unresolvable, "the annotation of 'a' ('Nowhere') cannot be resolved: name 'Nowhere' is not defined"),
        (imported_for_types_only, "the annotation of 'a' ('Imported') cannot be resolved"),
        (opaque, "the step 's' of 'flow' asks for 'a' as Opaque, which cannot be read from a JSON state"),
        (dict, "the step 's' of 'flow': the parameters of <class 'dict'> cannot be read"),
    ],
)
def test_a_step_whose_parameters_cannot_be_filled_is_refused_before_it_ever_runs(function: Any, text: str) -> None:
    """B32."""
    with pytest.raises(DefinitionError, match=re.escape(text)):
        Plan.of(Workflow("flow", "x", StepList([step("s")(function)])))


def test_a_form_whose_parameters_cannot_be_filled_is_refused() -> None:
    with pytest.raises(DefinitionError, match="the initial form of 'flow' has the parameter"):
        Plan.of(Workflow("flow", "x", StepList([a]), initial_input_form=positional))
    with pytest.raises(DefinitionError, match="the step 'i' of 'flow' has the parameter"):
        Plan.of(Workflow("flow", "x", StepList([inputstep("i")(positional)])))
