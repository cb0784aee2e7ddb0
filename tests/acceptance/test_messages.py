"""What other services may rely on: commands, replies, queues and dead letters, exactly as in the contracts."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast
from urllib.parse import quote, urlsplit
from uuid import UUID, uuid4

from tests.acceptance.client import COMMANDS
from tests.acceptance.conftest import MakeInstallation
from tests.acceptance.installation import Installation
from tests.acceptance.waiting import until
from tests.servers import Servers


def test_a_service_starts_a_workflow_with_a_message_and_gets_its_id(engine: Installation) -> None:
    """B39: the reply's type, body and correlation id."""
    answer = engine.client.ask(
        "workflow.start", {"workflow": "three_steps", "inputs": [{"name": "ams-1"}], "user": "crm"}
    )
    assert answer.type == "workflow.started"
    assert answer.body.keys() == {"process_id", "created"}
    assert answer.body["created"] is True
    process_id = UUID(answer.body["process_id"])
    engine.wait_for(process_id, "completed")
    assert engine.json("show", str(process_id))["started_by"] == "crm"
    assert answer.content_type == "application/json"


def test_a_repeated_message_gives_the_same_process(engine: Installation) -> None:
    """B39: by message_id or by idempotency_key in the body, also many at once; the key in the body wins."""
    number = uuid4().hex
    body = {"workflow": "three_steps", "inputs": [{"name": "once"}]}
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: engine.client.ask("workflow.start", body, message_id=number), range(10)))
    assert {answer.type for answer in answers} == {"workflow.started"}
    assert len({answer.body["process_id"] for answer in answers}) == 1
    assert sorted(answer.body["created"] for answer in answers) == [False] * 9 + [True]
    process_id = UUID(answers[0].body["process_id"])
    engine.wait_for(process_id, "completed")
    again = engine.client.ask("workflow.start", body, message_id=number)
    assert again.body == {"process_id": str(process_id), "created": False}
    assert len(engine.journal(process_id, "first")) == 1

    keyed = body | {"idempotency_key": uuid4().hex}
    first = engine.client.ask("workflow.start", keyed, message_id=uuid4().hex)
    second = engine.client.ask("workflow.start", keyed, message_id=uuid4().hex)
    assert (first.body["created"], second.body["created"]) == (True, False)
    assert first.body["process_id"] == second.body["process_id"]


def test_a_different_request_under_a_used_key_is_a_conflict(engine: Installation) -> None:
    """B39: the first process is named and untouched."""
    number = uuid4().hex
    process_id = engine.start("three_steps", {"name": "one"}, key=number)
    answer = engine.client.ask(
        "workflow.start", {"workflow": "three_steps", "inputs": [{"name": "two"}]}, message_id=number
    )
    assert answer.type == "workflow.refused"
    assert answer.body["error"] == "ConflictError"
    assert str(process_id) in answer.body["detail"]
    engine.wait_for(process_id, "completed")
    assert engine.state(process_id)["name"] == "one"


def test_messages_without_any_key_each_start_a_process(engine: Installation) -> None:
    """B39: as the contract says."""
    body = {"workflow": "one_step"}
    ids = {engine.client.ask("workflow.start", body).body["process_id"] for _ in range(3)}
    assert len(ids) == 3


def test_an_unfinished_form_is_refused_with_the_next_pages_schema(engine: Installation) -> None:
    """B39: FormIncompleteError with `form`, page by page; then it starts."""
    first = engine.client.ask("workflow.start", {"workflow": "two_pages"})
    assert first.type == "workflow.refused"
    assert first.body.keys() == {"error", "detail", "reasons", "form"}
    assert first.body["error"] == "FormIncompleteError"
    assert first.body["form"]["properties"].keys() == {"node"}
    second = engine.client.ask("workflow.start", {"workflow": "two_pages", "inputs": [{"node": "ams-1"}]})
    assert second.body["form"]["properties"]["port"]["title"] == "Port of ams-1"
    wrong = engine.client.ask("workflow.start", {"workflow": "two_pages", "inputs": [{"node": "ams-1"}, {"port": 99}]})
    assert wrong.body["error"] == "InvalidInputError"
    assert wrong.body["form"] is None
    assert wrong.body["reasons"][0]["loc"] == ["port"]
    process_id = engine.finish("two_pages", {"node": "ams-1"}, {"port": 7})
    assert engine.state(process_id) == {"node": "ams-1", "port": 7}


def test_resume_and_abort_answer_with_id_and_status(engine: Installation) -> None:
    """B39, B2: the reply shapes of the other two commands."""
    process_id = engine.start("asks")
    engine.wait_for(process_id, "suspended")
    resumed = engine.resume(process_id, {"choice": "red"}, {"sure": False})
    assert (resumed.type, resumed.body) == ("process.resumed", {"process_id": str(process_id), "status": "running"})
    other = engine.start("asks")
    engine.wait_for(other, "suspended")
    aborted = engine.abort(other)
    assert (aborted.type, aborted.body) == ("process.aborted", {"process_id": str(other), "status": "aborted"})


