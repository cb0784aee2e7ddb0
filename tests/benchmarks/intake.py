"""What thousands of starts at once cost the processes under way, and how long commands about these wait meanwhile.

    eval "$(scripts/services env)"
    .venv/bin/python -m tests.benchmarks.intake

One coordinator and one consumer. Processes of so many steps are started that none ends meanwhile, and their steps are counted:
first alone, then while thousands of starts come in. Meanwhile processes are aborted by message, one after the other, and at the
end of the flood one more start is sent. With ``--processes 0`` there are only the starts.

Starts over HTTP of a workflow whose step is on a queue of its own are timed one after the other, always with the same pauses: on
the idle system, beside the running processes, and during the flood. Where their time goes is told from the rows, hop by hop; it
ends with the event that such a process is completed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from uuid import uuid4

import aio_pika
import asyncpg
import httpx
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

from orchestrator.messages import MessageType
from orchestrator.workflow import DEFAULT_QUEUE
from tests.benchmarks.client import client_of
from tests.benchmarks.flood import COMMANDS, flood_of
from tests.benchmarks.measure import peak_memory, percentile
from tests.benchmarks.options import count, count_or_none, make_parser, run_benchmark
from tests.benchmarks.shares import purge
from tests.benchmarks.singles import PAUSE, Singles, ends_of, format_ms, list_hops, start_again_and_again, summarize
from tests.benchmarks.streams import api_program
from tests.benchmarks.systems import (
    BenchmarkError,
    Corner,
    Programs,
    clear,
    engine_system,
    execute,
    fetch_int,
    own_corner,
)
from tests.benchmarks.workload import ALL, ELSEWHERE
from tests.servers import Servers

IDLE = 6.0
"""Seconds for which starts on another queue are timed while nothing else is done."""

ALONE = 10.0
"""Seconds for which the running processes are counted alone, and single starts beside them are timed."""

FLOOD = "bench_noop"
"""The workflow that is started thousands of times."""

TO_ABORT = "bench_retried"
"""The workflow whose processes are aborted: they wait for an hour, and none ends before its turn."""

PATIENCE = 600.0
"""Seconds for one answer, and in which a number of processes must grow."""

_STEPS = """
SELECT sum(position)::int, count(*) FILTER (WHERE status <> 'completed')::int FROM processes WHERE workflow = 'bench_long'
"""
_LETTERS = "SELECT count(*) FROM dead_letters"
_STORED = "SELECT count(*) FROM processes WHERE workflow = $1"


@dataclass(frozen=True, slots=True)
class Running:
    """What was seen of processes that were running: steps a second alone and during the flood, and single starts beside them."""

    alone: float
    during: float
    beside: Singles


@dataclass(frozen=True, slots=True)
class Figures:
    """What one run has shown; rates in steps or starts a second, times in seconds.

    Args:
        idle, beside: single starts on another queue, on the idle system, and beside all starts and whatever else is running.
        running: of the running processes, if there are any.
        seconds: until all starts were stored.
        refused: starts that became dead letters.
    """

    aborts: Sequence[float]
    intake: float
    seconds: float
    refused: int
    late: float
    memory: Mapping[str, float]
    silence: float
    again: int
    idle: Singles
    beside: Singles
    running: Running | None

    @property
    def ratio(self) -> float:
        """How many times longer a single start on another queue takes than on the idle system, by the medians."""
        return self.beside.p50 / self.idle.p50

    def __str__(self) -> str:
        rows = [("idle", self.idle), ("beside starts", self.beside)]
        pace = alone = ""
        if (running := self.running) is not None:
            rows.insert(1, ("beside running processes", running.beside))
            pace = (
                f"steps of running processes: {running.alone:.0f}/s alone, {running.during:.0f}/s during the intake"
                f" ({running.during / running.alone:.0%}); "
            )
            alone = f", {running.beside.p50 / self.idle.p50:.1f} beside the running processes alone"
        return (
            f"{pace}abort by message p50 {percentile(self.aborts, 0.5) * 1000:.0f} ms"
            f" max {max(self.aborts) * 1000:.0f} ms ({len(self.aborts)}); starts {self.intake:.0f}/s in {self.seconds:.0f} s,"
            f" {self.refused} refused;"
            f" a late start is answered after {self.late:.1f} s; peak memory "
            + ", ".join(f"{name} {size:.0f} MiB" for name, size in self.memory.items())
            + f"; longest silence of the consumer {self.silence:.1f} s; {self.again} commands published again;"
            f" a start over HTTP whose step is on another queue takes {self.ratio:.1f} times what it does on the idle system"
            f" (p50){alone}"
            + "".join(
                f"\n  {name}: p50 {format_ms(one.p50)} p95 {format_ms(one.p95)}: {list_hops(one)}" for name, one in rows
            )
        )


class Sender:
    """Sends commands and waits for the replies."""

    def __init__(self, channel: AbstractChannel, replies: str) -> None:
        self._channel = channel
        self._replies = replies
        self._waiting: dict[str, asyncio.Future[AbstractIncomingMessage]] = {}

    async def ask(self, key: str, body: object, patience: float | None = PATIENCE) -> float:
        """Send a command; return after how many seconds the reply has come.

        Args:
            patience: seconds; ``None`` where somebody else ends the waiting.
        """
        number = uuid4().hex
        answered = self._waiting[number] = asyncio.get_running_loop().create_future()
        began = time.perf_counter()
        exchange = await self._channel.get_exchange(COMMANDS, ensure=False)
        message = aio_pika.Message(json.dumps(body).encode(), correlation_id=number, reply_to=self._replies)
        await exchange.publish(message, key)
        async with asyncio.timeout(patience):
            reply = await answered
        if reply.type == MessageType.REFUSED:
            raise BenchmarkError(f"{key} was refused: {reply.body.decode()}")
        return time.perf_counter() - began

    async def take(self, message: AbstractIncomingMessage) -> None:
        """Handle a reply."""
        waiting = self._waiting.pop(message.correlation_id or "", None)
        if waiting is not None and not waiting.done():
            waiting.set_result(message)


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
    """Count steps of running processes alone, and again while starts come in."""
    system = engine_system(options.program)
    system = replace(system, consumer=(*system.consumer, "--queue", DEFAULT_QUEUE, "--queue", ELSEWHERE))
    await clear(corner, system)
    await execute(corner.dsn, "TRUNCATE dead_letters")
    async with (
        Programs(system, corner) as programs,
        api_program(corner) as (_, port),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/api", timeout=PATIENCE) as http,
        client_of(programs, corner.amqp_url) as client,
        flood_of(corner.amqp_url) as flood,
        sender_of(corner) as sender,
        ends_of(corner) as ends,
    ):
        await client.many(20)
        idle = await start_again_and_again(http, ends, options.pause, IDLE)
        await flood.send(options.aborts, TO_ABORT)
        await _reach(corner, programs, TO_ABORT, options.aborts)
        if options.processes:
            await flood.send(options.processes, "bench_long")
            await _reach(corner, programs, "bench_long", options.processes)
            counting = asyncio.create_task(_watch_steps(corner))
            beside_steps = await start_again_and_again(http, ends, options.pause, ALONE)
            counting.cancel()
            alone = await counting
        stored, began = await _count(corner, options.flood), time.perf_counter()
        sending = asyncio.create_task(flood.send(options.starts, options.flood))
        late = asyncio.create_task(_late(sending, sender))
        aborts = asyncio.create_task(_abort(corner, sender))
        silence = asyncio.create_task(_watch_heartbeats(corner))
        beside = asyncio.create_task(start_again_and_again(http, ends, options.pause))
        steps = asyncio.create_task(_watch_steps(corner)) if options.processes else None
        watching = [silence, beside] if steps is None else [silence, beside, steps]
        try:
            await _reach(corner, programs, options.flood, stored + options.starts, letters=True)
            refused = await fetch_int(corner.dsn, _LETTERS)
            took = time.perf_counter() - began
            for task in watching:
                task.cancel()
            await asyncio.wait(watching)
            memory = {name: peak_memory(pid) for name, pid in programs.pids.items()}
            again = await fetch_int(corner.dsn, "SELECT count(*) FROM processes WHERE published_at IS NOT NULL")
            async with asyncio.timeout(PATIENCE):
                answered = await late
            return Figures(
                await aborts,
                options.starts / took,
                took,
                refused,
                answered,
                memory,
                silence.result(),
                again,
                await summarize(corner, idle),
                await summarize(corner, beside.result()),
                None if steps is None else Running(alone, steps.result(), await summarize(corner, beside_steps)),
            )
        finally:
            tasks = [late, aborts, sending, *watching]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for queue in (*system.queues, f"orchestrator.steps.{ELSEWHERE}"):
                # What is under way is not needed any more, and the next run is not to read it.
                await purge(corner, queue)


async def _late(sending: asyncio.Task[None], sender: Sender) -> float:
    await sending
    # Behind all others: how long that takes is what is measured.
    return await sender.ask("workflow.start", {"workflow": "bench_noop", "user": "benchmark"}, None)


async def _abort(corner: Corner, sender: Sender) -> list[float]:
    connection = await asyncpg.connect(corner.dsn)
    try:
        rows = await connection.fetch("SELECT process_id FROM processes WHERE workflow = $1", TO_ABORT)
    finally:
        await connection.close()
    times = []
    for row in rows:
        times.append(await sender.ask("process.abort", {"process_id": str(row["process_id"]), "user": "benchmark"}))
        await asyncio.sleep(0.1)
    return times


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


async def _watch_steps(corner: Corner) -> float:
    """Return how many steps of the running processes were done in a second, once this is cancelled or all have completed."""
    connection = await asyncpg.connect(corner.dsn)
    try:
        ((before, left),) = await connection.fetch(_STEPS)
        if not left:
            raise BenchmarkError("the running processes have completed before anything was counted: take more of them")
        began = time.perf_counter()
        steps, seconds = 0, 0.0
        with suppress(asyncio.CancelledError):
            while left:
                await asyncio.sleep(0.5)
                ((now, left),) = await connection.fetch(_STEPS)
                steps, seconds = now - before, time.perf_counter() - began
        if not steps:
            raise BenchmarkError("no step of the running processes was done meanwhile: take more starts")
        return steps / seconds
    finally:
        await connection.close()


async def _count(corner: Corner, workflow: str) -> int:
    connection = await asyncpg.connect(corner.dsn)
    try:
        return int(await connection.fetchval(_STORED, workflow))
    finally:
        await connection.close()


async def _reach(corner: Corner, programs: Programs, workflow: str, count: int, *, letters: bool = False) -> None:
    """Wait for so many processes of a workflow, as long as there are more of them from time to time.

    Args:
        letters: whether starts that were refused count, too.
    """
    # One connection for all looks: a new one costs the server as much as some starts.
    connection = await asyncpg.connect(corner.dsn)
    try:

        async def reached() -> int:
            return int(await connection.fetchval(_STORED, workflow)) + (
                await connection.fetchval(_LETTERS) if letters else 0
            )

        before = -1
        while (now := await reached()) < count:
            if now == before:
                raise BenchmarkError(f"{now} of {count} processes of {workflow}, then no more for {PATIENCE:.0f} s")
            before = now
            with suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    while await reached() == before:
                        programs.check()
                        await asyncio.sleep(0.2)
    finally:
        await connection.close()


async def run(servers: Servers, options: argparse.Namespace) -> None:
    """Do what the options say."""
    async with own_corner(servers, options.queue_type) as corner:
        for _ in range(options.reps):
            print(await measure(corner, options), flush=True)


def parser() -> argparse.ArgumentParser:
    """Read the command line."""
    found = make_parser(__doc__)
    found.add_argument("--starts", type=count, default=4000, help="that come at once (default 4,000)")
    found.add_argument(
        "--processes",
        type=count_or_none,
        default=300,
        help="of a thousand steps that are under way (default 300); 0 for starts alone",
    )
    found.add_argument("--flood", choices=ALL, default=FLOOD, help=f"the workflow that is started (default {FLOOD})")
    found.add_argument("--aborts", type=count, default=20, help="processes that are aborted meanwhile (default 20)")
    found.add_argument(
        "--pause",
        type=float,
        default=PAUSE,
        help=f"seconds between single starts, idle and beside load (default {PAUSE})",
    )
    return found


if __name__ == "__main__":
    sys.exit(run_benchmark("intake", parser(), run))
