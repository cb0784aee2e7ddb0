"""B41: what is published after a commit: the next command, and events whose keys and fields are a contract."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from orchestrator.broker.outgoing import complete, result_to_be, step_result
from orchestrator.engine.events import Aborted, CallbackCompleted, Patched, StepSucceeded
from orchestrator.messages import Advanced, LoggedEntry, NextStep, StepEvent, decode, encode
from orchestrator.services.results import (
    FIRST_LOOK,
    build_event,
    compute_due_in,
    describe_decision,
    event_key,
    make_stamp,
    read_decision,
)
from orchestrator.workflow import done, init
from tests.unit.walk import PROCESS_ID, Walk, external, patient, question, work

AT = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)
a, b = work("a"), work("b", queue="ims")


def published(walk: Walk) -> list[tuple[str, dict[str, Any]]]:
    """The events of the last decision, as they arrive at whoever listens."""
    message = decode(Advanced, encode(describe_decision(walk.plan, walk.decision, AT)))
    return [(event_key(message, one), json.loads(encode(build_event(message, one)))) for one in message.entries]


def test_the_message_about_a_decision_says_what_to_publish() -> None:
    walk = Walk(a, b).start().succeed(vlan=142)

    message = describe_decision(walk.plan, walk.decision, AT)

    assert message == Advanced(
        process_id=PROCESS_ID,
        workflow="flow",
        target="SYSTEM",
        is_task=False,
        status="running",
        sequence=3,
        user="ann",
        at=AT,
        entries=[LoggedEntry(sequence=3, kind="step", name="a", status="success", attempt=1, author="ann", position=0)],
        next=NextStep(position=1, attempt=1, queue="ims", step="b"),
        plan=walk.plan.fingerprint,
    )


@pytest.mark.parametrize("announced", [0, 12])
def test_a_result_that_is_built_before_it_is_stored_says_the_same_as_the_message_about_the_decision(
    announced: int,
) -> None:
    for walk in (Walk(a, b).start(), Walk(a, b).start().succeed(vlan=142), Walk(a).start().fail()):
        fields = read_decision(walk.plan, walk.decision)
        message = complete(result_to_be(fields, PROCESS_ID, "flow", "a", "ims"), AT, announced)
        described = describe_decision(walk.plan, walk.decision, AT, announced)
        assert decode(Advanced, message.body) == described
        known = step_result(described, "a", "ims")
        assert replace(message, body=known.body, headers=known.headers) == known
        assert message.headers.keys() == known.headers.keys()


def test_a_process_that_rests_has_no_next_command() -> None:
    walk = Walk(a).start().fail()

    assert describe_decision(walk.plan, walk.decision, AT).next is None


def test_every_entry_of_the_log_is_one_event_in_order() -> None:
    walk = Walk(init, a, done).start().succeed()

    assert [(key, event["sequence"]) for key, event in published(walk)] == [
        ("step.flow.success", 4),
        ("step.flow.complete", 5),
        ("process.flow.completed", 6),
    ]


def test_the_fields_of_a_process_event_are_those_of_the_contract() -> None:
    walk = Walk(a).start(secret="in the state")

    key, event = published(walk)[0]

    assert key == "process.flow.created"
    assert event == {
        "process_id": str(PROCESS_ID),
        "workflow": "flow",
        "target": "SYSTEM",
        "is_task": False,
        "status": "created",
        "sequence": 1,
        "at": "2024-05-01T12:00:00Z",
        "user": "ann",
        "subscription_ids": [],
    }


def test_the_fields_of_a_step_event_are_those_of_the_contract() -> None:
    walk = Walk(a, b).start().succeed().fail()

    key, event = published(walk)[0]

    assert key == "step.flow.failed"
    assert event == {
        "process_id": str(PROCESS_ID),
        "workflow": "flow",
        "target": "SYSTEM",
        "is_task": False,
        "status": "failed",
        "sequence": 4,
        "at": "2024-05-01T12:00:00Z",
        "user": "ann",
        "subscription_ids": [],
        "step": "b",
        "position": 1,
        "attempt": 2,
    }


def test_events_carry_neither_state_nor_error_text() -> None:
    walk = Walk(a, b).start(password="hunter2").succeed(token="hunter3").fail()

    message = describe_decision(walk.plan, walk.decision, AT)

    text = message.model_dump_json() + json.dumps(published(walk))
    assert "hunter" not in text
    assert "the node does not answer" not in text


@pytest.mark.parametrize(
    ("make", "keys"),
    [
        (lambda: Walk(question("q")).start(), ["process.flow.created", "step.flow.suspend", "process.flow.suspended"]),
        (
            lambda: Walk(external("job")).start().succeed(),
            ["step.flow.success", "step.flow.awaiting_callback", "process.flow.awaiting_callback"],
        ),
        (lambda: Walk(patient("p")).start().fail(retry_in=1), ["step.flow.waiting", "process.flow.waiting"]),
    ],
)
def test_the_routing_keys_name_workflow_and_status(make: Any, keys: list[str]) -> None:
    assert [key for key, _ in published(make())] == keys


def test_an_abort_is_published_with_its_author() -> None:
    walk = Walk(a).start()
    walk.apply(Aborted("bob", "the customer has left"))

    assert [(key, event["user"]) for key, event in published(walk)] == [
        ("step.flow.abort", "bob"),
        ("process.flow.aborted", "bob"),
    ]


def test_an_event_names_who_did_it_and_not_who_acts_for_the_process() -> None:
    """B1: a patch is its author's, whoever has started the process."""
    walk = Walk(a).start().fail()
    walk.apply(Patched("bob", "typing error", {"x": 1}))

    assert walk.process.actor == "ann"
    assert [(key, event["user"]) for key, event in published(walk)] == [("process.flow.failed", "bob")]


def test_step_events_keep_their_own_type() -> None:
    walk = Walk(a).start()
    walk.claim().apply(StepSucceeded(1, {}))

    message = describe_decision(walk.plan, walk.decision, AT)
    kinds = [type(build_event(message, one)) for one in message.entries]

    assert kinds[0] is StepEvent
    assert kinds[1] is not StepEvent


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: Walk(a).start(), 5.0),
        (lambda: Walk(patient("p")).start().fail(retry_in=7.5), 7.5),
        (lambda: Walk(patient("p")).start().fail(retry_in=0.0), 0.0),
        (lambda: Walk(external("job")).start().succeed(), FIRST_LOOK),
        (lambda: Walk(a).start().fail(), None),
        (lambda: Walk(question("q")).start(), None),
        (lambda: Walk(a).start().succeed(), None),
    ],
)
def test_a_coordinator_looks_again_at_whatever_may_get_lost(make: Any, expected: float | None) -> None:
    assert compute_due_in(make().decision, 5.0) == expected


def test_a_process_that_has_its_answer_is_due_like_any_that_runs() -> None:
    walk = Walk(external("job")).start().succeed()
    walk.apply(CallbackCompleted(1, {}))

    assert compute_due_in(walk.decision, 5.0) == 5.0


def test_an_event_names_the_first_thousand_subscriptions_of_a_state() -> None:
    walk = Walk(a).start().succeed(nodes=[{"subscription_id": str(UUID(int=number))} for number in range(30_000)])

    named = published(walk)[0][1]["subscription_ids"]

    assert named == [str(UUID(int=number)) for number in range(1000)]


def test_each_token_is_fresh_and_of_so_many_characters_that_nobody_guesses_it() -> None:
    tokens = {make_stamp().make_token() for _ in range(100)}
    assert len(tokens) == 100
    assert all(len(one) >= 43 for one in tokens)
