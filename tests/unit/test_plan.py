"""A workflow laid out flat, and finding one's place in it after its code has changed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.engine.events import Submitted
from orchestrator.engine.plan import Guard
from orchestrator.engine.process import Process
from orchestrator.errors import WorkflowChangedError
from orchestrator.types import ProcessStatus
from orchestrator.workflow import StepList, conditional, done, init, step_group
from tests.unit.walk import Walk, blank, external, plan_of, question, work

a, b, c, d = work("a"), work("b"), work("c"), work("d")


def one() -> bool:
    return True


def two() -> bool:
    return True


def three() -> bool:
    return True


def at(position: int, step: str | None) -> Process:
    return replace(blank(ProcessStatus.RUNNING), position=position, step=step)


def test_positions_count_the_leaves_of_nested_groups() -> None:
    """B37."""
    plan = plan_of(init, step_group("g", a >> step_group("h", b >> c)), external("job"), done)

    assert [(leaf.position, leaf.step.name, leaf.group) for leaf in plan.leaves] == [
        (0, "Start", None),
        (1, "a", "g"),
        (2, "b", "h"),
        (3, "c", "h"),
        (4, "job: start", None),
        (5, "job", None),
        (6, "job: check", None),
        (7, "Done", None),
    ]
    assert plan.positions == {leaf.step.name: leaf.position for leaf in plan.leaves}


def test_a_retry_begins_at_the_step_itself_but_for_the_parts_of_a_callback_step() -> None:
    """B36."""
    plan = plan_of(a, step_group("g", external("job") >> b), external("other"))

    assert [leaf.restart for leaf in plan.leaves] == [0, 1, 1, 1, 4, 5, 5, 5]


def test_a_callback_step_in_a_group_belongs_to_the_group() -> None:
    plan = plan_of(step_group("g", external("job") >> a))

    assert {leaf.group for leaf in plan.leaves} == {"g"}


def test_the_condition_of_a_block_is_asked_at_its_first_leaf_and_covers_all_of_it() -> None:
    """B35."""
    inner = conditional(three)(step_group("h", b >> c))
    plan = plan_of(
        a, conditional(one)(step_group("g", conditional(two)(inner) >> d)), conditional(one)(external("job"))
    )

    assert [leaf.guards for leaf in plan.leaves] == [
        (),
        (Guard(one, 4), Guard(two, 3), Guard(three, 3)),
        (),
        (),
        (Guard(one, 7),),
        (),
        (),
    ]


def test_the_condition_of_a_list_is_asked_at_each_of_its_steps() -> None:
    """B35."""
    plan = plan_of(conditional(one)(a >> step_group("g", b >> c) >> d))

    assert [leaf.guards for leaf in plan.leaves] == [(Guard(one, 1),), (Guard(one, 3),), (), (Guard(one, 4),)]


@pytest.mark.parametrize(
    ("position", "expected"), [(0, 1), (1, 4), (2, 4), (3, 4), (4, 5)], ids=["a", "action", "wait", "check", "b"]
)
def test_skipping_a_part_of_a_callback_step_skips_the_rest_of_it(position: int, expected: int) -> None:
    """B11."""
    plan = plan_of(a, external("job"), b)

    assert plan.skipped_by(plan.leaves[position]) == expected


def test_skipping_one_callback_step_leaves_the_next() -> None:
    plan = plan_of(external("job"), external("other"))

    assert plan.skipped_by(plan.leaves[0]) == 3
    assert plan.skipped_by(plan.leaves[3]) == 6


def test_a_process_is_found_at_its_position() -> None:
    plan = plan_of(a, b)

    assert plan.locate(at(1, "b")) is plan.leaves[1]


@pytest.mark.parametrize("position", [0, 2, 99])
def test_a_process_is_found_by_the_name_of_its_step_when_that_has_moved(position: int) -> None:
    plan = plan_of(a, b, c)

    assert plan.locate(at(position, "b")).position == 1


@pytest.mark.parametrize(("position", "step"), [(0, "gone"), (99, "gone"), (0, None), (2, None)])
def test_a_process_whose_step_is_gone_is_never_put_at_another(position: int, step: str | None) -> None:
    plan = plan_of(a, b)

    with pytest.raises(WorkflowChangedError) as caught:
        plan.locate(at(position, step))

    assert f"stands at step {step!r} (position {position}), which the code no longer has" in str(caught.value)
    assert "'flow' has changed" in str(caught.value)


@pytest.mark.parametrize(("status", "advice"), [("suspended", "resume"), ("failed", "retry")])
def test_what_to_do_about_a_step_that_is_gone_can_be_done(status: str, advice: str) -> None:
    """A process that waits for input cannot be retried, and one that failed takes no input."""
    with pytest.raises(WorkflowChangedError, match=f"Bring the step back under this name and {advice}, or abort"):
        plan_of(a).locate(replace(at(0, "gone"), status=ProcessStatus(status)))


def test_an_outcome_counts_for_the_step_that_ran_wherever_the_code_has_moved_it() -> None:
    walk = Walk(a, b, c).start().succeed()

    walk.change_code(d, a, b, c).move().succeed(x=1)

    assert (walk.process.position, walk.process.step) == (3, "c")
    assert walk.entries[-1].position == 2


def test_a_new_step_before_the_present_one_is_not_run() -> None:
    walk = Walk(a, b).start().succeed()

    walk.change_code(a, c, b).move().succeed()

    assert walk.status == "completed"
    assert "c" not in [name for name, _ in walk.log]


def test_a_suspended_process_takes_its_input_where_the_question_has_moved() -> None:
    walk = Walk(question("which?"), b).start()

    walk.change_code(a, question("which?"), b).move().apply(Submitted("bob", {"x": 1}))

    assert walk.process.step == "b"
    assert walk.process.state == {"x": 1}


def test_groups_may_be_shared_by_several_plans() -> None:
    shared = step_group("g", a >> b)

    assert plan_of(c, shared).leaves[1].position == 1
    assert plan_of(shared, c).leaves[0].position == 0


def test_a_plan_of_one_step_has_a_length_of_one() -> None:
    """B37."""
    assert len(plan_of(StepList([a]))) == 1
