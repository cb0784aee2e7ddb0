"""Ten steps in DBOS, for ``throughput --peer dbos``; run by the Python of a virtual environment that has it.

DBOS is no dependency of this project, so this file imports nothing of it, and mypy does not know the library. It reads commands
from its standard input – ``many N`` or ``one`` – and answers each with a line: the seconds until all were done.
"""

from __future__ import annotations

import asyncio
import sys
import time

from dbos import DBOS  # type: ignore[import-not-found, unused-ignore]

STEPS = 10


@DBOS.step()  # type: ignore[untyped-decorator, unused-ignore]
async def count(counter: int) -> int:
    """Do what a step of the engine's benchmark does."""
    return counter + 1


@DBOS.workflow()  # type: ignore[untyped-decorator, unused-ignore]
async def bench() -> int:
    """Run ten steps, each recorded before the next begins."""
    counter = 0
    for _ in range(STEPS):
        counter = await count(counter)
    return counter


async def many(number: int) -> float:
    """Start so many at once; return the seconds until all are done."""
    began = time.perf_counter()
    handles = await asyncio.gather(*(DBOS.start_workflow_async(bench) for _ in range(number)))
    await asyncio.gather(*(handle.get_result() for handle in handles))
    return time.perf_counter() - began


async def main() -> None:
    """Answer commands until there are no more."""
    DBOS(config={"name": "bench", "system_database_url": sys.argv[1], "run_admin_server": False, "log_level": "ERROR"})
    DBOS.launch()
    print("ready", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        _, _, number = line.partition(" ")
        print(await many(int(number or 1)), flush=True)
    DBOS.destroy()


if __name__ == "__main__":
    asyncio.run(main())
