"""Notice that the broker no longer serves a consumer although the connection lives."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection

import structlog

from orchestrator.broker.connection import QueueDepth

logger = structlog.get_logger(__name__)

INTERVAL = 15.0
"""Seconds between two checks whether the broker still has this program as a consumer of its queues."""


async def watch_subscriptions(
    queues: Callable[[], Collection[str]],
    cancelled: asyncio.Event,
    ask: Callable[[str], Awaitable[QueueDepth | None]],
    received: Counter[str],
    takes_more: Callable[[str], bool],
) -> None:
    """Wait until the broker no longer serves this consumer: a queue is gone, has no readers, or delivers nothing.

    When a quorum queue is deleted and declared again at once, the broker silently moves the subscription to the new
    queue and then delivers nothing.

    Args:
        queues: returns the consumed queues.
        cancelled: set when the broker cancels the consumer.
        ask: returns the depth of a queue.
        received: the number of messages received from each queue, which the caller updates.
        takes_more: returns whether the program would accept a further message from a queue.
    """
    before: Counter[str] = Counter()
    while not cancelled.is_set():
        try:
            async with asyncio.timeout(INTERVAL):
                await cancelled.wait()
        except TimeoutError:
            for queue in queues():
                depth = await ask(queue)
                # A cluster that cannot reach the queue's leader reports neither messages nor consumers, too. Subscribing again
                # would then wait for that leader, whereas the subscription moves to the next leader by itself.
                if depth is None or (depth.ready and depth.consumers == 0):
                    logger.warning("the broker has lost our subscription", queue=queue)
                    return
                if depth.ready and received[queue] == before[queue] and takes_more(queue):
                    logger.warning(
                        "the broker delivers nothing although messages are ready", queue=queue, ready=depth.ready
                    )
                    return
            before = received.copy()
