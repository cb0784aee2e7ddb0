"""When a program subscribes to its queues again: not because a cluster cannot say who reads them."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from orchestrator.broker import subscription_watch
from orchestrator.broker.connection import QueueDepth
from orchestrator.broker.subscription_watch import watch_subscriptions


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
    monkeypatch.setattr(subscription_watch, "INTERVAL", 0.001)
    asked = 0

    async def ask(_: str) -> QueueDepth | None:
        nonlocal asked
        asked += 1
        return depths[asked - 1]

    await watch_subscriptions(lambda: ["q"], asyncio.Event(), ask, Counter(), lambda _: True)
    assert asked == rounds
