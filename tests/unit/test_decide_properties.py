"""What holds for every plan and every history.

That an event comes from the consumer which holds the claim is the database's to check; here an attempt is told from
another by its number, as in :func:`orchestrator.engine.decide.decide`.
"""

from __future__ import annotations

from collections import Counter
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.engine.decide import decide
from orchestrator.engine.decision import CloseCallback, Decision, EntryKind, OpenCallback, ParkCallback
from orchestrator.engine.events import (
    AttemptLost,
    CallbackCompleted,
    CallbackFailed,
    Event,
    NotRun,
    Patched,
    PlanChanged,
    Retried,
    RetryDue,
    Rewound,
    Started,
    StepFailed,
    StepSkipped,
    StepSucceeded,
    Submitted,
)
from orchestrator.engine.plan import Plan
from orchestrator.engine.process import Process
from orchestrator.engine.transitions import TRANSITIONS
from orchestrator.errors import FencedError, IllegalTransitionError
from orchestrator.types import ProcessStatus, StepStatus
from orchestrator.workflow import StepKind
from tests.unit.histories import KEYS, Happening, broken, histories, one_of_each, plans, states
from tests.unit.walk import STAMP, Walk, fold


class Watched(Walk):
    """A walk that checks, at every event, all that must always hold."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan=plan)
        self.callback: OpenCallback | None = None
        self.parked = False
        self.succeeded: set[int] = set()
        self.seen: Counter[tuple[str, str]] = Counter()

    def happen(self, event: Event) -> None:
        """Apply an event that may be refused."""
        before, untouched = self.process, deepcopy(self.process)
        refusal: type[Exception] | None = None
        try:
            self.apply(event)
        except (IllegalTransitionError, FencedError) as error:
            refusal = type(error)
        if refusal is not None:
            self.check_refusal(untouched, event, refusal)
            return
        decision = self.decision
        assert before == untouched, "a decision must not change what it judges"
        assert decide(self.plan, untouched, deepcopy(event), STAMP) == decision, "the same must give the same"
        self.seen[type(event).__name__, self.process.status] += 1
        self.check_movement(before, event)
        self.check_log(before, decision)
        self.check_dispatch(decision, event)
        self.check_callback(decision)

    def check_refusal(self, untouched: Process, event: Event, refusal: type[Exception]) -> None:
        assert self.process == untouched
        with pytest.raises(refusal):
            decide(self.plan, self.process, event, STAMP)
        if untouched.status in TRANSITIONS[type(event)] and isinstance(event, StepSucceeded | StepFailed | AttemptLost):
            assert refusal is FencedError
        self.seen[refusal.__name__, untouched.status] += 1

    def check_movement(self, before: Process, event: Event) -> None:
        after = self.process
        assert after.status in TRANSITIONS[type(event)][before.status]
        assert after.attempt == before.attempt, "only a claim raises the attempt"
        if isinstance(event, StepSucceeded | StepFailed | AttemptLost):
            assert event.attempt == before.attempt
        if isinstance(event, CallbackCompleted | CallbackFailed):
            assert event.position == before.position
        if isinstance(event, NotRun):
            assert (after.position, after.step, after.state) == (before.position, before.step, before.state)
            assert (after.failures, after.lost) == (before.failures, before.lost)
        if after.rewinds != before.rewinds:
            assert after.rewinds == before.rewinds + 1
            self.check_way_back(before, event)
        else:
            assert after.position >= before.position
        if after.status is ProcessStatus.COMPLETED:
            assert (after.position, after.step) == (len(self.plan), None)
        else:
            assert self.plan.leaves[after.position].step.name == after.step
        assert (after.process_id, after.workflow, after.started_by) == (before.process_id, before.workflow, "ann")

    def check_way_back(self, before: Process, event: Event) -> None:
        if isinstance(event, Rewound):
            assert self.news[0] == ("rewound", "running")
            target = self.plan.positions[event.step]
            assert target <= before.position
            assert self.process.position >= target, "from there it may have gone on, past markers and skipped steps"
            # The state is exactly that of then, and nothing that came after it.
            assert fold([one for one in self.entries if one.sequence <= event.sequence]) == self.process.state
            assert before.idempotency_key("any") != self.process.idempotency_key("any")
        else:
            assert isinstance(event, Retried)
            assert self.news[0] == ("retried", "running")
            assert self.plan.leaves[self.process.position].step.kind is StepKind.ACTION
            target = self.process.position
        self.succeeded -= set(range(target, before.position + 1))

    def check_log(self, before: Process, decision: Decision) -> None:
        sequences = [entry.sequence for entry in decision.entries]
        assert sequences == list(range(before.sequence + 1, before.sequence + 1 + len(sequences)))
        assert sequences, "nothing happens without a row in the log"
        assert self.process.sequence == sequences[-1]
        assert fold(self.entries) == self.process.state
        shown = [entry.status for entry in self.entries if entry.kind is EntryKind.PROCESS][-1]
        assert shown == self.process.status, "every change of status is a row in the log"
        for entry in decision.entries:
            assert (entry.position is None) == (entry.kind is EntryKind.PROCESS)
            if entry.status is StepStatus.FAILED and entry.kind is EntryKind.STEP:
                assert entry.failure is not None
                assert entry.delta == {}
            if entry.status is StepStatus.SUCCESS and entry.position is not None:
                self.succeeded.add(entry.position)

    def check_dispatch(self, decision: Decision, event: Event) -> None:
        after, dispatch = self.process, decision.dispatch
        assert (dispatch is not None) == (after.status is ProcessStatus.RUNNING)
        # A process that waits is moved to another plan only to apply another event at once.
        waits = after.status is ProcessStatus.WAITING and not isinstance(event, PlanChanged)
        assert (decision.retry_in is not None) == waits
        if dispatch is not None:
            leaf = self.plan.leaves[dispatch.position]
            assert (dispatch.position, dispatch.attempt, dispatch.step) == (after.position, after.attempt, after.step)
            assert dispatch.queue == leaf.queue
            assert leaf.step.kind in {StepKind.RUN, StepKind.ACTION}
            assert after.entered
            assert dispatch.position not in self.succeeded, "finished steps are never run again"

    def check_callback(self, decision: Decision) -> None:
        """A callback is open exactly from the action to its answer."""
        match decision.callback:
            case OpenCallback():
                self.callback, self.parked = decision.callback, False
                assert self.callback.token == STAMP.make_token()
            case ParkCallback():
                assert self.callback is not None
                assert not self.parked
                self.parked = True
            case CloseCallback():
                self.callback, self.parked = None, False
        leaf = self.plan.leaves[self.process.position] if self.process.step else None
        at_action = leaf is not None and leaf.step.kind is StepKind.ACTION
        working = at_action and self.process.status in {ProcessStatus.RUNNING, ProcessStatus.WAITING}
        waiting = self.process.status is ProcessStatus.AWAITING_CALLBACK
        assert (self.callback is not None) == (working or waiting)
        assert self.parked == waiting
        if self.callback is not None and leaf is not None:
            assert self.callback.position == leaf.position + (1 if at_action else 0)
            assert self.callback.step == self.plan.leaves[self.callback.position].step.name

    def go_on(self) -> None:
        """The next good thing to happen."""
        everything: dict[str, Any] = dict.fromkeys(KEYS, True)
        match self.process.status:
            case ProcessStatus.RUNNING:
                self.claim()
                self.happen(StepSucceeded(self.process.attempt, everything))
            case ProcessStatus.WAITING:
                self.happen(RetryDue())
            case ProcessStatus.SUSPENDED:
                self.happen(Submitted("bob", everything))
            case ProcessStatus.AWAITING_CALLBACK:
                self.happen(CallbackCompleted(self.process.position, {}))
            case _:
                guards = self.plan.leaves[self.process.position].guards
                if not self.process.entered and any(guard.predicate is broken for guard in guards):
                    self.happen(StepSkipped("bob", "its condition is broken"))
                else:
                    self.happen(Patched("bob", "it was missing", everything))
                    self.happen(Retried("bob"))


def live(plan: Plan, state: dict[str, Any], history: list[Happening]) -> Watched:
    watched = Watched(plan)
    watched.happen(Started(state))
    for happening in history:
        if happening.claimed and watched.process.status is ProcessStatus.RUNNING:
            watched.claim()
        watched.happen(happening.event(plan, watched.process, watched.entries))
    return watched


def test_what_must_always_hold_holds_after_every_event_of_every_history() -> None:
    """B3, B4, B7 and all that :class:`Watched` checks."""
    seen: Counter[tuple[str, str]] = Counter()

    @settings(max_examples=320)
    @given(plans(), states, histories)
    def run(plan: Plan, state: dict[str, Any], history: list[Happening]) -> None:
        seen.update(live(plan, state, history).seen)

    run()

    # The histories are worth something only if they go everywhere.
    assert {name for name, _ in seen} >= {event.__name__ for event in TRANSITIONS} | {
        "IllegalTransitionError",
        "FencedError",
    }
    assert {status for _, status in seen} == set(ProcessStatus) - {ProcessStatus.RESUMED, ProcessStatus.CREATED}


@given(plans(), states, histories)
def test_whatever_has_happened_every_process_can_still_complete(
    plan: Plan, state: dict[str, Any], history: list[Happening]
) -> None:
    watched = live(plan, state, history)

    # a step, its answer and a failed condition each take one; nobody goes back any more
    for _ in range(3 * len(plan) + 3):
        if watched.process.status.is_final:
            break
        watched.go_on()

    assert watched.process.status.is_final


@given(plans(), states, histories, st.booleans())
def test_what_is_final_stays_final(plan: Plan, state: dict[str, Any], history: list[Happening], abort: bool) -> None:
    watched = live(plan, state, history)
    while not watched.process.status.is_final:
        if abort:
            watched.happen(next(e for e in one_of_each(watched.process) if type(e).__name__ == "Aborted"))
        else:
            watched.go_on()

    for event in one_of_each(watched.process):
        with pytest.raises(IllegalTransitionError):
            decide(plan, watched.process, event, STAMP)
