"""What thousands of starts at once cost the processes under way, and how long commands about these wait meanwhile.

    eval "$(scripts/services env)"
    .venv/bin/python -m tests.benchmarks.intake

One coordinator and one consumer. Processes of ten steps are started and, once all are stored, timed to their completion: first
alone, then while thousands of starts come in. Meanwhile processes are aborted by message, one after the other, and at the end
of the flood one more start is sent.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from uuid import uuid4

import aio_pika
import asyncpg
import httpx
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

from orchestrator.workflow import DEFAULT_QUEUE
from tests.benchmarks.client import client_of
from tests.benchmarks.measure import peak_memory, percentile
from tests.benchmarks.options import count, make_parser, run_benchmark
from tests.benchmarks.streams import api_program
from tests.benchmarks.systems import BenchmarkError, Corner, Programs, clear, engine_system, fetch_int, own_corner
from tests.benchmarks.workload import ELSEWHERE, STEPS
from tests.servers import Servers

COMMANDS = "orchestrator.commands"
SINGLE = 20
"""Starts on another queue, one after the other, while nothing else is done."""

PATIENCE = 600.0
"""Seconds for one answer, and for a number of processes to be reached."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What one run has shown; rates in steps or starts a second, times in seconds."""

    alone: float
    during: float
    aborts: Sequence[float]
    intake: float
    late: float
    memory: Mapping[str, float]
    silence: float
    again: int
    beside: float

    def __str__(self) -> str:
        return (
            f"steps of running processes: {self.alone:.0f}/s alone, {self.during:.0f}/s during the intake"
            f" ({self.during / self.alone:.0%}); abort by message p50 {percentile(self.aborts, 0.5) * 1000:.0f} ms"
            f" max {max(self.aborts) * 1000:.0f} ms ({len(self.aborts)}); starts {self.intake:.0f}/s;"
            f" a late start is answered after {self.late:.1f} s; peak memory "
            + ", ".join(f"{name} {size:.0f} MiB" for name, size in self.memory.items())
            + f"; longest silence of the consumer {self.silence:.1f} s; {self.again} commands published again;"
            f" a start over HTTP whose step is on another queue takes {self.beside:.1f} times what it does alone (p50)"
        )


class Sender:
    """Sends commands and waits for the replies."""

    def __init__(self, channel: AbstractChannel, replies: str) -> None:
        self._channel = channel
        self._replies = replies
        self._waiting: dict[str, asyncio.Future[AbstractIncomingMessage]] = {}

    async def ask(self, key: str, body: object) -> float:
        """Send a command; return after how many seconds the reply has come."""
        number = uuid4().hex
        answered = self._waiting[number] = asyncio.get_running_loop().create_future()
        began = time.perf_counter()
        await self._publish(key, body, correlation_id=number, reply_to=self._replies)
        async with asyncio.timeout(PATIENCE):
            await answered
        return time.perf_counter() - began

    async def flood(self, count: int, workflow: str) -> None:
        """Start processes at once, and wait for none."""
        body = {"workflow": workflow, "user": "benchmark"}
        await asyncio.gather(*(self._publish("workflow.start", body, message_id=uuid4().hex) for _ in range(count)))

    async def take(self, message: AbstractIncomingMessage) -> None:
        """Handle a reply."""
        waiting = self._waiting.pop(message.correlation_id or "", None)
        if waiting is not None:
            waiting.set_result(message)

    async def _publish(self, key: str, body: object, **properties: str) -> None:
        exchange = await self._channel.get_exchange(COMMANDS, ensure=False)
        await exchange.publish(aio_pika.Message(json.dumps(body).encode(), **properties), key)  # type: ignore[arg-type]


@asynccontextmanager
async def sender_of(corner: Corner) -> AsyncIterator[Sender]:
    """Provide a sender with a connection of its own."""
    async with await aio_pika.connect(corner.amqp_url) as connection:
        channel = await connection.channel(publisher_confirms=True)
        replies = await channel.declare_queue(exclusive=True, auto_delete=True)
        sender = Sender(channel, replies.name)
        await replies.consume(sender.take, no_ack=True)
        yield sender


async def measure(corner: Corner, options: argparse.Namespace) -> Figures:
    """Time running processes alone, and again while starts come in."""
    system = engine_system(options.program)
    system = replace(system, consumer=(*system.consumer, "--queue", DEFAULT_QUEUE, "--queue", ELSEWHERE))
    await clear(corner, system)
    async with (
        Programs(system, corner) as programs,
        api_program(corner) as (_, port),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/api", timeout=PATIENCE) as http,
        client_of(programs, corner.amqp_url) as client,
        sender_of(corner) as sender,
    ):
        await client.many(20)
        idle = [await _start_elsewhere(http) for _ in range(SINGLE)]
        alone = await _run(corner, programs, sender, options.processes)
        await sender.flood(options.aborts, "bench_sleeping")
        await _reach(corner, programs, "workflow = 'bench_sleeping'", options.aborts)
        before = await _count(corner, "workflow = 'bench'")
        await sender.flood(options.processes, "bench")
        await _reach(corner, programs, "workflow = 'bench'", before + options.processes)
        stored, began = await _count(corner, "workflow = 'bench_noop'"), time.perf_counter()
        flood = asyncio.create_task(sender.flood(options.starts, "bench_noop"))
        late = asyncio.create_task(_late(flood, sender))
        aborts = asyncio.create_task(_abort(corner, sender))
        silence = asyncio.create_task(_watch_heartbeats(corner))
        beside = asyncio.create_task(_start_again_and_again(http))
        try:
            during = await _finish(corner, programs, options.processes)
            await _reach(corner, programs, "workflow = 'bench_noop'", stored + options.starts)
            took = time.perf_counter() - began
            silence.cancel()
            beside.cancel()
            await asyncio.wait([silence, beside])
            memory = {name: peak_memory(pid) for name, pid in programs.pids.items()}
            again = await _count(corner, "published_at IS NOT NULL")
            return Figures(
                alone,
                during,
                await aborts,
                options.starts / took,
                await late,
                memory,
                silence.result(),
                again,
                percentile(beside.result(), 0.5) / percentile(idle, 0.5),
            )
        finally:
            for task in (late, aborts, flood, silence, beside):
                task.cancel()
            await asyncio.gather(late, aborts, flood, silence, beside, return_exceptions=True)


