"""What a thousand open event streams cost one API program, and how late an event reaches them.

    eval "$(scripts/services env)"
    .venv/bin/python -m tests.benchmarks.streams

One coordinator, one consumer, one API program. Processes of one step that does nothing are started at an even pace. Each stream
gets every event. A delay is the time from the statement that has stored an entry until one client, which reads all streams, has
it. One more stream is opened that is never read.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import psutil

from tests.benchmarks.client import client_of
from tests.benchmarks.measure import cpu_seconds, percentile
from tests.benchmarks.systems import BenchmarkError, Corner, Programs, clear, engine_system, fetch_int, own_corner
from tests.servers import NoServersError, Servers

ORCHESTRATOR = str(Path(sys.executable).parent / "orchestrator")
REQUEST = b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n"
STALLED_AFTER = 120.0
"""Seconds after which a run has failed."""

_SERVES = re.compile(r"http://127\.0\.0\.1:(\d+)")
_AT = re.compile(rb'"at":"([^"]+)"')


@dataclass
class Receipts:
    """What has come over all streams."""

    following: int = 0
    delays: list[float] = field(default_factory=list)


class Stream(asyncio.Protocol):
    """One stream."""

    def __init__(self, receipts: Receipts) -> None:
        self._receipts = receipts

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the events."""
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(REQUEST)

    def data_received(self, data: bytes) -> None:
        """Note when an event came; chunks hold whole events."""
        now = time.time()
        if b": following" in data:
            self._receipts.following += 1
        self._receipts.delays.extend(now - datetime.fromisoformat(at.decode()).timestamp() for at in _AT.findall(data))


@asynccontextmanager
async def api_program(corner: Corner) -> AsyncIterator[tuple[psutil.Process, int]]:
    """Run the API; return its process and its port."""
    with tempfile.NamedTemporaryFile("w+") as log:
        process = subprocess.Popen(  # noqa: ASYNC220 - starting takes no time worth waiting for
            [ORCHESTRATOR, "api", "--port", "0"],
            env={**os.environ, **corner.environment(), "ORCHESTRATOR_DRAIN_GRACE": "5"},
            stdout=log,
            stderr=log,
        )
        try:
            async with asyncio.timeout(STALLED_AFTER):
                while (found := _SERVES.search(await asyncio.to_thread(Path(log.name).read_text))) is None:
                    if process.poll() is not None:
                        raise BenchmarkError(f"the API has ended: {process.returncode}")
                    await asyncio.sleep(0.1)
            yield psutil.Process(process.pid), int(found[1])
        finally:
            process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(process.wait, 60)


async def measure(corner: Corner, streams: int, processes: int, pace: float) -> None:
    """Open the streams, run the processes and print what was seen."""
    system = engine_system(ORCHESTRATOR, workflow="bench_noop")
    loop = asyncio.get_running_loop()
    await clear(corner, system)
    async with (
        Programs(system, corner) as programs,
        api_program(corner) as (api, port),
        client_of(programs, corner.amqp_url) as client,
    ):
        before, receipts = api.memory_info().rss, Receipts()
        transports = [
            (await loop.create_connection(lambda: Stream(receipts), "127.0.0.1", port))[0] for _ in range(streams)
        ]
        with socket.create_connection(("127.0.0.1", port)) as frozen:
            frozen.sendall(REQUEST)
            await reach(lambda: receipts.following, streams)
            opened, spent = api.memory_info().rss, cpu_seconds(api.pid)
            for _ in range(processes):
                await asyncio.gather(client.one(), asyncio.sleep(1 / pace))
            entries = await fetch_int(corner.dsn, "SELECT count(*) FROM process_steps")
            await reach(lambda: len(receipts.delays), entries * streams)
            spent = cpu_seconds(api.pid) - spent
        delays = [1e3 * one for one in receipts.delays]
        each = (opened - before) / streams / 1e3
        print(
            f"{streams:>5} streams, {entries} events at {pace * entries / processes:.0f}/s:"
            f" memory {before / 1e6:.0f} MB, with the streams {opened / 1e6:.0f} MB ({each:.0f} kB each),"
            f" at the end {api.memory_info().rss / 1e6:.0f} MB; delay p50 {percentile(delays, 0.5):.0f} ms,"
            f" p95 {percentile(delays, 0.95):.0f} ms; {1e6 * spent / len(delays):.0f} us of CPU for each event and stream"
        )
        for transport in transports:
            transport.abort()


async def reach(count: Callable[[], int], wanted: int) -> None:
    """Wait until so many have come.

    Raises:
        BenchmarkError: none has come for long.
    """
    loop = asyncio.get_running_loop()
    known, since = count(), loop.time()
    while known < wanted:
        await asyncio.sleep(0.05)
        if count() != known:
            known, since = count(), loop.time()
        elif loop.time() - since > STALLED_AFTER:
            raise BenchmarkError(f"{known} of {wanted} have come, then none for {STALLED_AFTER:g} s")
    if known > wanted:
        print(f"note: {known - wanted} came twice")


async def run(arguments: argparse.Namespace) -> None:
    """Measure each number of streams."""
    # Files may be open as many as the system allows, here and in the API.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    async with own_corner(Servers.from_environment(), "quorum") as corner:
        for streams in arguments.streams:
            await measure(corner, streams, arguments.processes, arguments.pace)


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 100, 1000])
    parser.add_argument("--processes", type=int, default=100)
    parser.add_argument("--pace", type=float, default=5, help="processes started in a second")
    try:
        asyncio.run(run(parser.parse_args()))
    except (NoServersError, BenchmarkError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
