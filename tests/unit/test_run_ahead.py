"""How far steps run ahead, and what one message says about several of them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from consumers.run_ahead import AGAIN, MEDIUM, MOST_HELD, SHORT, Budget, RunAhead, Stretch
from orchestrator.broker.outgoing import Outgoing, complete, result_to_be
from orchestrator.db.processes.advance import Receipt
from orchestrator.engine.decision import Decision, Dispatch, Entry, EntryKind
from orchestrator.engine.events import Event, Failure, StepFailed, StepSucceeded
from orchestrator.engine.plan import Plan
from orchestrator.engine.process import Process
from orchestrator.errors import DefinitionError
from orchestrator.messages import Advanced, decode, encode
from orchestrator.services.results import describe_decision
from orchestrator.shares import Shares
from orchestrator.types import ProcessStatus, StepStatus
from orchestrator.workflow import Workflow, begin, step, workflow

AT = datetime(2026, 1, 1, tzinfo=UTC)
SUBSCRIPTION = uuid4()
STATE = {"subscription_id": str(SUBSCRIPTION)}
PROCESS = Process(uuid4(), "some", ProcessStatus.RUNNING, 0, "s", 1, 3, STATE, "me", "me")


@step("Only")
def only() -> None: ...


def make(*, is_task: bool = False, run_ahead: Any = None) -> Workflow:
    def some() -> Any:
        return begin >> only

    return workflow(is_task=is_task, run_ahead=run_ahead)(some)


PLAN = Plan.of(make())


@pytest.mark.parametrize(
    ("steps", "seconds", "limit", "allowed"),
    [
        (0, 0.0, None, True),
        (9, 1.9, None, True),
        (10, 0.0, None, False),
        (1, 2.0, None, False),
        (3, 0.1, SHORT, True),
        (4, 0.1, SHORT, False),
        (1, 0.2, SHORT, False),
        (8, 0.9, MEDIUM, True),
        (9, 0.9, MEDIUM, False),
        (8, 1.0, MEDIUM, False),
    ],
)
def test_a_budget_has_steps_and_seconds_and_is_smaller_while_others_wait(
    steps: int, seconds: float, limit: Budget | None, allowed: bool
) -> None:
    assert Budget(10, 2.0).allows(steps, seconds, limit) is allowed


@pytest.mark.parametrize("limit", [SHORT, MEDIUM])
def test_a_budget_that_is_smaller_than_the_limit_stays_so(limit: Budget) -> None:
    assert not Budget(2, 2.0).allows(2, 0.0, limit)
    assert not Budget(0, 2.0).allows(0, 0.0)


class Program:
    """A consumer's parts around a stretch."""

    def __init__(self, budget: int = 10, *, slots: int = 1) -> None:
        self.draining = asyncio.Event()
        self.slots = Shares(slots, ["default"])
        self.sent: list[Advanced] = []
        self.steps: list[str | None] = []
        self.takes = True
        self.news = asyncio.Event()
        self.held_up: set[str] = set()
        self.ahead = RunAhead(Budget(budget, 60), self.slots, self.draining, self.publish, self.held_up.__contains__)

    async def publish(self, message: Outgoing) -> bool:
        self.sent.append(decode(Advanced, message.body))
        self.steps.append(message.headers.get("step"))
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


def go_on(stretch: Stretch) -> int:
    """Return how many steps may follow."""
    allowed = 0
    while stretch.may_go_on(SUCCESS, after()):
        allowed += 1
        stretch.hold(*stored(3 + allowed))
    stretch.end()
    return allowed


async def test_a_stretch_is_shorter_while_commands_of_its_queue_wait_for_the_consumer() -> None:
    program = Program(20)
    program.held_up.add("another")
    assert go_on(program.ahead.begin(make(), "default")) == 20
    program.held_up.add("default")
    assert go_on(program.ahead.begin(make(), "default")) == MEDIUM.steps


async def test_nothing_goes_on_while_the_program_stops_or_long_while_others_wait() -> None:
    program = Program()
    await program.slots.acquire("default")
    stretch = program.ahead.begin(make(), "default")
    waiting = asyncio.create_task(program.slots.acquire("default"))
    await asyncio.sleep(0)
    allowed = 0
    while stretch.may_go_on(SUCCESS, after()):
        allowed += 1
        stretch.hold(*stored(3 + allowed))
    assert allowed == 4
    program.slots.release("default")
    await waiting
    assert stretch.may_go_on(SUCCESS, after())
    program.draining.set()
    assert not stretch.may_go_on(SUCCESS, after())
    stretch.end()


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
    stretch.hold(*stored(*range(4, 4 + MOST_HELD)))
    assert stretch.may_go_on(SUCCESS, after())
    stretch.hold(*stored(4 + MOST_HELD))
    assert not stretch.may_go_on(SUCCESS, after())
    stretch.end()