def test_a_reply_can_go_to_the_brokers_own_reply_queue(engine: Installation) -> None:
    """B39: a sender whose reply queue is gone loses its answer, and nobody else anything."""
    engine.client.send(
        COMMANDS, "workflow.start", {"workflow": "one_step", "idempotency_key": "gone"}, reply_to="amq.gen-not-there"
    )
    until(
        lambda: engine.query("SELECT 1 FROM processes WHERE request_key = 'gone' AND status = 'completed'"),
        "the process runs although its sender is gone",
    )


def test_a_service_asks_for_a_process_and_the_workflows_by_message(engine: Installation) -> None:
    """B39: queries go the way of commands."""
    process_id = engine.start("three_steps", {"name": "ams-1"})
    engine.wait_for(process_id, "completed")
    answer = engine.client.ask("process.get", {"process_id": str(process_id)})
    assert answer.type == "process.found"
    assert (answer.body["status"], answer.body["state"]["name"]) == ("completed", "ams-1")
    assert len(answer.body["steps"]) == answer.body["sequence"]
    listed = engine.client.ask("workflow.list", {})
    assert (listed.type, "three_steps" in [one["name"] for one in listed.body["workflows"]]) == (
        "workflow.listed",
        True,
    )
    unknown = engine.client.ask("subscription.get", {"subscription_id": str(uuid4())})
    assert (unknown.type, unknown.body["error"]) == ("workflow.refused", "NotFoundError")


def test_a_refusal_without_a_reply_queue_is_a_dead_letter(engine: Installation) -> None:
    """B39, B41: nothing is dropped silently."""
    engine.client.send(COMMANDS, "workflow.start", {"workflow": "three_steps", "inputs": [{"name": 5}], "user": "u7"})
    (letter,) = until(
        lambda: [one for one in engine.client.dead_letters() if b'"u7"' in one.raw],
        "the refused start is a dead letter",
    )
    assert "InvalidInputError" in letter.headers["x-reason"]
    assert letter.headers["x-queue"] == "orchestrator.commands"
    assert letter.headers["x-routing-key"] == "workflow.start"


def test_events_tell_of_every_entry_in_order_and_carry_no_state(engine: Installation) -> None:
    """B39 and contracts: keys, fields, `sequence` in order from 1 without gaps, no state."""
    process_id = engine.finish("three_steps", {"name": "a-state-value"})
    log = engine.log(process_id)
    until(lambda: len(engine.client.events_of(process_id)) >= len(log), "all events have come")
    events = engine.client.events_of(process_id)
    assert [event.body["sequence"] for event in events] == list(range(1, len(log) + 1))
    common = {"process_id", "workflow", "target", "is_task", "status", "sequence", "at", "user", "subscription_ids"}
    for event, entry in zip(events, log, strict=True):
        assert event.key == f"{entry.kind}.three_steps.{entry.status}"
        assert event.type == f"{entry.kind}.event"
        assert event.content_type == "application/json"
        assert event.delivery_mode == 2
        assert event.headers["workflow"] == "three_steps"
        assert event.body["status"] == entry.status
        assert event.body["process_id"] == str(process_id) == event.correlation_id
        assert (event.body["target"], event.body["is_task"], event.body["user"]) == ("SYSTEM", False, "tester")
        if entry.kind == "step":
            assert event.body.keys() == common | {"step", "position", "attempt"}
            assert (event.body["step"], event.body["position"]) == (entry.name, entry.position)
        else:
            assert event.body.keys() == common
        assert b"a-state-value" not in event.raw
    assert [event.key for event in events] == [
        "process.three_steps.created",
        "step.three_steps.success",
        "process.three_steps.running",
        "step.three_steps.success",
        "step.three_steps.success",
        "step.three_steps.success",
        "step.three_steps.complete",
        "process.three_steps.completed",
    ]
    assert len({event.message_id for event in events}) == len(events)


