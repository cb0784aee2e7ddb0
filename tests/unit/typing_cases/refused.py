"""What a type checker must refuse: every line marked ``# error``, and no other."""

from __future__ import annotations

from typing import Any

from orchestrator.engine.decision import Dispatch
from orchestrator.workflow import (
    Step,
    StepList,
    begin,
    callback_step,
    conditional,
    init,
    retrystep,
    step,
    step_group,
    workflow,
)
from orchestrator.workflows import Schedule


@step("a")
def a() -> None: ...


@step("returns text")  # error
def text() -> str:
    return "done"


@step("returns a list")  # error
async def items() -> list[str]:
    return []


@step("returns a number")  # error
def number() -> int:
    return 1


@retrystep("returns text")  # error
async def retried() -> str:
    return "done"


@step("keys are numbers")  # error
def keys() -> dict[int, str]:
    return {}


@step(5)  # error
def unnamed() -> None: ...


@step("text as timeout", timeout="10")  # error
def patient() -> None: ...


@step("number as policy")
def fine() -> None: ...


@retrystep("policy", retry=3)  # error
def policy() -> None: ...


def bare() -> dict[str, Any]:
    return {}


async def async_predicate() -> bool:
    return True


def two_parameters(state: dict[str, Any], other: int) -> bool:
    return True


after: StepList = begin >> a >> bare  # error
first: StepList = a >> bare  # error
listed: StepList = StepList([bare])  # error
tuple_of_steps: StepList = (a, a)  # error
conditional("port")(a)  # error
conditional(True)(a)  # error
conditional(async_predicate)(bare)  # error
conditional(two_parameters)(bare)  # error
conditional(lambda: True)(bare)  # error
kept: StepList = conditional(lambda: True)(a)  # error
callback_step("job", begin >> a, a)  # error
callback_step("job", a, step_group("g", begin >> a))  # error
callback_step("job", a, bare)  # error
step_group("g", a)  # error
a.name = "renamed"  # error
a()  # error


@workflow("nothing")  # error
def returns_none() -> None: ...


@workflow("a step")  # error
def returns_a_step() -> Step:
    return a


@workflow("takes a parameter")  # error
def with_parameter(name: str) -> StepList:
    return init >> a


@workflow("wrong target", target="CREATE")  # error
def wrong_target() -> StepList:
    return init >> a


Schedule("nightly", "example", cron="0 3 * * *", overlap="perhaps")  # error
Schedule("nightly", "example", every=60)  # error
Schedule("nightly", "example", cron="0 3 * * *", inputs={"node": "ams-1"})  # error

Dispatch(1, 1, "default", "a").lost = 1  # error
