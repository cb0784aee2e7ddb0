"""Divide a program's scarce resources among its step queues, so that no queue takes all of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import ContextVar
from functools import partial

from orchestrator.line import Line
from orchestrator.workflow import TASK_QUEUE

FEW, MANY = 1, 25
"""The most turns of background work at once: while other work goes on, and otherwise."""

REST, LONGEST_REST = 10.0, 1.0
"""The rest after a turn while other work goes on: as a multiple of the turn's duration, and at most in seconds."""

RECENTLY = 0.5
"""Seconds for which other work counts as going on after its last turn: a process comes back to a program after each step."""

BEGINNING = 0.003
"""The assumed seconds of a turn in which a step begins, because the duration of its first statements is not known before."""

working_for: ContextVar[str | None] = ContextVar("working_for", default=None)
"""The step queue for which the current task works; ``None`` for the engine's own work."""


class Shares:
    """Units of a resource, of which each queue can always get some.

    Half of all units are reserved, the same number for each queue; every queue may take from the other half. Reserved
    units are never lent, because a step may hold one for hours. A free unit goes to the waiting queue that holds the fewest.

    Args:
        limit: the number of units. If there are fewer units than queues, none is reserved.
        queues: the step queues. The engine itself has no share, and gets any free unit.
    """

    def __init__(self, limit: int, queues: Iterable[str]) -> None:
        names = set(queues)
        share = max(1, limit // (2 * len(names))) if 1 < len(names) <= limit else 0
        self._reserved = dict.fromkeys(names, share)
        self._free = limit
        self._held: Counter[str | None] = Counter()
        self._waiting: dict[str | None, Line] = {}

    @property
    def taken(self) -> int:
        """The number of units in use, by all queues."""
        return self._held.total()

    def take(self, queue: str | None) -> bool:
        """Take a unit for a queue if it may have one now; return whether it may."""
        if not self.count_available(queue):
            return False
        self._free -= 1
        self._held[queue] += 1
        return True

    def count_available(self, queue: str | None) -> int:
        """Return how many units a queue may take now."""
        others = sum(max(0, share - self._held[name]) for name, share in self._reserved.items() if name != queue)
        return self._free if queue is None else max(0, self._free - others)

    def is_waited_for(self, *, but_not: str) -> bool:
        """Return whether a queue waits for a unit, other than ``but_not``."""
        return any(waiting for name, waiting in self._waiting.items() if name != but_not)

    async def wait(self, queue: str | None) -> None:
        """Wait until a queue may have a unit, behind those that already wait for one, and take none."""
        await self.acquire(queue)
        self.release(queue)

    async def acquire(self, queue: str | None) -> None:
        """Wait for a unit, behind those that already wait for the same queue."""
        waiting = self._waiting.setdefault(queue, Line())
        if waiting or not self.take(queue):
            await waiting.wait(partial(self.release, queue))

    def release(self, queue: str | None) -> None:
        """Return a unit."""
        self._free += 1
        self._held[queue] -= 1
        # The unit serves one waiter, whose queue need not be the one that returns it.
        for name in sorted(self._waiting, key=self._held.__getitem__):
            waiting = self._waiting[name]
            if waiting and self.take(name):
                waiting.let_go_on()
                return


class _OtherTurn(AbstractAsyncContextManager[None]):
    """A turn of work that is not background work. No generator: each step has one, and a generator costs three times as much."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace

    async def __aenter__(self) -> None:
        self._pace.note_other_work()

    async def __aexit__(self, *_: object) -> None:
        self._pace.note_other_work()


class Pace:
    """Limits background work to few turns at once while other work is going on, with rests between them.

    A turn is short: some statements and messages. Units of :class:`Shares` do not help here, because turns compete for the event
    loop, the processors and the servers. On a busy system a turn takes longer, and so does the rest after it.

    Args:
        few, many: the most turns of background work at once, while other work goes on and otherwise.
        rest: the pause after a turn while other work goes on, as a multiple of the turn's duration; or what returns it.
        recently: seconds for which other work counts as going on after its last turn.
        is_busy: returns whether it goes on in any case.
    """

    def __init__(
        self,
        *,
        few: int = FEW,
        many: int = MANY,
        rest: float | Callable[[], float] = REST,
        recently: float = RECENTLY,
        is_busy: Callable[[], bool] = lambda: False,
    ) -> None:
        self._few, self._many, self._recently = few, many, recently
        self._is_busy_in_any_case = is_busy
        self._find_rest = rest if callable(rest) else lambda: rest
        self._loop = asyncio.get_running_loop()
        self._busy_until = self._rests_until = float("-inf")
        self._turns = 0
        self._waiting = (Line(), Line())
        """The waiting tasks: those whose work has begun, and the others."""
        self._is_lifted = False
        self._other_turn = _OtherTurn(self)

    def turn(
        self, queue: str | None, *, at_once: bool = False, has_begun: bool = False
    ) -> AbstractAsyncContextManager[None]:
        """Wait for a turn of work for a queue, and end it with the block. Only work for ``tasks`` waits.

        Args:
            at_once: begin without waiting, for work that holds something that other turns may wait for.
            has_begun: go before work that only begins, so that claimed steps end before more are claimed.
        """
        if queue == TASK_QUEUE:
            return self.background_turn(at_once=at_once, has_begun=has_begun)
        return self._other_turn

    @asynccontextmanager
    async def background_turn(self, *, at_once: bool = False, has_begun: bool = False) -> AsyncIterator[None]:
        """Wait for a turn of background work, and end it with the block.

        Args:
            at_once, has_begun: as :meth:`turn`.
        """
        end = await self.begin_turn(at_once=at_once, has_begun=has_begun)
        try:
            yield
        finally:
            end()

    async def begin_turn(
        self, *, at_once: bool = False, has_begun: bool = False, longest: float | None = None
    ) -> Callable[[], None]:
        """Wait for a turn of background work, and return a function that ends it.

        Args:
            at_once, has_begun: as :meth:`turn`.
            longest: seconds after which the turn ends by itself.
        """
        if at_once:
            self._turns += 1
        else:
            await self._begin(has_begun=has_begun)
        began = self._loop.time()
        has_ended = False

        def end() -> None:
            nonlocal has_ended
            if not has_ended:
                has_ended = True
                self._end(self._loop.time() - began)
            if timer is not None:
                timer.cancel()

        timer = None if longest is None else self._loop.call_later(longest, end)
        return end

    async def take_turn(self, seconds: float) -> None:
        """Wait for a turn of background work that has begun; the turn ends by itself after so many seconds."""
        await self._begin(has_begun=True)
        self._loop.call_later(seconds, self._end, seconds)

    def lift(self) -> None:
        """Lift the limits, because the program is about to stop."""
        self._is_lifted = True
        self._let_begin()

    def note_other_work(self) -> None:
        """Record that other work goes on at this moment."""
        self._busy_until = self._loop.time() + self._recently

    async def _begin(self, *, has_begun: bool) -> None:
        if not any(self._waiting) and self._may_begin():
            self._turns += 1
            return
        await self._waiting[not has_begun].wait(self._leave)

    def _end(self, took: float) -> None:
        rest = self._find_rest() if self._is_busy else 0
        if rest:
            # One after the other: turns that did not wait may have ended during the rest after another one.
            now = self._loop.time()
            rests_until = max(now, self._rests_until) + took * rest
            self._rests_until = min(rests_until, now + LONGEST_REST)
            self._loop.call_at(self._rests_until, self._leave)
        else:
            self._leave()

    def _leave(self) -> None:
        self._turns -= 1
        self._let_begin()

    def _let_begin(self) -> None:
        for waiting in self._waiting:
            while waiting and self._may_begin():
                self._turns += 1
                waiting.let_go_on()

    def _may_begin(self) -> bool:
        return self._is_lifted or self._turns < (self._few if self._is_busy else self._many)

    @property
    def _is_busy(self) -> bool:
        return self._loop.time() < self._busy_until or self._is_busy_in_any_case()


class Admission:
    """Admits steps of background work that need a connection: as connections become free, and each in a turn.

    Hundreds may be claimed while nothing else goes on. If they all waited for a connection, they would take connections as fast
    as these become free, without turns, whatever other work has arrived meanwhile. A step that waits here holds no connection,
    and its timeout has not begun.

    Args:
        connections: one unit for each connection.
        pace: the turns to wait for.
    """

    def __init__(self, connections: Shares, pace: Pace) -> None:
        self._connections = connections
        self._pace = pace
        self._line = asyncio.Lock()
        self._beginning = 0
        self._begun = asyncio.Event()

    async def wait(self, queue: str) -> None:
        """Wait until a step of a queue may begin; only those of ``tasks`` wait."""
        if queue != TASK_QUEUE:
            return
        async with self._line:
            while self._connections.count_available(queue) <= self._beginning:
                if self._beginning:  # they are about to take what is free
                    self._begun.clear()
                    await self._begun.wait()
                else:
                    await self._connections.wait(queue)
            await self._pace.take_turn(BEGINNING)
            self._beginning += 1
            asyncio.get_running_loop().call_later(BEGINNING, self._has_begun)

    def _has_begun(self) -> None:
        self._beginning -= 1
        self._begun.set()
