"""What travels over RabbitMQ: the public shapes are pinned, wrong ones are refused in words."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import MessageError
from orchestrator.messages import (
    AbortProcess,
    Accepted,
    Advanced,
    LoggedEntry,
    Look,
    Message,
    MessageType,
    NextStep,
    ProcessEvent,
    Refused,
    ResumeProcess,
    StartReply,
    StartWorkflow,
    StepCommand,
    StepEvent,
    decode,
    encode,
)

ID = UUID("6f1e0a52-93d4-4f2c-8e5e-0d8f7a3b1c9d")
AT = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
documents = st.dictionaries(st.text(), json_values, max_size=3)
names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=200)
positions = st.integers(0, 10_000)
moments = st.datetimes(timezones=st.just(UTC))

entries = st.builds(
    LoggedEntry,
    sequence=positions,
    kind=st.sampled_from(["step", "process"]),
    name=names,
    status=names,
    attempt=positions,
    position=st.none() | positions,
)
events = {"workflow": names, "target": names, "status": names, "sequence": positions, "at": moments, "user": names}
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(StepCommand, workflow=names, step=names, position=positions, attempt=positions, announced=positions),
    st.builds(Look),
    st.builds(
        Advanced,
        workflow=names,
        target=names,
        status=names,
        sequence=positions,
        user=names,
        at=moments,
        entries=st.lists(entries, max_size=3),
        next=st.none() | st.builds(NextStep, position=positions, attempt=positions, queue=names, step=names),
    ),
    st.builds(
        StartWorkflow,
        workflow=names,
        inputs=st.lists(documents, max_size=2),
        user=names,
        idempotency_key=st.none() | names,
    ),
    st.builds(
        ResumeProcess,
        inputs=st.lists(documents, max_size=2),
        user=names,
        idempotency_key=st.none() | names,
        seen=st.none() | positions,
    ),
    st.builds(AbortProcess, user=names, reason=st.none() | names, idempotency_key=st.none() | names),
    st.builds(StartReply),
    st.builds(Accepted, status=names),
    st.builds(Refused, error=names, detail=st.text(), reasons=st.lists(documents, max_size=2), form=json_values),
    st.builds(ProcessEvent, **events, subscription_ids=st.lists(st.uuids(), max_size=2)),
    st.builds(StepEvent, **events, step=names, position=positions, attempt=positions),
)


@given(messages)
def test_what_is_encoded_is_decoded_as_it_was(message: Message) -> None:
    assert decode(type(message), encode(message)) == message


@given(messages)
def test_every_message_is_a_json_object(message: Message) -> None:
    assert isinstance(json.loads(encode(message)), dict)


@given(st.binary(max_size=60), st.sampled_from([StepCommand, Advanced, StartWorkflow, AbortProcess, Look]))
def test_whatever_the_bytes_are_the_error_is_a_message_error(body: bytes, model: type[Message]) -> None:
    with pytest.raises(MessageError):
        decode(model, body)


PUBLIC: list[tuple[type[Message], dict[str, Any]]] = [
    (
        StartWorkflow,
        {"workflow": "create_node", "inputs": [{"product": str(ID)}, {"node_name": "ams-1"}], "user": "crm"},
    ),
    (StartWorkflow, {"workflow": "create_node"}),
    (StartWorkflow, {"workflow": "create_node", "idempotency_key": "order-7", "version": 1}),
    (ResumeProcess, {"process_id": str(ID), "inputs": [{"approved": True}], "user": "crm"}),
    (ResumeProcess, {"process_id": str(ID)}),
    (ResumeProcess, {"process_id": str(ID), "inputs": [{"approved": True}], "idempotency_key": "yes-7", "seen": 4}),
    (AbortProcess, {"process_id": str(ID), "user": "crm"}),
    (AbortProcess, {"process_id": str(ID), "reason": "the customer has left"}),
    (AbortProcess, {"process_id": str(ID), "idempotency_key": "no-7"}),
]


@pytest.mark.parametrize(("model", "document"), PUBLIC)
def test_the_documents_of_the_contract_are_understood(model: type[Message], document: dict[str, Any]) -> None:
    """B39."""
    message = decode(model, json.dumps(document).encode())

    assert message.model_dump(mode="json", exclude_unset=True) == document


def test_what_a_start_leaves_out_has_a_meaning() -> None:
    """B39."""
    message = decode(StartWorkflow, b'{"workflow": "create_node"}')

    assert (message.inputs, message.user, message.idempotency_key) == ([], "amqp", None)


@pytest.mark.parametrize(
    ("message", "document"),
    [
        (StartReply(process_id=ID, created=True), {"process_id": str(ID), "created": True}),
        (Accepted(process_id=ID, status="running"), {"process_id": str(ID), "status": "running"}),
        (
            Refused(
                error="WorkflowNotUsableError",
                detail="…in words…",
                reasons=[{"key": "subscription.not_in_sync", "ids": [str(ID)]}],
            ),
            {
                "error": "WorkflowNotUsableError",
                "detail": "…in words…",
                "reasons": [{"key": "subscription.not_in_sync", "ids": [str(ID)]}],
                "form": None,
            },
        ),
    ],
)
def test_the_answers_of_the_contract_are_pinned(message: Message, document: dict[str, Any]) -> None:
    """B39."""
    assert json.loads(encode(message)) == document


def test_the_types_of_the_contract_are_pinned() -> None:
    assert [kind.value for kind in MessageType] == [
        "step.command",
        "step.result",
        "process.look",
        "workflow.start",
        "process.resume",
        "process.abort",
        "workflow.started",
        "workflow.refused",
        "process.resumed",
        "process.aborted",
        "process.get",
        "process.found",
        "subscription.get",
        "subscription.found",
        "workflow.list",
        "workflow.listed",
        "backlog.get",
        "backlog.found",
        "callback.completed",
        "callback.failed",
        "callback.progress",
        "process.event",
        "step.event",
    ]


START: dict[str, Any] = {"workflow": "w"}
COMMAND: dict[str, Any] = {"process_id": str(ID), "workflow": "w", "step": "s", "position": 0, "attempt": 0}


@pytest.mark.parametrize(
    ("model", "body", "text"),
    [
        (StartWorkflow, b"", "the body is not JSON: Invalid JSON: EOF while parsing"),
        (StartWorkflow, b"{", "the body is not JSON: Invalid JSON: EOF while parsing"),
        (StartWorkflow, b"workflow=w", "the body is not JSON: Invalid JSON: expected value"),
        (StartWorkflow, b"\xff\xfe", "the body is not JSON"),
        (StartWorkflow, b"[]", "the body is not a valid StartWorkflow: body: Input should be an object"),
        (StartWorkflow, b"null", "the body is not a valid StartWorkflow: body: Input should be an object"),
        (StartWorkflow, b"{}", "the body is not a valid StartWorkflow: workflow: Field required"),
        (
            StartWorkflow,
            START | {"wrokflow": "w"},
            "the body is not a valid StartWorkflow: wrokflow: Extra inputs are not permitted",
        ),
        (StartWorkflow, START | {"inputs": {}}, "inputs: Input should be a valid array"),
        (StartWorkflow, START | {"inputs": [1]}, "inputs.0: Input should be an object"),
        (StartWorkflow, {"workflow": ""}, "workflow: String should have at least 1 character"),
        (StartWorkflow, {"workflow": "x" * 201}, "workflow: String should have at most 200 characters"),
        (StartWorkflow, {"workflow": 5}, "workflow: Input should be a valid string"),
        (StartWorkflow, START | {"user": ""}, "user: String should have at least 1 character"),
        (StartWorkflow, START | {"idempotency_key": ""}, "idempotency_key: String should have at least 1 character"),
        (StartWorkflow, START | {"idempotency_key": "x" * 256}, "String should have at most 255 characters"),
        (StartWorkflow, START | {"version": 2}, "unknown message version: this engine knows version 1"),
        (StartWorkflow, START | {"version": "1"}, "unknown message version"),
        (StepCommand, COMMAND | {"version": 2}, "unknown message version: this engine knows version 1"),
        (StepCommand, COMMAND | {"version": 2, "new": 1}, "unknown message version"),
        (StepCommand, COMMAND | {"process_id": "no"}, "process_id: Input should be a valid UUID"),
        (StepCommand, COMMAND | {"position": "first"}, "position: Input should be a valid integer"),
        (StepCommand, {}, "process_id: Field required; workflow: Field required; step: Field required"),
        (AbortProcess, {"process_id": None}, "process_id: UUID input should be a string"),
        (ResumeProcess, {"process_id": str(ID), "seen": -1}, "seen: Input should be greater than or equal to 0"),
        (ResumeProcess, {"process_id": str(ID), "seen": 2**31}, "seen: Input should be less than 2147483648"),
    ],
)
def test_what_is_wrong_with_a_body_is_said_in_the_error(
    model: type[Message], body: bytes | dict[str, Any], text: str
) -> None:
    with pytest.raises(MessageError) as caught:
        decode(model, body if isinstance(body, bytes) else json.dumps(body).encode())

    assert text in str(caught.value)


@pytest.mark.parametrize(
    "document",
    [
        {"workflow": "w\0"},
        START | {"user": "crm\0"},
        START | {"user": "\0"},
        START | {"idempotency_key": "a\0b"},
    ],
)
def test_a_null_character_is_refused_before_it_reaches_the_database(document: dict[str, Any]) -> None:
    with pytest.raises(MessageError, match="it has a null character, which the database cannot hold"):
        decode(StartWorkflow, json.dumps(document).encode())


def test_a_null_character_in_a_reason_is_refused_as_well() -> None:
    with pytest.raises(MessageError, match="it has a null character, which the database cannot hold"):
        decode(AbortProcess, json.dumps({"process_id": str(ID), "reason": "a\0"}).encode())


@pytest.mark.parametrize("text", ["line\nbreak", "trailing\n", "ünï", " "])
def test_any_other_text_is_accepted(text: str) -> None:
    assert decode(StartWorkflow, json.dumps({"workflow": "w", "user": text}).encode()).user == text


def test_an_error_does_not_repeat_the_body() -> None:
    body = json.dumps({"workflow": ["hunter2"], "inputs": "hunter2", "user": {"a": "hunter2"}}).encode()

    with pytest.raises(MessageError) as caught:
        decode(StartWorkflow, body)

    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_an_error_stays_short_whatever_the_sender_has_misspelt() -> None:
    body = json.dumps(START | {f"{number}{'x' * 10_000}": 1 for number in range(100)}).encode()

    with pytest.raises(MessageError) as caught:
        decode(StartWorkflow, body)

    assert len(str(caught.value)) < 1000


def test_messages_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Look(process_id=ID).process_id = ID  # type: ignore[misc]