def stored(*sequences: int, announced: int = 3, at: datetime = AT) -> tuple[Plan, Decision, Receipt]:
    """A decision with entries of these numbers, and what the rows said when it was stored."""
    entries = tuple(
        Entry(
            one, EntryKind.STEP, f"s{one}", StepStatus.SUCCESS, 1, "me", position=0, delta={"much": "that is left out"}
        )
        for one in sequences
    )
    process = replace(PROCESS, sequence=sequences[-1])
    return PLAN, Decision(process, entries, Dispatch(1, 1, "default", "next")), Receipt(at, announced)


def end(stretch: Stretch, plan: Plan, decision: Decision, receipt: Receipt) -> Advanced:
    """The message with which a stretch ends, as it arrives."""
    fields = stretch.read(plan, decision)
    message = result_to_be(fields, PROCESS.process_id, PROCESS.workflow, "s", "default")
    stretch.end()
    return decode(Advanced, complete(message, receipt.at, receipt.announced).body)


def times(message: Advanced) -> list[tuple[int, datetime]]:
    """The entries of a message and when they were stored."""
    return [(one.sequence, one.at or message.at) for one in message.entries]


async def test_a_message_about_several_steps_keeps_their_times_and_leaves_out_what_was_confirmed() -> None:
    stretch = Program().ahead.begin(make(), "default")
    first, second, third = (AT + timedelta(seconds=number) for number in range(3))
    stretch.hold(*stored(4, 5, at=first))
    stretch.hold(*stored(6, at=second))
    assert stretch.held_from == 3
    stretch.hold(*stored(7, announced=5, at=second))
    assert stretch.held_from == 5
    whole = end(stretch, *stored(8, announced=6, at=third))
    assert times(whole) == [(6, second), (7, second), (8, third)], "what is known only now stays in, and is skipped"
    assert [one.at for one in whole.entries] == [second, second, None], "the time of the message is not repeated"
    assert (whole.at, whole.sequence, whole.announced) == (third, 8, 6)
    assert (whole.next and whole.next.step, whole.subscription_ids) == ("next", [SUBSCRIPTION])


async def test_the_message_of_a_last_step_alone_says_the_same_as_without_a_stretch() -> None:
    plan, decision, receipt = stored(4, 5)
    whole = end(Program().ahead.begin(make(), "default"), plan, decision, receipt)
    assert whole == describe_decision(plan, decision, receipt.at, receipt.announced)
    assert whole.entries[0].name == "s4"


async def test_what_was_held_survives_the_wire_with_all_its_fields() -> None:
    """It is built without a message of its own for each step."""
    stretch = Program().ahead.begin(make(), "default")
    stretch.hold(*stored(4))
    stretch.hold(*stored(5, at=AT + timedelta(seconds=1)))
    whole = end(stretch, *stored(6, at=AT + timedelta(seconds=2)))
    assert decode(Advanced, encode(whole)) == whole
    fields = {"kind": "step", "name": "s5", "status": "success", "attempt": 1, "author": "me", "position": 0}
    assert whole.entries[1].model_dump() == {"sequence": 5, "at": AT + timedelta(seconds=1), **fields}


async def test_what_is_sent_meanwhile_is_about_the_state_that_the_next_step_has() -> None:
    """The state before it is not kept in memory for a message that is seldom sent."""
    program = Program()
    stretch = program.ahead.begin(make(), "default")
    plan, decision, receipt = stored(4)
    other = uuid4()
    following: Any = SimpleNamespace(
        process=replace(decision.process, attempt=2, state={"subscription_id": str(other)})
    )
    stretch.hold(plan, decision, replace(receipt, following=following))
    await gathered(program, 1)
    (sent,) = program.sent
    assert (sent.sequence, sent.at, sent.subscription_ids, sent.next) == (4, AT, [other], None)
    assert program.steps == [decision.process.step], "a message without a step is of a change over HTTP"
    stretch.end()
    await program.ahead.finish()


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
    stretch.hold(*stored(4))
    await gathered(program, 3)
    program.takes = True
    await program.ahead.finish()
    stretch.hold(*stored(5))
    assert stretch.held_from == 3
    whole = end(stretch, *stored(6))
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
    unread.hold(*stored(4))
    read = program.ahead.begin(make(), "default")
    read.hold(*stored(5))
    await gathered(program, 1)
    assert [one.sequence for one in program.sent] == [5]
    unread.end()
    monkeypatch.setattr("consumers.run_ahead.UNREAD_FLUSH_AFTER", 0.0)
    unread.hold(*stored(4))
    await gathered(program, 2)
    assert [one.sequence for one in program.sent] == [5, 4]
    for one in (read, unread):
        one.end()
    await program.ahead.finish()


async def test_nothing_is_sent_when_the_last_step_has_no_outcome() -> None:
    """Its claim is gone. Who has it has published the events from the rows."""
    program = Program()
    stretch = program.ahead.begin(make(), "default")
    stretch.hold(*stored(4))
    stretch.end()
    assert stretch.held_from is None
    await program.ahead.finish()
    assert program.sent == []