async def _run(corner: Corner, programs: Programs, sender: Sender, count: int) -> float:
    before = await _count(corner, "workflow = 'bench'")
    await sender.flood(count, "bench")
    await _reach(corner, programs, "workflow = 'bench'", before + count)
    return await _finish(corner, programs, count)


async def _finish(corner: Corner, programs: Programs, count: int) -> float:
    """Wait until the processes of ten steps have completed; return how many of their steps were done in a second."""
    left = await _steps_left(corner, count)
    began = time.perf_counter()
    total = await _count(corner, "workflow = 'bench'")
    await _reach(corner, programs, "workflow = 'bench' AND status = 'completed'", total)
    return left / (time.perf_counter() - began)


async def _steps_left(corner: Corner, count: int) -> int:
    done = await fetch_int(
        corner.dsn,
        "SELECT count(*) FROM process_steps s JOIN processes p USING (process_id)"
        " WHERE p.workflow = 'bench' AND p.status <> 'completed' AND s.kind = 'step' AND s.status = 'success'",
    )
    unfinished = await _count(corner, "workflow = 'bench' AND status <> 'completed'")
    if unfinished < count / 10:
        raise BenchmarkError("the processes had completed before all were stored: take more of them")
    return unfinished * STEPS - done


async def _late(flood: asyncio.Task[None], sender: Sender) -> float:
    await flood
    return await sender.ask("workflow.start", {"workflow": "bench_noop", "user": "benchmark"})


async def _abort(corner: Corner, sender: Sender) -> list[float]:
    connection = await asyncpg.connect(corner.dsn)
    try:
        rows = await connection.fetch("SELECT process_id FROM processes WHERE workflow = 'bench_sleeping'")
    finally:
        await connection.close()
    times = []
    for row in rows:
        times.append(await sender.ask("process.abort", {"process_id": str(row["process_id"]), "user": "benchmark"}))
        await asyncio.sleep(0.1)
    return times


async def _start_elsewhere(http: httpx.AsyncClient) -> float:
    """Start a process whose step is on a queue of its own; return after how many seconds it is completed."""
    began = time.perf_counter()
    answer = await http.post("/processes/bench_elsewhere", json=[])
    answer.raise_for_status()
    async with asyncio.timeout(PATIENCE):
        path = f"/processes/{answer.json()['id']}"
        while (await http.get(path)).json()["last_status"] != "completed":  # noqa: ASYNC110 - another program's doing
            await asyncio.sleep(0.01)
    return time.perf_counter() - began


async def _start_again_and_again(http: httpx.AsyncClient) -> list[float]:
    """Return how long each took, once this is cancelled."""
    times: list[float] = []
    try:
        while True:
            times.append(await _start_elsewhere(http))
            await asyncio.sleep(0.2)
    except asyncio.CancelledError:
        return times or [float("nan")]


async def _watch_heartbeats(corner: Corner) -> float:
    """Return for how many seconds the consumer has been silent at most, once this is cancelled."""
    longest = 0.0
    connection = await asyncpg.connect(corner.dsn)
    try:
        while True:
            silence = await connection.fetchval("SELECT EXTRACT(EPOCH FROM now() - max(seen_at)) FROM consumers")
            longest = max(longest, float(silence))
            await asyncio.sleep(0.2)
    except asyncio.CancelledError:
        return longest
    finally:
        await connection.close()


async def _count(corner: Corner, condition: str) -> int:
    return await fetch_int(corner.dsn, f"SELECT count(*) FROM processes WHERE {condition}")


async def _reach(corner: Corner, programs: Programs, condition: str, count: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while await _count(corner, condition) < count:
            programs.check()
            await asyncio.sleep(0.1)


async def run(servers: Servers, options: argparse.Namespace) -> None:
    """Do what the options say."""
    async with own_corner(servers, options.queue_type) as corner:
        for _ in range(options.reps):
            print(await measure(corner, options), flush=True)


def parser() -> argparse.ArgumentParser:
    """Read the command line."""
    found = make_parser(__doc__)
    found.add_argument("--starts", type=count, default=4000, help="that come at once (default 4,000)")
    found.add_argument("--processes", type=count, default=300, help="of ten steps that are under way (default 300)")
    found.add_argument("--aborts", type=count, default=20, help="processes that are aborted meanwhile (default 20)")
    return found


if __name__ == "__main__":
    sys.exit(run_benchmark("intake", parser(), run))
