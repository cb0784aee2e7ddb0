"""A step list used twice in one workflow: the second time under names of its own."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.engine.plan import Plan
from orchestrator.errors import DefinitionError
from orchestrator.workflow import StepList, again, begin, conditional, done, init, leaves, step_group, workflow
from tests.unit.walk import Walk, external, question, work

a, b = work("a"), work("b")


def never() -> bool:
    return False


def names(steps: StepList) -> list[str]:
    return [leaf.name for leaf in leaves(steps)]


def test_steps_of_all_kinds_get_names_of_their_own() -> None:
    steps = begin >> a >> step_group("group", b >> question("ask")) >> external("job")

    assert names(again(steps, "R7.1")) == [f"{name} (R7.1)" for name in names(steps)]
    assert [item.name for item in again(steps, "R7.1")] == ["a (R7.1)", "group (R7.1)", "job (R7.1)"]
    assert again(a, "twice").function is a.function


def test_a_workflow_may_have_a_list_twice_and_walks_through_it_twice() -> None:
    steps = begin >> a >> conditional(never)(b)

    @workflow("Twice")
    def twice() -> StepList:
        return init >> steps >> again(steps, "other side") >> done

    walk = Walk(plan=Plan.of(twice)).start().succeed().succeed()

    assert [entry for entry in walk.log if entry[0] not in {"created", "running", "completed"}] == [
        ("Start", "success"),
        ("a", "success"),
        ("b", "skipped"),
        ("a (other side)", "success"),
        ("b (other side)", "skipped"),
        ("Done", "complete"),
    ]


def test_a_callback_step_is_repeated_whole_and_retried_from_its_own_action() -> None:
    job = external("job")
    plan = Walk(job, again(job, "2")).plan

    assert [leaf.restart for leaf in plan.leaves] == [0, 0, 0, 3, 3, 3]
    assert plan.outline[4]["retry_from"] == "job: start (2)"


def test_a_list_without_and_with_the_repetition_has_another_plan() -> None:
    assert Walk(a, again(b, "x")).plan.fingerprint != Walk(a, b).plan.fingerprint


@pytest.mark.parametrize(
    ("steps", "what", "words"),
    [
        (a, " ", "a text that tells the steps"),
        (a, 7, "a text that tells the steps"),
        (init >> a, "2", "'Start', which a workflow has once"),
        ("a", "2", "takes steps and step lists"),
        (a, "x" * 200, "at most 200 bytes"),
    ],
)
def test_what_cannot_be_repeated_is_refused(steps: Any, what: Any, words: str) -> None:
    with pytest.raises(DefinitionError, match=words):
        again(steps, what)
