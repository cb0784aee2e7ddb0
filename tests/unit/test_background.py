"""The event loop that tests keep in a thread."""

from __future__ import annotations

import asyncio

from tests.background import Background


def test_nothing_is_left_when_the_end_of_a_task_begins_another_one() -> None:
    """As an open connection's does. What is left is collected during another test, which then fails."""
    background = Background()
    tasks: list[asyncio.Task[object]] = []

    async def end_after(depth: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            if depth:
                begin(depth - 1)

    def begin(depth: int) -> None:
        tasks.append(asyncio.get_running_loop().create_task(end_after(depth)))

    async def open_connection() -> None:
        begin(2)
        await asyncio.sleep(0)

    background.run(open_connection())
    background.close()
    assert tasks
    assert all(task.done() for task in tasks)
