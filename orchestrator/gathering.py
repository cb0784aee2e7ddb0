"""Batch calls: send those that arrive while others are in progress together.

A call that arrives while none is in progress is sent at once and alone. There is no timer: the longer calls take, the more are
sent together.
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
    """A call has waited as long as it may, and was not sent."""


class Gathering(Generic[T, R]):
    """Combines calls that arrive while others are in progress.

    Args:
        send: sends a batch and returns a result for each call, in order.
        is_for_all: returns whether an error concerns all calls of a batch. After any other error each of them is sent alone,
            so that only the call at fault fails.
        at_once: how many batches may be in progress; with fewer, each has more calls.
        largest: the most calls in one batch.
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
        """Send ``item``, together with others if it must wait, and return its result.

        Args:
            patience: seconds within which it must be sent; by default without a limit.

        Raises:
            NotSentError: it was not sent within its patience.
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
        """Send the waiting calls in place of a finished batch."""
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
            for _, answer in calls:
                answer.cancel()  # has an effect only when the sending was cancelled: nobody else would answer
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
