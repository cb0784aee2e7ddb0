"""B41: the names that operators read and other services write to. They change only with a version."""

from __future__ import annotations

import pytest

from orchestrator.broker.topology import (
    DELIVERY_LIMIT,
    EXCHANGES,
    RESULT_KEY,
    Exchanges,
    QueueType,
    Topology,
    step_queue,
)


def test_the_exchanges_are_pinned() -> None:
    assert [(exchange.name.value, exchange.type) for exchange in EXCHANGES] == [
        ("orchestrator.commands", "topic"),
        ("orchestrator.steps", "direct"),
        ("orchestrator.results", "direct"),
        ("orchestrator.callbacks", "topic"),
        ("orchestrator.events", "topic"),
        ("orchestrator.dead", "fanout"),
    ]


def test_the_names_of_queues_are_plain_texts() -> None:
    """An error text or log line that quotes one has the name and nothing of Python."""
    assert {type(queue.name) for queue in Topology().queues} == {str}


def test_the_queues_and_their_bindings_are_pinned() -> None:
    assert [(q.name, q.exchange.value, q.keys, q.reader) for q in Topology().queues] == [
        (
            "orchestrator.commands",
            "orchestrator.commands",
            ("workflow.start",),
            "coordinator",
        ),
        (
            "orchestrator.control",
            "orchestrator.commands",
            ("process.resume", "process.abort", "process.get", "subscription.get", "workflow.list", "backlog.get"),
            "coordinator",
        ),
        ("orchestrator.results", "orchestrator.results", ("result",), "coordinator"),
        ("orchestrator.results.tasks", "orchestrator.results", ("result.tasks",), "coordinator"),
        (
            "orchestrator.callbacks",
            "orchestrator.callbacks",
            ("callback.completed", "callback.failed", "callback.progress"),
            "coordinator",
        ),
        ("orchestrator.letters", "orchestrator.dead", ("",), "coordinator"),
        ("orchestrator.dead", "orchestrator.dead", (), "operators"),
        ("orchestrator.steps.default", "orchestrator.steps", ("default",), "consumers"),
        ("orchestrator.steps.tasks", "orchestrator.steps", ("tasks",), "consumers"),
    ]
    assert RESULT_KEY == "result"


def test_external_systems_write_to_one_exchange_only() -> None:
    """B40."""
    assert [exchange.name for exchange in EXCHANGES if "external" in exchange.writers] == [Exchanges.CALLBACKS]


def test_authors_step_queues_join_the_two_standard_ones() -> None:
    topology = Topology.of("quorum", ["ims", "default"])

    steps = [queue for queue in topology.queues if queue.exchange is Exchanges.STEPS]
    assert [(queue.name, queue.keys) for queue in steps] == [
        ("orchestrator.steps.default", ("default",)),
        ("orchestrator.steps.ims", ("ims",)),
        ("orchestrator.steps.tasks", ("tasks",)),
    ]
    assert step_queue("ims") == "orchestrator.steps.ims"


def test_messages_that_exist_nowhere_else_are_never_dropped() -> None:
    precious = {queue.name: queue.arguments("quorum") for queue in Topology().queues if queue.precious}

    assert set(precious) == {"orchestrator.commands", "orchestrator.control", "orchestrator.callbacks"}
    for arguments in precious.values():
        assert arguments == {
            "x-queue-type": "quorum",
            "x-dead-letter-exchange": "orchestrator.dead",
            "x-delivery-limit": DELIVERY_LIMIT,
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        }


def test_a_classic_queue_has_no_arguments_that_only_quorum_queues_know() -> None:
    commands = Topology().queues[0]

    assert commands.arguments("classic") == {
        "x-queue-type": "classic",
        "x-dead-letter-exchange": "orchestrator.dead",
    }


@pytest.mark.parametrize("queue_type", ["quorum", "classic"])
def test_what_can_be_made_again_from_the_database_needs_no_dead_letters(queue_type: QueueType) -> None:
    for queue in Topology().queues:
        if not queue.precious and queue.name not in {"orchestrator.letters", "orchestrator.dead"}:
            assert queue.arguments(queue_type) == {"x-queue-type": queue_type}


@pytest.mark.parametrize("name", ["orchestrator.letters", "orchestrator.dead"])
def test_a_dead_letter_may_come_back_as_often_as_it_is_looked_at_or_cannot_be_stored(name: str) -> None:
    """RabbitMQ 4 drops a message that has come back twenty times, unless the queue says otherwise."""
    dead = next(queue for queue in Topology().queues if queue.name == name)
    assert dead.arguments("quorum") == {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000}
    assert dead.arguments("classic") == {"x-queue-type": "classic"}
