"""Single starts over HTTP of a workflow whose step is on a queue of its own, one after the other, and where their time goes."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from uuid import UUID

import aio_pika
import asyncpg
import httpx
from aio_pika.abc import AbstractIncomingMessage

from orchestrator.broker.topology import Exchanges
from tests.benchmarks.measure import percentile
from tests.benchmarks.systems import BenchmarkError, Corner

PATIENCE = 600.0
"""Seconds until one must be completed."""

PAUSE = 0.2
"""Seconds between one and the next, wherever they are timed. After a pause the memory is cold, on a virtual machine more than
anywhere: on an idle system the same start takes twice as long as right after another one. So only equal pauses
compare: both long, as between people's starts, or none, which leaves only what the load costs."""

_TIMES = """
SELECT EXTRACT(EPOCH FROM p.started_at)::float8, EXTRACT(EPOCH FROM s.started_at)::float8,
       EXTRACT(EPOCH FROM s.finished_at)::float8
  FROM processes AS p JOIN process_steps AS s USING (process_id)
 WHERE p.process_id = $1 AND s.kind = 'step' AND s.status = 'success'
"""

HOPS = ("until stored", "answer", "until claimed", "run, store", "until seen")
"""Of a start over HTTP: before the statement that stores it, from then to the answer, and so on."""


@dataclass(frozen=True, slots=True)
class Single:
    """When what happened to one start over HTTP whose step is on a queue of its own, in seconds of the machine's clock."""

    process_id: UUID
    sent: float
    answered: float
    seen: float

    @property
    def took(self) -> float:
        """Seconds until its sender has the event that it is completed."""
        return self.seen - self.sent


@dataclass(frozen=True, slots=True)
class Singles:
    """Some of them.

    Args:
        hops: the median of each, by name.
    """

    p50: float
    p95: float
    hops: Mapping[str, float]


class Ends:
    """When events have come that such a process is completed. To ask again and again would be coarse, and work for the API."""

    def __init__(self) -> None:
        self._seen: defaultdict[str, asyncio.Future[float]] = defaultdict(asyncio.get_running_loop().create_future)

    async def take(self, message: AbstractIncomingMessage) -> None:
        """Note an event."""
        seen = self._seen[str(message.correlation_id)]
        if not seen.done():
            seen.set_result(time.time())

    async def wait(self, process_id: UUID) -> float:
        """Return when the event of a process has come, which may be before the answer to its start."""
        async with asyncio.timeout(PATIENCE):
            return await self._seen[str(process_id)]


@asynccontextmanager
async def ends_of(corner: Corner) -> AsyncIterator[Ends]:
    """Provide what takes events, over a connection of its own."""
    async with await aio_pika.connect(corner.amqp_url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(exclusive=True, auto_delete=True)
        await queue.bind(Exchanges.EVENTS.value, "process.bench_elsewhere.completed")
        ends = Ends()
        await queue.consume(ends.take, no_ack=True)
        yield ends


async def start_one(http: httpx.AsyncClient, ends: Ends) -> Single:
    """Start a process whose step is on a queue of its own, and wait until it is completed."""
    sent = time.time()
    answer = await http.post("/processes/bench_elsewhere", json=[])
    answer.raise_for_status()
    answered = time.time()
    process_id = UUID(answer.json()["id"])
    return Single(process_id, sent, answered, await ends.wait(process_id))


async def start_again_and_again(
    http: httpx.AsyncClient, ends: Ends, pause: float, seconds: float | None = None
) -> list[Single]:
    """Start one after the other, for so many seconds or until this is cancelled; return all that were completed.

    Args:
        pause: seconds between one and the next.
    """
    found: list[Single] = []
    with suppress(asyncio.CancelledError, TimeoutError):
        async with asyncio.timeout(seconds):
            while True:
                found.append(await start_one(http, ends))
                await asyncio.sleep(pause)
    if not found:
        raise BenchmarkError("no single start was completed meanwhile: take more starts")
    return found


async def summarize(corner: Corner, singles: Sequence[Single]) -> Singles:
    """Return what single starts took, and where: from their rows."""
    hops: dict[str, list[float]] = {name: [] for name in HOPS}
    connection = await asyncpg.connect(corner.dsn)
    try:
        for one in singles:
            ((stored, claimed, done),) = await connection.fetch(_TIMES, one.process_id)
            times = (one.sent, stored, one.answered, claimed, done, one.seen)
            for name, (begin, end) in zip(HOPS, pairwise(times), strict=True):
                hops[name].append(end - begin)
    finally:
        await connection.close()
    took = [one.took for one in singles]
    medians = {name: percentile(values, 0.5) for name, values in hops.items()}
    return Singles(percentile(took, 0.5), percentile(took, 0.95), medians)


def list_hops(found: Singles) -> str:
    """Return the median of each hop, for people."""
    return ", ".join(f"{name} {format_ms(value)}" for name, value in found.hops.items())


def format_ms(seconds: float) -> str:
    """Return milliseconds, for people."""
    return f"{seconds * 1000:.0f} ms"
