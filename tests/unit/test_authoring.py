"""B32–B37: the language in which workflows are written."""

from __future__ import annotations

import dataclasses
import enum
from datetime import timedelta
from typing import Any

import pytest
import tenacity

from orchestrator.engine.plan import Plan
from orchestrator.retry import RetryPolicy
from orchestrator.targets import Target
from orchestrator.types import Assignee
from orchestrator.workflow import (
    DEFAULT_QUEUE,
    TASK_QUEUE,
    Block,
    BlockKind,
    Step,
    StepKind,
    StepList,
    Workflow,
    begin,
    callback_step,
    conditional,
    done,
    init,
    inputstep,
    leaves,
    retrystep,
    step,
    step_group,
    workflow,
)
from tests.unit.walk import external, nothing, work


def names(steps: StepList) -> list[str]:
    return [leaf.name for leaf in leaves(steps)]


a, b, c = work("a"), work("b"), work("c")


def test_a_step_keeps_its_function_and_its_terms() -> None:
    """B32."""

    @step("Reserve a VLAN", timeout=30, queue="ims")
    def reserve() -> dict[str, int]:
        return {"vlan": 142}

    assert (reserve.name, reserve.kind, reserve.timeout, reserve.queue, reserve.retry) == (
        "Reserve a VLAN",
        StepKind.RUN,
        timedelta(seconds=30),
        "ims",
        None,
    )
    assert reserve.function is not None
    assert reserve.function() == {"vlan": 142}


def test_a_timeout_may_be_a_timedelta_or_seconds() -> None:
    assert step("a", timeout=timedelta(minutes=1))(nothing).timeout == step("a", timeout=60.0)(nothing).timeout


def test_a_retrystep_has_a_policy_without_limit_unless_it_is_given_one() -> None:
    """B33."""
    policy = RetryPolicy(wait=tenacity.wait_fixed(3), limit=2)

    assert retrystep("a")(nothing).retry is not None
    assert retrystep("a")(nothing).retry.limit is None  # type: ignore[union-attr]
    assert retrystep("a", retry=policy)(nothing).retry is policy
    assert retrystep("a", timeout=5, queue="ims")(nothing).queue == "ims"


def test_an_inputstep_keeps_its_form_and_whom_it_asks() -> None:
    """B34."""
    asked = inputstep("Which node?", assignee="NOC")(nothing)

    assert (asked.kind, asked.form, asked.function, asked.assignee) == (StepKind.INPUT, nothing, None, "NOC")
    assert inputstep("Which node?")(nothing).assignee == "SYSTEM"


class Team(str, enum.Enum):  # noqa: UP042 - as applications have it
    PLANNING = "planning"


@pytest.mark.parametrize(("assignee", "shown"), [(Assignee.CHANGES, "CHANGES"), (Team.PLANNING, "planning")])
def test_an_input_step_takes_members_of_enums(assignee: Any, shown: str) -> None:
    asked = inputstep("Which node?", assignee=assignee)(nothing)

    assert asked.assignee == shown
    assert type(asked.assignee) is str


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (a >> b, ["a", "b"]),
        (begin >> a, ["a"]),
        (init >> a >> done, ["Start", "a", "Done"]),
        (a >> (b >> c), ["a", "b", "c"]),
        (StepList([a]) >> StepList([b, c]), ["a", "b", "c"]),
        (begin >> begin >> a, ["a"]),
        (a >> begin, ["a"]),
        (step_group("g", a >> b) >> c, ["a", "b", "c"]),
        (a >> step_group("g", b >> step_group("h", StepList([c]))), ["a", "b", "c"]),
        (external("job") >> a, ["job: start", "job", "job: check", "a"]),
        (StepList(one for one in [a, b]), ["a", "b"]),
    ],
)
def test_steps_and_lists_follow_each_other_in_the_order_written(steps: StepList, expected: list[str]) -> None:
    """B37."""
    assert isinstance(steps, StepList)
    assert names(steps) == expected


def test_appending_to_a_list_leaves_it_as_it_was() -> None:
    """B37: step lists are constants."""
    prepare = begin >> a >> b

    longer = prepare >> c

    assert names(prepare) == ["a", "b"]
    assert names(longer) == ["a", "b", "c"]
    assert begin == ()


@pytest.mark.parametrize("value", [a, step_group("g", StepList([a])), external("job")])
def test_steps_are_frozen_values(value: Step | Block) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        value.name = "other"  # type: ignore[misc]
    assert dataclasses.replace(value) == value
    assert hash(dataclasses.replace(value)) == hash(value)


def test_a_workflow_is_a_frozen_value() -> None:
    @workflow("One")
    def one() -> StepList:
        return StepList([a])

    with pytest.raises(dataclasses.FrozenInstanceError):
        one.name = "other"  # type: ignore[misc]


