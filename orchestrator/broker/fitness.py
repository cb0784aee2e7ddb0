"""Consume only while this program can do something with what it is given.

A program that does not reach PostgreSQL would hold hundreds of messages that healthy programs could handle. It gives them back,
and takes messages again once it can handle them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from orchestrator.broker.deliveries import Deliveries
from orchestrator.stopping import wait_or_stop

INTERVAL = 0.5
"""Seconds between two looks, which cost nothing."""

LEAST_PATIENCE = 5.0
"""Seconds, at least: a database that is restarted or switched over is away for as long, and a busy machine is late."""


async def consume_while_fit(
    deliveries: Deliveries, unfit_for: Callable[[], float], patience: float, reason: str, stopping: asyncio.Event
) -> None:
    """Suspend the deliveries while the program is unfit, until ``stopping`` is set.

    Args:
        unfit_for: returns for how many seconds it has been unfit; less than ``patience`` is no reason to stop.
    """
    patience = max(patience, LEAST_PATIENCE)
    while not await wait_or_stop(INTERVAL, stopping):
        seconds = unfit_for()
        if seconds > patience:
            deliveries.suspend(f"{reason} for {seconds:.1f} s")
        else:
            deliveries.resume()
