"""Let the little that one queue has to do go before the many answers of a busy one.

Between its command and its outcome a step needs about fifteen turns of the event loop. Beside hundreds of other steps each turn
takes as long as these have to do in it, and all together much longer than the step itself. So while a queue with little to do is
at work, answers for a busy one wait: for a few milliseconds, mostly, and never for more than half of the time.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from orchestrator.workflow import TASK_QUEUE

FEW = 5
"""Claims and outcomes of a queue up to which it goes before busy ones: they cost less than one part of what these have."""

LONGEST = 0.05
"""Seconds for which busy queues wait at a time. A step that does nothing but compute needs a fifth of that."""

TURNS = 6
"""Turns of the event loop for which nothing may be at work before it counts as done: in as many a step that does nothing but
compute goes from its claim to its outcome. While others wait they take no time."""


class Precedence:
    """Says when what there is to do for a queue is done.

    A queue is busy when more of it is at work than a few. For all busy queues together one part is done in a turn of the event
    loop, and none while others go before them. These are done at once, and wait for nobody. Nobody waits for background work,
    which comes in turns of its own.

    Args:
        few: how much a queue has at work at most that goes before busy ones.
        longest: seconds for which these wait at a time, and for which what has begun goes before them. After that they wait for
            half of the time at most.
    """

    def __init__(self, *, few: int = FEW, longest: float = LONGEST) -> None:
        self._few = few
        self._longest = longest
        self._at_work: Counter[str | None] = Counter()
        self._began_at: dict[str | None, float] = {}
        """When something of each queue began last. What takes long waits for something else, such as a lock."""
        self._has_changed = asyncio.Event()
        self._line = asyncio.Lock()
        self._in_line: Counter[str | None] = Counter()
        """Parts of each queue that stand in the line: they are done after those before them, which cannot wait for them."""
        self._settled_at = float("-inf")
        """When busy queues will have had as much time as they have waited."""

    def begin(self, queue: str | None) -> None:
        """Note that something of a queue is at work in the engine: an author's code is not, because it may take hours."""
        self._at_work[queue] += 1
        self._began_at[queue] = asyncio.get_running_loop().time()
        if self._at_work[queue] == self._few + 1:
            self._has_changed.set()

    def end(self, queue: str | None) -> None:
        """Note that it has ended."""
        self._at_work[queue] -= 1
        if not self._at_work[queue]:
            self._has_changed.set()

    @asynccontextmanager
    async def turn(self, queue: str | None) -> AsyncIterator[None]:
        """Do a part of what there is to do for a queue: at once, unless the queue is busy."""
        if self._at_work[queue] <= self._few:
            yield
            return
        self._in_line[queue] += 1
        try:
            async with self._line:
                await self._let_others_go_before()
                yield
                # What follows from it is done in the next turn of the event loop, before the next part.
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
            0 < count <= self._few
            and queue != TASK_QUEUE
            and not self._in_line[queue]
            and self._began_at[queue] >= since
            for queue, count in self._at_work.items()
        )
