"""How far steps run ahead, and what one message says about several of them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from consumers.run_ahead import AGAIN, MOST_HELD, Budget, RunAhead
from orchestrator.broker.outgoing import Outgoing
from orchestrator.engine.decision import Decision, Dispatch
from orchestrator.engine.events import Event, Failure, StepFailed, StepSucceeded
from orchestrator.engine.process import Process
from orchestrator.errors import DefinitionError
from orchestrator.messages import Advanced, LoggedEntry, decode
from orchestrator.services.results import combine
from orchestrator.shares import Shares
from orchestrator.types import ProcessStatus
from orchestrator.workflow import Workflow, begin, step, workflow

AT = datetime(2026, 1, 1, tzinfo=UTC)
PROCESS = Process(uuid4(), "some", ProcessStatus.RUNNING, 0, "s", 1, 3, {}, "me", "me")


@step("Only")
def only() -> None: ...


def make(*, is_task: bool = False, run_ahead: Any = None) -> Workflow:
    def some() -> Any:
        return begin >> only

    return workflow(is_task=is_task, run_ahead=run_ahead)(some)


@pytest.mark.parametrize(
    ("steps", "seconds", "is_waited_for", "allowed"),
    [
        (0, 0.0, False, True),
        (9, 1.9, False, True),
        (10, 0.0, False, False),
        (1, 2.0, False, False),
        (3, 0.1, True, True),
        (4, 0.1, True, False),
        (1, 0.2, True, False),
    ],
)
def test_a_budget_has_steps_and_seconds_and_is_short_while_others_wait(
    steps: int, seconds: float, is_waited_for: bool, allowed: bool
) -> None:
    assert Budget(10, 2.0).allows(steps, seconds, is_waited_for=is_waited_for) is allowed


def test_a_budget_that_is_smaller_than_the_short_one_stays_so() -> None:
    assert not Budget(2, 2.0).allows(2, 0.0, is_waited_for=True)
    assert not Budget(0, 2.0).allows(0, 0.0, is_waited_for=False)


class Program:
    """A consumer's parts around a stretch."""

    def __init__(self, budget: int = 10, *, slots: int = 1) -> None:
        self.draining = asyncio.Event()
        self.slots = Shares(slots, ["default"])
        self.sent: list[Advanced] = []
        self.takes = True
        self.news = asyncio.Event()
        self.ahead = RunAhead(Budget(budget, 60), self.slots, self.draining, self.publish)

    async def publish(self, message: Outgoing) -> bool:
        self.sent.append(decode(Advanced, message.body))
        self.news.set()
        return self.takes


def after(queue: str = "default", lost: int = 0) -> Decision:
    return Decision(PROCESS, (), Dispatch(1, 1, queue, "next", lost))


SUCCESS = StepSucceeded(1, {})


@pytest.mark.parametrize(
    ("event", "decision", "allowed"),
    [
        pytest.param(SUCCESS, after(), True, id="the next step"),
        pytest.param(SUCCESS, after("another"), False, id="of another queue"),
        pytest.param(SUCCESS, after(lost=1), False, id="a suspect"),
        pytest.param(SUCCESS, replace(after(), dispatch=None), False, id="it waits, or is over"),
        pytest.param(StepFailed(1, Failure("E", "e")), after(), False, id="a failure"),
    ],
)
async def test_only_a_step_that_succeeded_goes_on_and_with_a_step_of_its_queue(
    event: Event, decision: Decision, allowed: bool
) -> None:
    assert Program().ahead.begin(make(), "default").may_go_on(event, decision) is allowed


@pytest.mark.parametrize(
    ("setting", "own", "is_task", "queue", "allowed"),
    [
        (1, None, False, "default", True),
        (1, 0, False, "default", False),
        (0, 5, False, "default", False),
        (5, None, True, "default", False),
        (5, 5, False, "tasks", False),
    ],
)
async def test_a_workflow_has_its_own_budget_unless_none_runs_ahead_and_tasks_have_none(
    setting: int, own: int | None, is_task: bool, queue: str, allowed: bool
) -> None:
    stretch = Program(setting).ahead.begin(make(is_task=is_task, run_ahead=own), queue)
    assert stretch.may_go_on(SUCCESS, after(queue)) is allowed


@pytest.mark.parametrize("wrong", [-1, 1.5, True, "3"])
def test_a_budget_of_a_workflow_is_a_number_of_steps(wrong: object) -> None:
    with pytest.raises(DefinitionError, match=r"the run_ahead of the workflow 'some' is a number of steps"):
        make(run_ahead=wrong)


