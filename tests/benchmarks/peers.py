"""Other systems that do the same, each in a virtual environment of its own: they are no dependencies of this project."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.benchmarks.measure import Meter
from tests.benchmarks.report import Turn
from tests.benchmarks.systems import BenchmarkError, Corner, execute
from tests.benchmarks.workload import STEPS

PEERS = {"dbos": Path(__file__).with_name("peer_dbos.py")}
INSTALL = "python -m venv /tmp/dbos && /tmp/dbos/bin/pip install dbos, then --peer-python /tmp/dbos/bin/python"
WARM_UP = 30
PATIENCE = 300.0
"""Seconds for one answer."""


class Peer:
    """A program that answers each command with the seconds that it has taken."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    async def ask(self, command: str) -> float:
        """Send a command; return the seconds."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n".encode())
        await self._process.stdin.drain()
        return float(await self.read())

    async def read(self) -> str:
        """Return the next line that it prints."""
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            line = await self._process.stdout.readline()
        if not line:
            raise BenchmarkError(f"the peer has ended with {await self._process.wait()}; is it installed? {INSTALL}")
        return line.decode().strip()


async def peer_turn(corner: Corner, name: str, options: argparse.Namespace) -> Turn:
    """Measure a peer as the floor and the engine are measured, in a database of its own."""
    async with _database(corner, name) as dsn, _running(name, options.peer_python, dsn) as peer:
        await peer.ask(f"many {WARM_UP}")
        meter = Meter({"consumer": peer.pid})
        seconds = await peer.ask(f"many {options.processes}")
        meter.stop()
        await asyncio.sleep(0.5)
        idle = [await peer.ask("one") for _ in range(options.idle)]
    steps = options.processes * STEPS
    return Turn(name, options.processes, steps, seconds, idle, meter.cpu, meter.memory, meter.others)


@asynccontextmanager
async def _database(corner: Corner, name: str) -> AsyncIterator[str]:
    base, _, ours = corner.dsn.rpartition("/")
    database = f"{ours.partition('?')[0]}_{name}"
    await execute(corner.dsn, f'CREATE DATABASE "{database}"')
    try:
        yield f"{base}/{database}"
    finally:
        await execute(corner.dsn, f'DROP DATABASE "{database}" WITH (FORCE)')


@asynccontextmanager
async def _running(name: str, python: Path | None, dsn: str) -> AsyncIterator[Peer]:
    assert python is not None, "checked with the other options"
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(python, "-P", PEERS[name], dsn, stdin=pipe, stdout=pipe)
    try:
        peer = Peer(process)
        while await peer.read() != "ready":
            pass
        yield peer
        assert process.stdin is not None
        process.stdin.close()
        async with asyncio.timeout(PATIENCE):
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
