"""The floor of the benchmark stores every step, whenever it comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

from tests.benchmarks.floor import STATEMENTS, batched

if TYPE_CHECKING:
    from tests.benchmarks.floor import Pool


class Server:
    """Answers all statements in the same turn of the event loop."""

    def __init__(self) -> None:
        self.statements = 0
        self.changed = asyncio.Condition()
        self.answer = asyncio.Event()

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Server]:
        yield self

    async def wait_for(self, statements: int) -> None:
        async with asyncio.timeout(5), self.changed:
            await self.changed.wait_for(lambda: self.statements == statements)

    async def execute(self, *_: object) -> None:
        async with self.changed:
            self.statements += 1
            self.changed.notify_all()
        await self.answer.wait()


async def test_a_step_that_comes_while_all_statements_end_is_stored() -> None:
    server = Server()
    store = batched(cast("Pool", server))

    async def run(process: int) -> None:
        # One goes on, and nothing comes after that.
        for step in (1, 2) if process == 0 else (1,):
            await store(process, step, "running", "{}")

    processes = []
    for number in range(STATEMENTS):
        processes.append(asyncio.create_task(run(number)))
        await server.wait_for(number + 1)
    server.answer.set()
    async with asyncio.timeout(5):
        await asyncio.gather(*processes)
