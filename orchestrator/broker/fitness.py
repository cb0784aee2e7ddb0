"""Consume only while this program can handle messages.

A program that cannot reach PostgreSQL would hold hundreds of messages that healthy programs could handle. So it returns them,
and consumes again once it can handle them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from orchestrator.broker.deliveries import Deliveries
from orchestrator.stopping import wait_or_stop

INTERVAL = 0.5
"""Seconds between two checks, which cost nothing."""

LEAST_PATIENCE = 5.0
"""The least patience in seconds: a restart or switch-over of the database takes as long, and a busy machine is late."""


async def consume_while_fit(
    deliveries: Deliveries, unfit_for: Callable[[], float], patience: float, reason: str, stopping: asyncio.Event
) -> None:
    """Suspend the deliveries while the program is unfit, until ``stopping`` is set.

    Args:
        unfit_for: returns how many seconds the program has been unfit; up to ``patience`` it goes on.
    """
    patience = max(patience, LEAST_PATIENCE)
    while not await wait_or_stop(INTERVAL, stopping):
        seconds = unfit_for()
        if seconds > patience:
            deliveries.suspend(f"{reason} for {seconds:.1f} s")
        else:
            deliveries.resume()
