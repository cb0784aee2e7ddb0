"""Give the little work of one queue precedence over the many results of a busy one.

Between its command and its outcome a step needs about fifteen iterations of the event loop. Beside hundreds of other steps each
iteration takes as long as their work in it, and all of them together much longer than the step itself. So while a queue with
little work is active, results for a busy one wait: mostly a few milliseconds, and never more than half of the time.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from typing import Final

from orchestrator.workflow import TASK_QUEUE

FEW = 5
"""Up to so many claims and outcomes a queue goes before busy ones: they cost less than one part of a busy queue's work."""

LONGEST = 0.05
"""Seconds for which busy queues wait at a time. A step that does nothing but compute needs a fifth of that."""

TURNS = 6
"""Event loop iterations without activity after which a queue counts as done: a step that only computes needs as many from its
claim to its outcome. While others wait they take no time."""

AT_ONCE: Final = nullcontext()
"""The turn of a queue that does not wait."""


class Precedence:
    """Decides when the work of each queue is done.

    A queue is busy when more than :data:`FEW` of its claims and outcomes are active. All busy queues together do one part of
    their work in an event loop iteration, and none while others go before them. The others' work is done at once. Nothing waits
    for background work, which has turns of its own.

    Args:
        longest: seconds for which busy queues wait at a time, and for which work that has begun goes before them. After that
            they wait at most half of the time.
    """

    def __init__(self, *, longest: float = LONGEST) -> None:
        self._longest = longest
        self._at_work: Counter[str | None] = Counter()
        self._began_at: dict[str | None, float] = {}
        """When work of each queue began last. Work that takes long waits for something else, such as a lock."""
        self._has_changed = asyncio.Event()
        self._line = asyncio.Lock()
        self._in_line: Counter[str | None] = Counter()
        """Parts of each queue in the line: they are done after those before them, which cannot wait for them."""
        self._settled_at = float("-inf")
        """When busy queues will have had as much time as they have waited."""

    def begin(self, queue: str | None) -> None:
        """Record that the engine begins work of a queue; user code does not count, because it may take hours."""
        self._at_work[queue] += 1
        self._began_at[queue] = asyncio.get_running_loop().time()
        if self._at_work[queue] == FEW + 1:
            self._has_changed.set()

    def end(self, queue: str | None) -> None:
        """Record that this work has ended."""
        self._at_work[queue] -= 1
        if not self._at_work[queue]:
            self._has_changed.set()

    def turn(self, queue: str | None) -> AbstractAsyncContextManager[None]:
        """Wait for the turn to do a part of a queue's work; there is no wait unless the queue is busy."""
        return AT_ONCE if self._at_work[queue] <= FEW else self._turn_of_busy(queue)

    @asynccontextmanager
    async def _turn_of_busy(self, queue: str | None) -> AsyncIterator[None]:
        self._in_line[queue] += 1
        try:
            async with self._line:
                await self._let_others_go_before()
                yield
                # Its consequences run in the next event loop iteration, before the next part.
                await asyncio.sleep(0)
        finally:
            self._in_line[queue] -= 1

    async def _let_others_go_before(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        ends_at = began + self._longest - max(0.0, self._settled_at - began)
        turns = 0 if self._goes_one_before() else TURNS
        while turns < TURNS and (left := ends_at - loop.time()) > 0:
            if self._goes_one_before():
                turns = 0
                self._has_changed.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await self._has_changed.wait()
            else:
                turns += 1
                await asyncio.sleep(0)
        self._settled_at = max(self._settled_at, began) + 2 * (loop.time() - began)

    def _goes_one_before(self) -> bool:
        since = asyncio.get_running_loop().time() - self._longest
        return any(
            0 < count <= FEW and queue != TASK_QUEUE and not self._in_line[queue] and self._began_at[queue] >= since
            for queue, count in self._at_work.items()
        )
