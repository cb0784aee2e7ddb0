"""Admit starts behind other work: at the rate at which they can be handled, while the others wait in their queue.

A start costs a coordinator and PostgreSQL about as much as the results of several steps. Thousands at once would take
all capacity, and every running process would stand still until the last of them is stored.

A few starts begin at once. More of them take turns, with a rest after each, in which whatever else comes has the processors for
itself. The rest is short unless there are other requests meanwhile. Large turns make up for the rests, because the starts of a
turn share statements, commits and writes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

from orchestrator.broker.connection import QueueDepth
from orchestrator.broker.topology import Queues
from orchestrator.db.session import CONNECTION_ERRORS, Database
from orchestrator.db.status import count_waiting
from orchestrator.query_messages import BacklogFound
from orchestrator.shares import Pace
from orchestrator.stopping import wait_or_stop

PREFETCH = 50
"""The most starts that a coordinator holds at once. The others stay in the queue, where people can see their number."""

FEW, MANY = 1, 8
"""Turns of starts at once: during a flood or while running work is behind, and otherwise."""

FLOOD = PREFETCH // 2
"""There is a flood while more starts than that are in hand. With fewer, turns one after the other would be small: some clients
that wait for their replies would only wait longer."""

TOGETHER, TOGETHER_BEHIND = PREFETCH, 8
"""The most starts in one turn, which share statements; and while running work is behind, so that it need not wait for long."""

REST, LONG_REST = 0.25, 1.5
"""The pause after a turn, as a multiple of the turn; and while running work is behind or there are other requests, which have
at least 3/5 of the time then."""

LONGEST = 0.25
"""The most seconds of a turn. A form may wait for another system, and must not delay other starts."""

BEHIND = 30
"""Processes whose next step waits for a coordinator or a consumer, from which on running work is behind. Where more messages
about running work are handled between two checks it is that many, or it would run out before the next check."""

LOOK_EVERY = 0.25
"""Seconds between two checks of their number."""

RECENTLY = 0.1
"""Seconds for which starts still wait when running work is not behind any more: short processes end sooner than half a second,
and then nothing is left to do."""

ASKED_FOR = 5.0
"""Seconds in which another request is likely to follow: people, and systems that start one process after the other, send more
than one. The rests cost up to a fifth of the starts a second."""

LATELY = 10.0
"""Seconds over which the rate is counted."""

Measure = Callable[[str], Awaitable[QueueDepth | None]]


class _Turn:
    """A turn of several starts, which ends when few of them are left: one that waits for a form holds up no others."""

    def __init__(self) -> None:
        self._joining: list[asyncio.Future[bool]] = []
        self._going = self._left = 0
        self._end: Callable[[], None] | None = None

    def has_room(self, together: int) -> bool:
        """Return whether another start may join the one that waits for the turn, if it may have so many."""
        return len(self._joining) < together - 1

    async def join(self) -> bool:
        """Wait until the turn begins; return whether it has, or the one that waits for it was cancelled."""
        begins: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._joining.append(begins)
        try:
            return await begins
        except asyncio.CancelledError:
            if not begins.cancelled() and begins.result():
                self.leave()
            raise

    def begin(self, end: Callable[[], None]) -> None:
        """Let all begin, and call ``end`` when few are left."""
        self._end = end
        self._going = 1 + self._let_go(begin=True)
        self._left = min(MANY, self._going // 4)

    def call_off(self) -> None:
        """Let those that have not begun wait for another turn."""
        self._let_go(begin=False)

    def leave(self) -> None:
        """Record that one of them has ended."""
        self._going -= 1
        if self._going <= self._left and self._end is not None:
            self._end()

    def _let_go(self, *, begin: bool) -> int:
        """Answer those that joined; return how many there are."""
        waiting = [one for one in self._joining if not one.done()]
        for one in waiting:
            one.set_result(begin)
        return len(waiting)


class Intake:
    """Lets starts begin, in turns.

    Args:
        measure: returns the depth of a queue.
    """

    def __init__(self, database: Database, measure: Measure) -> None:
        self._database = database
        self._measure = measure
        self._pace = Pace(few=FEW, many=MANY, rest=self._find_rest, recently=RECENTLY, is_busy=self._is_flooded)
        self._loop = asyncio.get_running_loop()
        self._in_hand = 0
        self._waiting = 0
        self._is_behind = False
        self._gives_way_until = self._is_asked_until = float("-inf")
        self._open: _Turn | None = None
        """The turn that one of the starts waits for, and others may join."""
        self._handled = 0
        self._ended: deque[float] = deque()

    @property
    def is_full(self) -> bool:
        """Whether the starts that this program holds wait because others have just begun."""
        return self._waiting > 0

    @contextmanager
    def running_work(self) -> Iterator[None]:
        """Record that running work goes on."""
        self._note()
        try:
            yield
        finally:
            self._handled += 1
            self._note()

    def note_request(self) -> None:
        """Record a request that does not wait behind the starts: a start over HTTP, a command about a process."""
        self._is_asked_until = self._loop.time() + ASKED_FOR

    @asynccontextmanager
    async def start(self) -> AsyncIterator[Callable[[], None]]:
        """Wait until a start may begin; yield a function that records that it did not end, but waits in its queue."""
        has_begun, has_ended = False, True

        def wait_on() -> None:
            nonlocal has_ended
            has_ended = False

        self._in_hand += 1
        self._waiting += 1
        self._note_flood()
        try:
            turn = await self._begin()
            has_begun = True
            self._waiting -= 1
            try:
                yield wait_on
            finally:
                turn.leave()
        finally:
            self._note_flood()
            self._in_hand -= 1
            self._waiting -= not has_begun
            if has_ended:
                self._ended.append(self._loop.time())
            self._forget()

    async def run(self, stopping: asyncio.Event) -> None:
        """Check whether running work is behind, as long as there are starts, until ``stopping`` is set."""
        while not await wait_or_stop(LOOK_EVERY, stopping):
            many, self._handled = max(BEHIND, self._handled), 0
            if self._in_hand:
                # While the database is unreachable no start begins in any case.
                with suppress(*CONNECTION_ERRORS):
                    self._is_behind = await count_waiting(self._database.pool, many) == many
        self._pace.lift()

    async def backlog(self) -> BacklogFound:
        """Return how many starts wait."""
        depth = await self._measure(Queues.COMMANDS.value) or QueueDepth(Queues.COMMANDS.value, 0, 0)
        self._forget()
        rate = len(self._ended) / LATELY
        return BacklogFound(
            starts=depth.ready,
            coordinators=depth.consumers,
            per_second=round(rate, 1),
            seconds=round((depth.ready + self._in_hand) / rate / max(1, depth.consumers), 1) if rate else None,
        )

    async def _begin(self) -> _Turn:
        """Wait for a turn, or join one that another start waits for."""
        together = TOGETHER_BEHIND if self._gives_way else TOGETHER
        while (turn := self._open) is not None and turn.has_room(together):
            if await turn.join():
                return turn
        turn = self._open = _Turn()
        try:
            turn.begin(await self._pace.begin_turn(longest=LONGEST))
        finally:
            if self._open is turn:
                self._open = None
            turn.call_off()
        return turn

    def _is_flooded(self) -> bool:
        return self._in_hand > FLOOD

    def _note_flood(self) -> None:
        # Between two turns fewer are in hand.
        if self._is_flooded():
            self._pace.note_other_work()

    @property
    def _gives_way(self) -> bool:
        """Whether running work is behind, and goes on."""
        return self._loop.time() < self._gives_way_until

    def _find_rest(self) -> float:
        return LONG_REST if self._gives_way or self._loop.time() < self._is_asked_until else REST

    def _note(self) -> None:
        if self._is_behind:
            self._gives_way_until = self._loop.time() + RECENTLY
            self._pace.note_other_work()

    def _forget(self) -> None:
        while self._ended and self._ended[0] < self._loop.time() - LATELY:
            self._ended.popleft()