def test_every_status_of_a_process_is_an_event(engine: Installation) -> None:
    """Contracts: failed, retried, suspended, waiting, awaiting_callback, aborted."""
    failed = engine.finish("mended", status="failed")
    suspended = engine.start("asks")
    engine.wait_for(suspended, "suspended")
    engine.abort(suspended)
    waiting = engine.start("tried_late")
    until(lambda: engine.status(waiting) == "waiting", "the process waits")
    parked = engine.start("calls_out")
    engine.open_gate(f"order-{parked}")
    engine.wait_for(parked, "awaiting_callback")
    for process_id, key in (
        (failed, "process.mended.failed"),
        (failed, "step.mended.failed"),
        (suspended, "process.asks.suspended"),
        (suspended, "step.asks.suspend"),
        (suspended, "step.asks.abort"),
        (suspended, "process.asks.aborted"),
        (waiting, "step.tried_late.waiting"),
        (waiting, "process.tried_late.waiting"),
        (parked, "step.calls_out.awaiting_callback"),
        (parked, "process.calls_out.awaiting_callback"),
    ):
        until(lambda p=process_id, k=key: k in [e.key for e in engine.client.events_of(p)], f"the event {key}")  # type: ignore[misc]
    for process_id in (failed, waiting, parked):
        engine.abort(process_id)


def test_an_operator_finds_a_named_queue_for_each_purpose(engine: Installation, servers: Servers) -> None:
    """B41: names, durability, types, dead-letter settings and readers, as the management UI shows them."""
    vhost = quote(urlsplit(engine.amqp_url).path[1:], safe="")
    names = {"commands", "control", "results", "results.tasks", "callbacks", "letters", "dead"}
    names |= {"steps.default", "steps.tasks"}

    def listed() -> dict[str, Any]:
        found = cast("list[dict[str, Any]]", servers.call("GET", f"queues/{vhost}"))
        ours = {one["name"]: one for one in found if one["name"].startswith("orchestrator.")}
        # An API program of another test may listen to events, by a queue that is gone with it.
        ours = {name: one for name, one in ours.items() if not name.startswith("orchestrator.events.")}
        # The statistics come every five seconds.
        return ours if all("consumers" in one for one in ours.values()) else {}

    queues = until(listed, "the management API knows all queues")
    assert set(queues) == {f"orchestrator.{name}" for name in names}
    assert all(queue["durable"] and queue["arguments"]["x-queue-type"] == "quorum" for queue in queues.values())
    for name in ("commands", "control", "callbacks"):
        assert queues[f"orchestrator.{name}"]["arguments"]["x-dead-letter-exchange"] == "orchestrator.dead"
    exchanges = cast("list[dict[str, Any]]", servers.call("GET", f"exchanges/{vhost}"))
    types = {one["name"]: one["type"] for one in exchanges if one["name"].startswith("orchestrator.")}
    assert types == {
        "orchestrator.commands": "topic",
        "orchestrator.steps": "direct",
        "orchestrator.results": "direct",
        "orchestrator.callbacks": "topic",
        "orchestrator.events": "topic",
        "orchestrator.dead": "fanout",
    }
    shown = {one["name"]: one for one in engine.json("topology", "show")["queues"]}
    assert set(queues) <= set(shown)
    assert shown["orchestrator.steps.default"]["consumers"] == 1


def test_an_operator_reads_what_a_waiting_command_is_about(installations: MakeInstallation, servers: Servers) -> None:
    """B41: headers, type and correlation id of a step command in its queue; no state in it."""
    engine = installations()
    engine.coordinator().ready()
    process_id = engine.start("three_steps", {"name": "a-state-value"})
    vhost = quote(urlsplit(engine.amqp_url).path[1:], safe="")

    def peek() -> list[dict[str, Any]]:
        return cast(
            "list[dict[str, Any]]",
            servers.call(
                "POST",
                f"queues/{vhost}/orchestrator.steps.default/get",
                {"count": 1, "ackmode": "ack_requeue_true", "encoding": "auto"},
            ),
        )

    (message,) = until(peek, "the command waits in its queue")
    properties = message["properties"]
    assert properties["type"] == "step.command"
    assert properties["correlation_id"] == str(process_id)
    assert properties["delivery_mode"] == 2
    assert properties["content_type"] == "application/json"
    assert properties["headers"]["workflow"] == "three_steps"
    assert properties["headers"]["step"] == "First"
    assert properties["headers"]["traceparent"].startswith(f"00-{process_id.hex}-")
    assert "a-state-value" not in message["payload"]
    engine.consumer().ready()
    engine.wait_for(process_id, "completed")


def test_a_step_queue_that_authors_name_is_made_and_read(installations: MakeInstallation) -> None:
    """B41: `@step(queue="ims")`: its command waits in orchestrator.steps.ims for a consumer of that queue."""
    engine = installations()
    for program in (engine.coordinator(), engine.consumer()):
        program.ready()
    process_id = engine.start("other_queue")
    until(
        lambda: {one["name"]: one for one in engine.json("topology", "show")["queues"]}["orchestrator.steps.ims"][
            "ready"
        ],
        "the command waits in a queue of its own",
    )
    assert engine.status(process_id) == "running"
    engine.consumer("--queue", "ims").ready()
    engine.wait_for(process_id, "completed")
    assert len(engine.journal(process_id, "ims")) == 1