def test_steps_and_lists_are_shared_between_workflows() -> None:
    """B37."""
    prepare = a >> b

    def check(name: str) -> Step:
        return step(f"Check {name}")(nothing)

    @workflow("First")
    def first() -> StepList:
        return init >> prepare >> check("x") >> done

    @workflow("Second")
    def second() -> StepList:
        return init >> check("y") >> prepare >> done

    assert names(first.steps) == ["Start", "a", "b", "Check x", "Done"]
    assert names(second.steps) == ["Start", "Check y", "a", "b", "Done"]
    assert Plan.of(first).leaves[1].step is Plan.of(second).leaves[2].step


def test_a_workflow_of_one_step_works() -> None:
    """B37."""

    @workflow()
    def alone() -> StepList:
        """Do one thing."""
        return begin >> a

    assert alone == Workflow("alone", "Do one thing.", StepList([a]), Target.SYSTEM, False, None)
    assert len(Plan.of(alone)) == 1


def test_a_workflow_may_return_a_bare_step_or_block() -> None:
    def bare() -> Any:
        return a

    def block() -> Any:
        return step_group("g", a >> b)

    assert names(workflow("x")(bare).steps) == ["a"]
    assert names(workflow("x")(block).steps) == ["a", "b"]


@pytest.mark.parametrize(
    ("given", "doc", "expected"),
    [("Given", "Doc.", "Given"), (None, "Doc.", "Doc."), (None, None, "named"), ("", None, "named")],
)
def test_a_workflow_is_described_by_its_argument_its_docstring_or_its_name(
    given: str | None, doc: str | None, expected: str
) -> None:
    def named() -> StepList:
        return StepList([a])

    named.__doc__ = doc

    assert workflow(given)(named).description == expected


def test_tasks_have_a_queue_of_their_own_unless_a_step_names_one() -> None:
    """B16: validations never delay customers."""

    def plan(*, is_task: bool) -> Plan:
        return Plan.of(Workflow("w", "w", a >> work("special", queue="ims"), is_task=is_task))

    assert [leaf.queue for leaf in plan(is_task=False).leaves] == [DEFAULT_QUEUE, "ims"]
    assert [leaf.queue for leaf in plan(is_task=True).leaves] == [TASK_QUEUE, "ims"]


def test_a_workflow_keeps_its_target_and_form() -> None:
    @workflow("Make it", initial_input_form=nothing, target=Target.CREATE, is_task=True)
    def make() -> StepList:
        return StepList([a])

    assert (make.target, make.initial_input_form, make.is_task) == (Target.CREATE, nothing, True)


def test_a_callback_step_is_an_action_a_wait_and_a_check() -> None:
    """B36."""
    action, check = step("Order", timeout=9, queue="ims")(nothing), retrystep("Judge")(nothing)

    block = callback_step("Wait for the order", action, check, "answer", "reply_path", timeout=60)

    assert block.kind is BlockKind.CALLBACK
    started, waiting, judged = block.steps
    assert isinstance(started, Step)
    assert isinstance(waiting, Step)
    assert (started.kind, started.name, started.queue, started.timeout) == (
        StepKind.ACTION,
        "Order",
        "ims",
        timedelta(seconds=9),
    )
    assert (waiting.kind, waiting.name) == (StepKind.AWAIT, "Wait for the order")
    assert judged is check
    assert started.callback == waiting.callback
    assert waiting.callback is not None
    assert (waiting.callback.result_key, waiting.callback.route_key, waiting.callback.timeout) == (
        "answer",
        "reply_path",
        timedelta(seconds=60),
    )


@pytest.mark.parametrize(
    ("name", "waiting"), [("Order", "Order - Await callback"), ("Judge", "Judge - Await callback"), ("Wait", "Wait")]
)
def test_the_waiting_part_of_a_callback_step_has_a_name_of_its_own(name: str, waiting: str) -> None:
    """Ported code calls a callback step like its action: ``callback_step(action.name, action, …)``."""
    action, check = step("Order")(nothing), step("Judge")(nothing)

    @workflow("Order it")
    def order_it() -> StepList:
        return begin >> callback_step(name, action, check)

    assert [one.name for one in leaves(order_it.steps)] == ["Order", waiting, "Judge"]


def test_a_callback_step_has_the_defaults_of_the_contract() -> None:
    """B36."""
    waiting = callback_step("w", a, b).steps[1]

    assert isinstance(waiting, Step)
    assert waiting.callback is not None
    assert (waiting.callback.result_key, waiting.callback.route_key, waiting.callback.timeout) == (
        "callback_result",
        "callback_route",
        None,
    )


def yes() -> bool:
    return True


def no() -> bool:
    return False


def test_a_condition_wraps_a_step_a_block_or_each_step_of_a_list() -> None:
    """B35."""
    assert conditional(yes)(a).conditions == (yes,)
    assert conditional(yes)(external("job")).conditions == (yes,)
    assert [item.conditions for item in conditional(yes)(a >> step_group("g", StepList([b])))] == [(yes,), (yes,)]


def test_the_outer_condition_comes_first() -> None:
    """B35."""
    assert conditional(yes)(conditional(no)(a)).conditions == (yes, no)


def test_a_condition_leaves_the_step_it_wraps_as_it_was() -> None:
    conditional(no)(a)

    assert a.conditions == ()
