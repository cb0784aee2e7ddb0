"""When a program subscribes to its queues again: not because a cluster cannot say who reads them."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.broker import deliveries as broker_deliveries
from orchestrator.broker.connection import BrokerAddress, QueueDepth
from orchestrator.broker.deliveries import Deliveries
from orchestrator.broker.publisher import Publisher
from orchestrator.broker.topology import Topology


async def handle(_: object) -> None:
    """Take a message."""


def deliveries() -> Deliveries:
    address = BrokerAddress("amqp://nowhere", "test", 1)
    return Deliveries(
        address,
        Topology.of("quorum"),
        {"q": handle},
        prefetch=10,
        max_bytes=1000,
        explain_transient=lambda _: None,
        publisher=Publisher(address, Topology.of("quorum"), 1),
    )


@pytest.mark.parametrize(
    ("depths", "rounds"),
    [
        ([None], 1),
        ([QueueDepth("q", 5, 0)], 1),
        ([QueueDepth("q", 5, 1)], 1),
        ([QueueDepth("q", 0, 1), QueueDepth("q", 0, 1), None], 3),
        # The queue's leader is frozen: the other nodes say that it is empty and has no readers.
        ([QueueDepth("q", 0, 0), QueueDepth("q", 0, 0), QueueDepth("q", 0, 1), None], 4),
    ],
    ids=["deleted", "no readers", "nothing comes", "in order", "the leader is frozen"],
)
async def test_a_subscription_is_made_anew_when_messages_wait_that_do_not_come(
    depths: list[QueueDepth | None], rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_deliveries, "WATCHDOG_INTERVAL", 0.001)
    asked = 0

    async def ask(_: str) -> QueueDepth | None:
        nonlocal asked
        asked += 1
        return depths[asked - 1]

    await deliveries()._watch(asyncio.Event(), ask)
    assert asked == rounds
