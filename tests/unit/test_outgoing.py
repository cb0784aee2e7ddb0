"""The bodies that are written without a model are those that the models are encoded as."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.broker.outgoing import event, step_command
from orchestrator.messages import Advanced, LoggedEntry, MessageType, NextStep, StepCommand, decode, encode
from orchestrator.services.results import build_event

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
counts = st.integers(0, 2**31 - 1)
times = st.datetimes(min_value=datetime(2000, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - the zone is added
entries = st.builds(
    LoggedEntry,
    sequence=counts,
    kind=st.sampled_from(["step", "process"]),
    name=names,
    status=names,
    attempt=counts,
    author=names,
    position=st.none() | counts,
    at=st.none() | times,
)
messages = st.builds(
    Advanced,
    process_id=st.uuids(),
    workflow=names,
    target=names,
    is_task=st.booleans(),
    status=names,
    sequence=counts,
    user=names,
    subscription_ids=st.lists(st.uuids(), max_size=3),
    at=times,
    announced=counts,
    entries=st.just([]),
    plan=st.none() | names,
)
commands = st.builds(NextStep, position=counts, attempt=counts, queue=names, step=names, lost=counts)


@given(message=messages, entry=entries)
def test_an_event_is_what_its_model_is_encoded_as(message: Advanced, entry: LoggedEntry) -> None:
    built = event("key", message, entry)
    assert built.body == encode(build_event(message, entry))
    assert built.type == (MessageType.STEP_EVENT if entry.kind == "step" else MessageType.PROCESS_EVENT)
    assert built.optional


@given(message=messages, following=commands, announced=counts, unread=st.booleans())
def test_a_step_command_is_what_its_model_is_encoded_as(
    message: Advanced, following: NextStep, announced: int, unread: bool
) -> None:
    built = step_command(message, following, announced, unread=unread)
    command = StepCommand(
        process_id=message.process_id,
        workflow=message.workflow,
        step=following.step,
        position=following.position,
        attempt=following.attempt,
        announced=announced,
        lost=following.lost,
        plan=message.plan,
        unread=unread,
    )
    assert built.body == encode(command)
    assert decode(StepCommand, built.body) == command


def test_a_process_is_one_trace() -> None:
    process_id = UUID(int=7)
    message = Advanced(
        process_id=process_id,
        workflow="w",
        target="SYSTEM",
        is_task=False,
        status="running",
        sequence=1,
        user="ana",
        at=datetime(2026, 1, 1, tzinfo=UTC),
        entries=[],
    )
    command = step_command(message, NextStep(position=0, attempt=0, queue="default", step="Work"), 0)
    assert command.correlation_id == str(process_id)
    assert command.headers["traceparent"].split("-")[1] == process_id.hex
    assert {name: command.headers[name] for name in ("workflow", "step", "since")} == {
        "workflow": "w",
        "step": "Work",
        "since": "2026-01-01T00:00:00+00:00",
    }
