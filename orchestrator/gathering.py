"""Send calls together that have come while others were on their way.

A call that finds nothing on its way is sent at once and alone. There is no timer: the longer the others take, the more calls
gather.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class NotSentError(Exception):
    """A call has waited for as long as it may, and is not sent any more."""


class Gathering(Generic[T, R]):
    """Sends single calls, and those that have gathered meanwhile together.

    Args:
        send: sends some and returns a result for each, in order.
        is_for_all: whether an error has nothing to do with one of several. After any other each of them is sent alone, so that
            only the one at fault fails.
        at_once: how many may be on their way; with fewer, more gather.
        largest: how many are sent together at most.
    """

    def __init__(
        self,
        send: Callable[[list[T]], Awaitable[list[R]]],
        *,
        is_for_all: Callable[[BaseException], bool],
        at_once: int,
        largest: int,
    ) -> None:
        self._send = send
        self._is_for_all = is_for_all
        self._free = at_once
        self._largest = largest
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    async def call(self, item: T, *, patience: float | None = None) -> R:
        """Send ``item``, with others if it has to wait, and return its result.

        Args:
            patience: seconds within which it must be on its way; default whenever that is.

        Raises:
            NotSentError: it was not.
            whatever sending it raises.
        """
        if self._free:  # then nothing waits
            self._free -= 1
            try:
                (result,) = await self._send([item])
            finally:
                self._go_on()
            return result
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[R] = loop.create_future()
        self._waiting.append((item, answer))
        limit = None if patience is None else loop.call_later(patience, self._give_up, item, answer)
        try:
            return await answer
        finally:
            if limit is not None:
                limit.cancel()

    def _give_up(self, item: T, answer: asyncio.Future[R]) -> None:
        if not answer.done() and (item, answer) in self._waiting:
            self._waiting.remove((item, answer))
            answer.set_exception(NotSentError)

    def _go_on(self) -> None:
        """Send those that have gathered, in the place of what has come back."""
        calls: list[tuple[T, asyncio.Future[R]]] = []
        while self._waiting and len(calls) < self._largest:
            item, answer = self._waiting.popleft()
            if not answer.done():  # it may have been cancelled
                calls.append((item, answer))
        if not calls:
            self._free += 1
            return
        # Not in the context of the one that happens to have ended: they are about others.
        task = asyncio.create_task(self._send_together(calls), context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send_together(self, calls: list[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            await self._try(calls)
        except Exception as error:
            if len(calls) == 1 or self._is_for_all(error):
                _fail(calls, error)
            else:
                await self._send_each(calls)
        finally:
            self._go_on()

    async def _send_each(self, calls: list[tuple[T, asyncio.Future[R]]]) -> None:
        for call in calls:
            try:
                await self._try([call])
            except Exception as error:
                # It belongs to the caller that waits for this result.
                _fail([call], error)

    async def _try(self, calls: list[tuple[T, asyncio.Future[R]]]) -> None:
        results = await self._send([item for item, _ in calls])
        for (_, answer), result in zip(calls, results, strict=True):
            if not answer.done():
                answer.set_result(result)


def _fail(calls: list[tuple[T, asyncio.Future[R]]], error: Exception) -> None:
    for _, answer in calls:
        if not answer.done():
            answer.set_exception(error)