async def test_nothing_goes_on_while_the_program_stops_or_long_while_others_wait() -> None:
    program = Program()
    await program.slots.acquire("default")
    stretch = program.ahead.begin(make(), "default")
    waiting = asyncio.create_task(program.slots.acquire("default"))
    await asyncio.sleep(0)
    allowed = 0
    while stretch.may_go_on(SUCCESS, after()):
        allowed += 1
        stretch.hold(message(3 + allowed))
    assert allowed == 4
    program.slots.release("default")
    await waiting
    assert stretch.may_go_on(SUCCESS, after())
    program.draining.set()
    assert not stretch.may_go_on(SUCCESS, after())
    stretch.take(message(99))


@pytest.mark.parametrize(("side_by_side", "seconds"), [(0, 0.05), (5, 0.05), (30, 0.3), (1000, 1.0)])
async def test_events_wait_for_longer_the_more_steps_run_side_by_side_but_never_for_long(
    side_by_side: int, seconds: float
) -> None:
    program = Program(slots=2000)
    for _ in range(side_by_side):
        assert program.slots.take("default")
    assert program.ahead.find_flush_after() == pytest.approx(seconds)


async def test_a_stretch_ends_when_too_much_has_gathered() -> None:
    stretch = Program(1000).ahead.begin(make(), "default")
    stretch.hold(message(*range(4, 4 + MOST_HELD)))
    assert stretch.may_go_on(SUCCESS, after())
    stretch.hold(message(4 + MOST_HELD))
    assert not stretch.may_go_on(SUCCESS, after())
    stretch.take(message(999))


def message(*sequences: int, announced: int = 3, at: datetime = AT) -> Advanced:
    entries = [
        LoggedEntry(sequence=one, kind="step", name=f"s{one}", status="success", attempt=1, author="me", position=0)
        for one in sequences
    ]
    return Advanced(
        process_id=PROCESS.process_id,
        workflow="some",
        target="SYSTEM",
        is_task=False,
        status="running",
        sequence=sequences[-1],
        user="me",
        at=at,
        announced=announced,
        entries=entries,
    )


def test_a_message_about_several_steps_keeps_their_times_and_leaves_out_what_is_confirmed() -> None:
    later = AT + timedelta(seconds=1)
    both = combine(message(4, 5), message(6, at=later))
    assert [(one.sequence, one.at) for one in both.entries] == [(4, AT), (5, AT), (6, None)]
    assert (both.at, both.sequence) == (later, 6)
    three = combine(both, message(7, announced=5))
    assert [(one.sequence, one.at) for one in three.entries] == [(6, later), (7, None)]


async def gathered(program: Program, messages: int) -> None:
    async with asyncio.timeout(30):
        while len(program.sent) < messages:
            program.news.clear()
            await program.news.wait()


async def test_what_has_gathered_is_sent_after_a_while_and_again_until_the_broker_takes_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("consumers.run_ahead.AGAIN", AGAIN / 1000)
    program = Program()
    stretch = program.ahead.begin(make(), "default")
    program.takes = False
    stretch.hold(message(4))
    await gathered(program, 3)
    program.takes = True
    await program.ahead.finish()
    stretch.hold(message(5))
    assert stretch.held_from == 3
    whole = stretch.take(message(6))
    assert [one.sequence for one in whole.entries] == [4, 5, 6]
    assert stretch.held_from is None
    assert all(one.next is None for one in program.sent)


async def test_events_that_no_queue_was_bound_for_wait_for_longer_than_others_and_are_sent_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("consumers.run_ahead.FLUSH_AFTER", 0.0)
    monkeypatch.setattr("consumers.run_ahead.UNREAD_FLUSH_AFTER", 3600.0)
    program = Program()
    unread = program.ahead.begin(make(), "default", unread=True)
    unread.hold(message(4))
    read = program.ahead.begin(make(), "default")
    read.hold(message(5))
    await gathered(program, 1)
    assert [one.sequence for one in program.sent] == [5]
    unread.end()
    monkeypatch.setattr("consumers.run_ahead.UNREAD_FLUSH_AFTER", 0.0)
    unread.hold(message(4))
    await gathered(program, 2)
    assert [one.sequence for one in program.sent] == [5, 4]
    for one in (read, unread):
        one.end()
    await program.ahead.finish()


async def test_nothing_is_sent_when_the_last_step_has_no_outcome() -> None:
    """Its claim is gone. Who has it has published the events from the rows."""
    program = Program()
    stretch = program.ahead.begin(make(), "default")
    stretch.hold(message(4))
    stretch.end()
    assert stretch.held_from is None
    await program.ahead.finish()
    assert program.sent == []
