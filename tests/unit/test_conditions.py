"""B35: conditions are decided once, in the commit that arrives at the step."""

from __future__ import annotations

import operator
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, cast

import pytest

from orchestrator.engine.events import (
    CallbackCompleted,
    Patched,
    Retried,
    RetryDue,
    StepSkipped,
    Submitted,
)
from orchestrator.text import MAX_TEXT
from orchestrator.workflow import begin, conditional, done, init, step_group
from tests.unit.models import NodeInactive
from tests.unit.walk import FAILURE, Predicate, Walk, external, question, work

a, b, c, d = work("a"), work("b"), work("c"), work("d")


class Counting:
    """A predicate that remembers how often it was asked."""

    def __init__(self, *answers: bool) -> None:
        self.answers = list(answers)
        self.asked: list[dict[str, Any]] = []

    def __call__(self, state: dict[str, Any]) -> bool:
        self.asked.append(state)
        return self.answers[len(self.asked) - 1]


def wanted(state: dict[str, Any]) -> bool:
    return bool(state["wanted"])


def raising() -> bool:
    raise LookupError("no such thing")


def never() -> bool:
    return False


def always() -> bool:
    return True


def test_a_false_condition_logs_the_step_as_skipped_and_goes_on() -> None:
    walk = Walk(a, conditional(wanted)(b), c).start(wanted=False).succeed()

    assert walk.news == [("a", "success"), ("b", "skipped")]
    assert (walk.process.step, walk.process.position) == ("c", 2)
    assert walk.decision.dispatch is not None
    assert walk.decision.dispatch.step == "c"


def test_a_true_condition_runs_the_step() -> None:
    assert Walk(a, conditional(wanted)(b)).start(wanted=True).succeed().process.step == "b"


def test_the_condition_sees_what_the_step_before_it_returned() -> None:
    assert Walk(a, conditional(wanted)(b)).start().succeed(wanted=True).process.step == "b"


@pytest.mark.parametrize("predicate", [always, lambda: True, lambda state: "x" in state, operator.itemgetter("x")])
def test_a_condition_takes_the_state_or_nothing(predicate: Predicate) -> None:
    assert Walk(conditional(predicate)(a)).start(x=True).process.step == "a"


def test_a_workflow_of_skipped_steps_completes_at_once() -> None:
    walk = Walk(init, conditional(never)(a >> b), done).start()

    assert walk.status == "completed"
    assert walk.log == [
        ("created", "created"),
        ("Start", "success"),
        ("a", "skipped"),
        ("b", "skipped"),
        ("Done", "complete"),
        ("completed", "completed"),
    ]


def test_a_block_is_skipped_as_one_and_asked_once() -> None:
    predicate = Counting(False)
    walk = Walk(conditional(predicate)(step_group("g", a >> external("job") >> b)), c).start()

    assert [name for name, status in walk.log if status == "skipped"] == ["a", "job: start", "job", "job: check", "b"]
    assert walk.process.step == "c"
    assert len(predicate.asked) == 1


def test_a_list_is_asked_at_each_step_as_the_state_then_is() -> None:
    walk = Walk(conditional(wanted)(begin >> a >> b)).start(wanted=True).succeed(wanted=False)

    assert walk.log[-2:] == [("b", "skipped"), ("completed", "completed")]


def test_an_inner_condition_is_not_asked_when_the_outer_says_no() -> None:
    inner = Counting()
    walk = Walk(conditional(never)(step_group("g", conditional(inner)(a) >> b)), c).start()

    assert walk.process.step == "c"
    assert inner.asked == []


def test_an_inner_no_skips_the_inner_step_only() -> None:
    outer = Counting(True)
    walk = Walk(conditional(outer)(step_group("g", conditional(never)(a) >> b)), c).start()

    assert walk.process.step == "b"
    assert len(outer.asked) == 1


def test_a_retry_does_not_ask_again() -> None:
    predicate = Counting(True)
    walk = Walk(conditional(predicate)(a)).start().fail()

    walk.apply(Retried("bob"))

    assert walk.process.step == "a"
    assert len(predicate.asked) == 1


def test_a_retry_by_itself_does_not_ask_again() -> None:
    predicate = Counting(True)
    walk = Walk(conditional(predicate)(a)).start().fail(retry_in=1)

    walk.apply(RetryDue())

    assert len(predicate.asked) == 1


def test_the_wait_for_a_callback_does_not_ask_again() -> None:
    predicate = Counting(True)
    walk = Walk(conditional(predicate)(external("job")), a).start().succeed()

    walk.apply(CallbackCompleted(1, {"ok": True}))
    walk.succeed()

    assert walk.process.step == "a"
    assert len(predicate.asked) == 1


def test_going_back_to_the_action_of_a_callback_step_does_not_ask_again() -> None:
    predicate = Counting(True)
    walk = Walk(conditional(predicate)(external("job"))).start().succeed()
    walk.apply(CallbackCompleted(1, {}))
    walk.fail()

    walk.apply(Retried("bob"))

    assert walk.process.step == "job: start"
    assert len(predicate.asked) == 1


