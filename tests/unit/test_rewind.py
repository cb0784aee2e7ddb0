"""A rewind: to which step, with which state, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.engine.decide import decide
from orchestrator.engine.decision import Decision, OpenCallback
from orchestrator.engine.events import (
    Aborted,
    CallbackCompleted,
    Patched,
    PlanChanged,
    Retried,
    Rewound,
    StepSkipped,
)
from orchestrator.engine.rewind import plan_rewind
from orchestrator.errors import ConflictError, InvalidInputError
from orchestrator.workflow import conditional, init, step_group
from tests.unit.histories import Reads, past
from tests.unit.walk import STAMP, Walk, external, patient, question, work

a, b, c, d = (work(name) for name in "abcd")


def wanted(walk: Walk, step: str) -> Rewound:
    return plan_rewind(walk.plan, walk.process, [past(entry) for entry in walk.entries], step, "bob", "once more")


def rewind(walk: Walk, step: str) -> Decision:
    return walk.apply(wanted(walk, step))


def test_the_state_is_that_after_the_step_before_and_the_log_says_what_went() -> None:
    walk = Walk(init, a, b, c).start(name="x").succeed(one=1, both=1).succeed(two=2, both=2).fail()

    rewind(walk, "b")

    assert walk.process.state == {"name": "x", "one": 1, "both": 1}
    assert (walk.process.step, walk.process.status, walk.process.actor) == ("b", "running", "bob")
    (entry,) = walk.decision.entries
    assert (entry.kind, entry.name, entry.author, entry.position) == ("process", "rewound", "bob", None)
    assert (entry.delta, entry.removed) == ({"both": 1}, ("two",))
    assert entry.note == "from 'c' to 'b', with the state after entry 4: once more"


def test_a_patch_since_then_is_undone_too() -> None:
    walk = Walk(a, b).start(vlan=1).succeed().fail()
    walk.apply(Patched("ann", "typo", {"vlan": 2, "port": 3}))
    rewind(walk, "b")
    assert walk.process.state == {"vlan": 1}


def test_what_was_removed_since_comes_back() -> None:
    walk = Walk(a, b).start(vlan=1).succeed().fail()
    walk.apply(Patched("ann", "typo", {}, ("vlan",)))
    rewind(walk, "a")
    assert walk.process.state == {"vlan": 1}


def test_to_the_first_step_goes_the_state_of_the_initial_form() -> None:
    walk = Walk(a, b).start(name="x").succeed(one=1).fail()
    rewind(walk, "a")
    assert walk.process.state == {"name": "x"}


def test_after_a_rewind_the_newest_pass_counts() -> None:
    walk = Walk(a, b, c).start().succeed(one=1).succeed(two=2).fail()
    rewind(walk, "a")
    walk.succeed(one=10).succeed(two=20).fail()
    rewind(walk, "c")
    assert walk.process.state == {"one": 10, "two": 20}
    walk.fail()
    rewind(walk, "b")
    assert walk.process.state == {"one": 10}


def test_attempts_go_on_and_external_systems_get_new_keys() -> None:
    """ADR 0006: a late command or commit of the first pass fits nowhere."""
    walk = Walk(a, b).start().succeed().fail()
    before = walk.process
    rewind(walk, "a")
    assert walk.process.attempt == before.attempt
    assert walk.process.failures == 0
    assert walk.process.idempotency_key("a") != before.idempotency_key("a")
    key = walk.process.idempotency_key("a")
    walk.fail()
    walk.apply(Retried("bob"))
    assert walk.process.idempotency_key("a") == key, "a plain retry asks for the same work"


def test_the_present_step_can_begin_anew_and_a_later_one_cannot() -> None:
    walk = Walk(a, patient("p"), c).start().succeed(one=1).fail(retry_in=4)
    walk.claim()  # nothing runs: it waits
    rewind(walk, "p")
    assert (walk.process.step, walk.process.status) == ("p", "running")
    walk.fail()
    with pytest.raises(ConflictError, match="stands at 'p' and has not come to 'c': a rewind goes back only"):
        wanted(walk, "c")


def test_an_unknown_step_is_refused_with_those_there_are() -> None:
    with pytest.raises(InvalidInputError, match="has no step 'z'; its steps are 'a', 'b'"):
        wanted(Walk(a, b).start().fail(), "z")


@pytest.mark.parametrize("part", ["job: start", "job", "job: check"])
def test_a_callback_step_begins_anew_as_a_whole_with_another_token(part: str) -> None:
    walk = Walk(external("job"), b).start().succeed(order=1)
    assert walk.status == "awaiting_callback"
    if part == "job: check":
        walk.apply(CallbackCompleted(walk.process.position, {"light": 1}))
        walk.fail()

    rewind(walk, part)

    assert (walk.process.step, walk.process.state) == ("job: start", {})
    assert isinstance(walk.decision.callback, OpenCallback), "which supersedes the one before"


def test_a_condition_is_asked_again_where_its_block_begins() -> None:
    walk = Walk(a, conditional(Reads("big"))(step_group("g", b >> c)), d).start(big=True).succeed().succeed().succeed()
    walk.fail()
    rewind(walk, "c")
    assert walk.process.step == "c"
    walk.fail()
    rewind(walk, "a")
    walk.succeed(big=False).fail()
    assert walk.process.step == "d"

    with pytest.raises(ConflictError, match="a condition has left out 'c', with other steps: rewind to 'b'"):
        wanted(walk, "c")
    rewind(walk, "b")
    assert walk.news == [("rewound", "running"), ("b", "skipped"), ("c", "skipped")]
    assert walk.process.step == "d"


def test_a_step_that_an_operator_has_skipped_can_be_run_after_all() -> None:
    group = conditional(Reads("big"))(step_group("g", b >> c))
    walk = Walk(group, d).start(big=True).succeed().fail()
    walk.apply(StepSkipped("ann", "done by hand"))
    walk.fail()
    rewind(walk, "c")
    assert walk.process.step == "c"


def test_a_plan_that_has_changed_decides_and_a_new_step_before_the_place_can_be_chosen() -> None:
    walk = Walk(a, b, c).start().succeed(one=1).succeed(two=2).fail()
    walk.change_code(a, work("new"), b, c)
    event = wanted(walk, "new")
    assert walk.before is not None
    decision = decide(walk.plan, walk.process, event, STAMP, PlanChanged(walk.before.outline, 2))
    assert [entry.name for entry in decision.entries] == ["plan changed", "rewound"]
    assert (decision.process.step, decision.process.state) == ("new", {"one": 1})
    assert decision.process.plan == walk.plan.fingerprint


def test_a_process_whose_step_is_gone_from_the_code_goes_back_to_one_that_it_has_passed() -> None:
    walk = Walk(a, b, c).start().succeed(one=1).fail()
    walk.change_code(a, c)
    with pytest.raises(ConflictError, match="has not come to 'c'"):
        wanted(walk, "c")
    decision = decide(walk.plan, walk.process, wanted(walk, "a"), STAMP, PlanChanged(None, 2))
    assert [(entry.name, entry.note) for entry in decision.entries] == [
        ("plan changed", "plan 2: - b, at which the process stood"),
        ("rewound", "from 'b' to 'a', with the state after entry 1: once more"),
    ]
    assert (decision.process.step, decision.process.plan) == ("a", walk.plan.fingerprint)


def test_a_value_that_cannot_be_read_is_left_behind_or_is_an_obstacle() -> None:
    walk = Walk(a, b).start(name="x").succeed().fail()
    walk.process = replace(walk.process, unreadable={"bad": "too deep"})
    rewind(walk, "a")
    assert walk.decision.entries[0].removed == ("bad",)
    assert not walk.process.unreadable
    entries = [past(entry) for entry in walk.entries]
    entries[0] = replace(entries[0], unreadable={"bad": "too deep"})
    walk.fail()
    with pytest.raises(ConflictError, match="the value of 'bad' as it was after entry 1 of the log cannot be read"):
        plan_rewind(walk.plan, walk.process, entries, "a", "bob", "once more")


def test_numbers_and_truth_values_are_different() -> None:
    """For Python 1, 1.0 and True are equal; for those who read the state they are not."""
    walk = Walk(a, b).start(x=1, y=True).succeed(x=True, y=1.0).fail()
    assert wanted(walk, "a").delta == {"x": 1, "y": True}


def test_a_rewind_that_is_sent_twice_is_refused_where_it_would_change_nothing() -> None:
    walk = Walk(question("q"), a).start().fill(answer=1).fail()
    rewind(walk, "q")
    with pytest.raises(ConflictError, match="waits for the input of 'q' already"):
        wanted(walk, "q")
    walk.apply(Patched("ann", "typo", {"vlan": 2}))
    rewind(walk, "q")
    assert walk.process.state == {}


def test_what_waits_for_input_can_be_rewound_and_what_is_final_cannot() -> None:
    walk = Walk(a, question("q")).start().succeed(one=1)
    rewind(walk, "a")
    assert walk.process.state == {}
    walk.apply(Aborted("ann"))
    with pytest.raises(ConflictError, match="aborted cannot be rewound: it is final"):
        decide(walk.plan, walk.process, Rewound("bob", "r", "a", 1, {}), STAMP)
