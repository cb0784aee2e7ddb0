"""What changed code would do to a process that stands somewhere in it: a table."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any
from uuid import UUID

import pytest

from orchestrator.engine.plan import Outline, Plan
from orchestrator.engine.process import Process
from orchestrator.engine.upgrade_check import Trouble, check_process
from orchestrator.forms import FormPage
from orchestrator.types import ProcessStatus, State
from orchestrator.workflow import Step, StepList, Workflow, callback_step, inputstep, step

KEY = "owner"


@step("Reserve")
def reserve() -> State:
    return {"port": 7}


@step("Configure")
def configure(port: int) -> None:
    """Do nothing."""


@step("Notify")
def notify(owner: str) -> None:
    """Do nothing."""


@step("Find owner")
def find_owner() -> State:
    return {KEY: "ana"}


@step("Order")
def order(callback_route: str) -> None:
    """Do nothing."""


@step("Judge")
def judge(callback_result: State) -> None:
    """Do nothing."""


@inputstep("Approve", assignee="NOC")
def approve(reason: str) -> Generator[type[Any], Any, State]:
    class Page(FormPage):
        owner: str

    page = yield Page
    return {"owner": page.owner}


@inputstep("Configure", assignee="NOC")
def configure_by_hand() -> None:
    """Ask nothing."""


def plan_of(*steps: object) -> Plan:
    return Plan.of(Workflow("port", "for tests", StepList(steps)))  # type: ignore[arg-type]  # steps and blocks


def at(step: str, plan: Plan, state: State, status: ProcessStatus = ProcessStatus.RUNNING) -> Process:
    return Process(
        process_id=UUID(int=1),
        workflow="port",
        status=status,
        position=plan.positions[step],
        step=step,
        attempt=1,
        sequence=3,
        state=state,
        started_by="ana",
        actor="ana",
        plan=plan.fingerprint,
    )


@pytest.mark.parametrize(
    ("before", "place", "state", "after", "expected"),
    [
        ((reserve, configure), "Configure", {"port": 7}, (reserve, configure), []),
        ((reserve, configure), "Configure", {"port": 7}, (reserve, notify), [(Trouble.STEP_GONE, "no longer has")]),
        (
            (reserve, configure),
            "Configure",
            {"port": 7},
            (reserve, configure_by_hand),
            [(Trouble.STEP_KIND, "a step of the kind 'input'")],
        ),
        (
            (reserve, configure),
            "Configure",
            {},
            (reserve, configure),
            [(Trouble.ARGUMENT, "'Configure' asks for 'port' as int, which the state does not have")],
        ),
        (
            (reserve, configure),
            "Configure",
            {"port": "seven"},
            (reserve, configure),
            [(Trouble.ARGUMENT, "'Configure' asks for 'port'")],
        ),
        (
            (reserve, configure),
            "Configure",
            {"port": 7},
            (configure, reserve),
            [(Trouble.REPEATED, "'Reserve' has had its turn and comes again")],
        ),
        (
            (configure, find_owner),
            "Configure",
            {"port": 7},
            (find_owner, configure),
            [(Trouble.MISSED, "'Find owner' has not run yet and never will")],
        ),
        (
            (reserve, configure),
            "Configure",
            {"port": 7},
            (reserve, find_owner, configure),
            [(Trouble.NEW_BUT_MISSED, "the new step 'Find owner' does not run")],
        ),
        (
            (reserve, configure, find_owner),
            "Configure",
            {"port": 7},
            (reserve, configure),
            [(Trouble.DROPPED, "'Find owner' does not run any more")],
        ),
        (
            (reserve, configure),
            "Configure",
            {"port": 7},
            (reserve, configure, notify),
            [(Trouble.LATER_ARGUMENT, "'Notify' asks for 'owner', which the state does not have")],
        ),
        ((reserve, configure), "Configure", {"port": 7, "owner": "bo"}, (reserve, configure, notify), []),
        ((reserve, configure), "Configure", {"port": 7}, (reserve, configure, find_owner, notify), []),
        ((reserve,), "Reserve", {}, (reserve, configure), []),
        (
            (reserve, approve),
            "Approve",
            {},
            (reserve, approve, notify),
            [(Trouble.ARGUMENT, "'Approve' asks for 'reason' as str")],
        ),
        (
            (reserve, callback_step("Call", order, judge)),
            "Order",
            {},
            (reserve, callback_step("Call", order, judge)),
            [],
        ),
    ],
)
def test_what_changed_code_does_to_a_process_is_found_before_it_is_deployed(
    before: tuple[Step, ...],
    place: str,
    state: State,
    after: tuple[Step, ...],
    expected: list[tuple[Trouble, str]],
) -> None:
    had, has = plan_of(*before), plan_of(*after)
    status = ProcessStatus.SUSPENDED if before[-1] is approve else ProcessStatus.RUNNING
    found = list(check_process(has, at(place, had, state, status), had.outline))
    assert [one.trouble for one in found] == [trouble for trouble, _ in expected]
    assert all(what in one.what for one, (_, what) in zip(found, expected, strict=True)), found
    assert all(one.todo and one.step == place for one in found)


def test_a_process_that_awaits_a_callback_will_have_its_answer_by_the_next_step() -> None:
    plan = plan_of(callback_step("Call", order, judge))
    waiting = next(name for name in plan.positions if name not in {"Order", "Judge"})
    process = at(waiting, plan, {}, ProcessStatus.AWAITING_CALLBACK)
    assert list(check_process(plan, process, plan.outline)) == []


@pytest.mark.parametrize("before", [None, ()])
def test_of_a_plan_that_nobody_has_kept_only_the_place_is_known(before: Outline | None) -> None:
    had, has = plan_of(reserve, configure), plan_of(configure, reserve)
    found = list(check_process(has, at("Configure", had, {"port": 7}), before))
    assert all(one.trouble is not Trouble.REPEATED for one in found)


def test_a_state_that_cannot_be_read_is_found() -> None:
    plan = plan_of(reserve)
    process = at("Reserve", plan, {})
    object.__setattr__(process, "unreadable", {"deep": "nested too deep"})
    assert [one.trouble for one in check_process(plan, process, None)] == [Trouble.STATE]