def test_a_condition_that_raises_fails_the_process_and_keeps_what_the_step_before_it_did() -> None:
    walk = Walk(a, conditional(raising)(b)).start().succeed(x=1)

    assert walk.news == [("a", "success"), ("b", "failed"), ("failed", "failed")]
    assert walk.process.state == {"x": 1}
    assert not walk.process.entered
    failure = walk.entries[-2].failure
    assert failure is not None
    assert (failure.type, failure.message) == (
        "LookupError",
        "the condition of this step raised LookupError: no such thing",
    )
    assert failure.traceback.endswith('raise LookupError("no such thing")\nLookupError: no such thing\n')


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (SystemExit(1), "SystemExit: 1"),
        (ValueError("caf\0 \udce9"), "ValueError: caf\\0 ?"),
        (RecursionError("x" * 50_000), "RecursionError: xxx"),
    ],
)
def test_whatever_a_condition_raises_fails_the_process_with_a_text_that_can_be_stored(
    error: BaseException, message: str
) -> None:
    """B5: and never ends the program that asks it."""

    def raise_it() -> bool:
        raise error

    walk = Walk(a, conditional(raise_it)(b)).start().succeed()

    failure = walk.entries[-2].failure
    assert failure is not None
    assert failure.message.startswith(f"the condition of this step raised {message}")
    assert "\0" not in failure.traceback
    assert len(failure.traceback) <= MAX_TEXT


def test_a_retry_asks_a_condition_that_raised_again() -> None:
    walk = Walk(a, conditional(wanted)(b), c).start().succeed()
    assert walk.status == "failed"

    walk.apply(Retried("bob"))
    assert walk.status == "failed"

    walk.apply(Patched("bob", "it was missing", {"wanted": False}))
    walk.apply(Retried("bob"))
    assert walk.news == [("retried", "running"), ("b", "skipped")]
    assert walk.process.step == "c"


def test_skipping_a_step_whose_condition_raised_goes_on_after_it() -> None:
    """B11."""
    walk = Walk(conditional(raising)(a), b).start()

    walk.apply(StepSkipped("bob", "not needed"))

    assert walk.process.step == "b"


def test_a_condition_on_an_input_step_is_asked_before_anybody_is() -> None:
    walk = Walk(conditional(wanted)(question("which?")), b)

    assert walk.start(wanted=False).process.step == "b"
    assert Walk(conditional(wanted)(question("which?"))).start(wanted=True).status == "suspended"


def test_a_condition_sees_the_submitted_input() -> None:
    walk = Walk(question("which?"), conditional(wanted)(b), c).start(wanted=True)

    walk.apply(Submitted("bob", {"wanted": False}))

    assert walk.process.step == "c"


def test_a_condition_cannot_change_the_state_in_place() -> None:
    def greedy(state: dict[str, Any]) -> bool:
        state["list"].append(1)
        state["x"] = 1
        return True

    walk = Walk(conditional(greedy)(a)).start(list=[])

    assert walk.process.state == {"list": []}


def test_markers_may_be_conditional_too() -> None:
    walk = Walk(conditional(never)(init), a, conditional(never)(done)).start().succeed()

    assert ("Start", "skipped") in walk.log
    assert walk.log[-2:] == [("Done", "skipped"), ("completed", "completed")]


def test_a_failure_elsewhere_does_not_ask_conditions_that_were_decided() -> None:
    """A process that failed inside a conditional group and is retried stays inside it."""
    predicate = Counting(True)
    walk = Walk(conditional(predicate)(step_group("g", a >> b))).start().succeed().fail(failure=replace(FAILURE))

    walk.apply(Retried("bob"))

    assert walk.process.step == "b"
    assert len(predicate.asked) == 1


async def connected(node: str, port: int) -> bool:
    return node == "ams1" and port == 1


def test_a_predicate_that_needs_more_than_the_state_is_a_step_that_decides_once() -> None:
    walk = Walk(conditional(connected)(begin >> a >> b), c)

    assert [leaf.step.name for leaf in walk.plan.leaves] == ["a: condition", "a", "b", "c"]
    assert {one.name for one in walk.plan.leaves[0].arguments.parameters} == {"node", "port"}
    walk.start(node="ams1", port=1).succeed(**{"a: condition": False})
    assert walk.news == [("a: condition", "success"), ("a", "skipped"), ("b", "skipped")]
    assert walk.process.step == "c"


def is_at_a_site(subscription: NodeInactive | None) -> bool:
    return subscription is not None


def test_a_predicate_may_ask_for_a_model() -> None:
    leaf = Walk(conditional(is_at_a_site)(a)).plan.leaves[0]

    (parameter,) = leaf.arguments.stored
    assert (leaf.step.name, parameter.name, parameter.classes) == ("a: condition", "subscription", (NodeInactive,))


async def test_what_the_step_decides_is_kept_in_the_state() -> None:
    leaf = Walk(conditional(connected)(a)).plan.leaves[0]

    decide = cast("Callable[..., Awaitable[dict[str, bool]]]", leaf.step.function)
    assert await decide(node="ams1", port=1) == {"a: condition": True}
    assert await decide(node="ams1", port=2) == {"a: condition": False}


def test_conditions_that_are_steps_may_stand_in_each_other() -> None:
    walk = Walk(conditional(connected)(a >> conditional(connected)(b)), conditional(never)(conditional(connected)(c)))

    names = [leaf.step.name for leaf in walk.plan.leaves]
    assert names == ["a: condition", "a", "b: condition", "b", "c: condition", "c"]
    walk.start(node="", port=0).succeed(**{"a: condition": True}).succeed().succeed(**{"b: condition": False})
    assert walk.news == [
        ("b: condition", "success"),
        ("b", "skipped"),
        ("c: condition", "skipped"),
        ("c", "skipped"),
        ("completed", "completed"),
    ]
    assert walk.status == "completed"
