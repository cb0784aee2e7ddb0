"""Batch calls: send those that arrive while a statement is in progress together in the next statement.

On an idle system every call is sent at once and alone; the busier it is, the more calls share a round trip and a disk sync.
There is no timer, and no call waits for others to arrive.

Each step queue has statements of its own, so that a step of a rarely used queue does not wait for a busy one. Results are passed
on in parts, so that other work need not wait until all of them are handled.

Work that leads to more calls begins only while there is room for these. Otherwise hundreds of processes would take turns, each
would wait for all others after every step, and new work would wait for all of them.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Generic, TypeVar

from consumers.precedence import Precedence
from orchestrator.db.session import is_connection_error
from orchestrator.line import Line
from orchestrator.shares import working_for

T = TypeVar("T")
R = TypeVar("R")

IN_A_TURN = 5
"""Results for a busy queue that are passed on in one event loop iteration. Each causes up to a millisecond of work."""


class Batcher(Generic[T, R]):
    """Combines single calls into batches.

    Args:
        run: sends a batch and returns a result for each item, in order.
        at_once: how many statements may be in progress; with fewer, each has more items. A step queue without one in progress
            may always send one.
        largest: how many items one statement may have.
        precedence: decides which queue goes before others; shared by all batchers of a program.
    """

    def __init__(
        self,
        run: Callable[[list[T]], Awaitable[list[R]]],
        *,
        at_once: int,
        largest: int,
        precedence: Precedence | None = None,
    ) -> None:
        self._run = run
        self._precedence = Precedence() if precedence is None else precedence
        self._at_once = at_once
        self._largest = largest
        self._waiting: defaultdict[str | None, deque[tuple[T, asyncio.Future[R]]]] = defaultdict(deque)
        # Counted by the senders themselves, not when their tasks end: between a sender's last look at the waiting items and
        # its decrement nothing else can run, so no item is left without a sender.
        self._sending: Counter[str | None] = Counter()
        self._senders: set[asyncio.Task[None]] = set()
        self._beginning: Counter[str | None] = Counter()
        self._held_up: defaultdict[str | None, Line] = defaultdict(Line)

    async def __call__(self, item: T) -> R:
        """Send ``item`` with whatever else is waiting, and return its result.

        Raises:
            whatever sending it alone raises. A connection error is raised for every item of the batch.
        """
        answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        queue = working_for.get()
        self._waiting[queue].append((item, answer))
        if not self._sending[queue] or self._sending.total() < self._at_once:
            self._sending[queue] += 1
            # In this context, so that its connection counts for this queue.
            sender = asyncio.create_task(self._send(queue))
            self._senders.add(sender)
            sender.add_done_callback(self._senders.discard)
        self._precedence.begin(queue)
        try:
            return await answer
        finally:
            self._precedence.end(queue)

    @asynccontextmanager
    async def room(self, queue: str | None) -> AsyncIterator[None]:
        """Wait until there is room for work that leads to a call, in the order of arrival.

        There is room while fewer calls of the queue are beginning, or wait to be sent, than one statement may have.
        """
        if self._held_up[queue] or self._count_room(queue) <= 0:
            await self._held_up[queue].wait(partial(self._has_begun, queue))
        else:
            self._beginning[queue] += 1
        try:
            yield
        finally:
            self._has_begun(queue)

    def is_held_up(self, queue: str | None) -> bool:
        """Return whether work of a queue waits for room."""
        return bool(self._held_up[queue])

    def _count_room(self, queue: str | None) -> int:
        return self._largest - self._beginning[queue] - len(self._waiting[queue])

    def _has_begun(self, queue: str | None) -> None:
        self._beginning[queue] -= 1
        self._let_begin(queue)

    def _let_begin(self, queue: str | None) -> None:
        held_up = self._held_up[queue]
        while held_up and self._count_room(queue) > 0:
            self._beginning[queue] += 1
            held_up.let_go_on()

    async def _send(self, queue: str | None) -> None:
        waiting = self._waiting[queue]
        try:
            while waiting:
                async with self._precedence.turn(queue):
                    batch = [waiting.popleft() for _ in range(min(self._largest, len(waiting)))]
                    self._let_begin(queue)
                try:
                    if batch:  # others may have sent all of it meanwhile
                        await self._send_batch(queue, batch)
                finally:
                    for _, answer in batch:
                        answer.cancel()  # has an effect only when the sending was cancelled: nobody else would answer
        finally:
            self._sending[queue] -= 1

    async def _send_batch(self, queue: str | None, batch: list[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            results = await self._run([item for item, _ in batch])
        except Exception as error:
            if len(batch) == 1 or is_connection_error(error):
                for _, answer in batch:
                    if not answer.done():
                        answer.set_exception(error)
            else:
                # One item is at fault, and only that one must fail.
                await self._send_alone(batch)
        else:
            answers = [(answer, result) for (_, answer), result in zip(batch, results, strict=True)]
            for begin in range(0, len(answers), IN_A_TURN):
                async with self._precedence.turn(queue):
                    for answer, result in answers[begin : begin + IN_A_TURN]:
                        if not answer.done():
                            answer.set_result(result)

    async def _send_alone(self, batch: list[tuple[T, asyncio.Future[R]]]) -> None:
        for item, answer in batch:
            try:
                (result,) = await self._run([item])
            except Exception as error:
                # It belongs to the caller that waits for this result.
                if not answer.done():
                    answer.set_exception(error)
            else:
                if not answer.done():
                    answer.set_result(result)
