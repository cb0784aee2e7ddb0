"""Plans for the tests of fingerprints."""

from __future__ import annotations

import operator
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import tenacity

from orchestrator.engine.plan import Plan
from orchestrator.retry import RetryPolicy
from orchestrator.workflow import Predicate, StepList, callback_step, conditional, retrystep, step, step_group, workflow


def nothing() -> None:
    """Do nothing."""


def wanted(state: dict[str, Any]) -> bool:
    """Return whether the state says so."""
    return bool(state.get("wanted"))


def has(key: str, state: dict[str, Any]) -> bool:
    """Return whether the state has a key."""
    return key in state


def equals(key: str, value: str) -> Predicate:
    """Return a local function that closes over its arguments."""

    def compare(state: dict[str, Any]) -> bool:
        # A comment that does not count.
        text = f"{state.get(key)!s:>{len(value)}}"
        return text == value

    return compare


def plan_under(*conditions: Predicate) -> Plan:
    """Return the plan of one step under these conditions."""
    made = step("a")(nothing)
    for one in conditions:
        made = conditional(one)(made)

    @workflow()
    def flow() -> StepList:
        return StepList([made])

    return Plan.of(flow)


@workflow("Everything that counts")
def everything() -> StepList:
    """Return a list with a step of each kind."""
    slowly = RetryPolicy(tenacity.wait_exponential(multiplier=2, max=60) + tenacity.wait_random(0, 1), 5)
    ask = retrystep("Ask", retry=slowly, timeout=5, queue="slow")(nothing)
    job = callback_step("Job", step("Send")(nothing), step("Check")(nothing), timeout=timedelta(hours=1))
    return (
        conditional(lambda state: state["kind"] == "port")(ask)
        >> step_group("Both", conditional(wanted)(step("One")(nothing)) >> step("Two")(nothing))
        >> conditional(equals("kind", "node"))(job)
        >> conditional(partial(has, "node"))(step("Last")(nothing))
        >> conditional(operator.itemgetter("node"))(step("Very last")(nothing))
    )


# fmt: off
LAMBDAS: list[Callable[..., bool]] = [lambda: True, lambda state: "a" in state, lambda state: any(map(lambda x: x, state))]  # noqa: C417
"""Several on one line."""
# fmt: on
