"""Let a plain function in a thread use what lives on the event loop: the one way from a thread to the loop.

The function runs in a greenlet of its own thread. Whatever it – or SQLAlchemy in it – wants to await is handed to the loop as a
task, and the thread waits for the task's end. So a plain function gets the whole synchronous face of SQLAlchemy over an
asyncio driver, and blocks nothing but its thread.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar, cast

from greenlet import getcurrent, greenlet  # type: ignore[import-untyped]

T = TypeVar("T")

WIRE_GRACE = 2.0
"""Seconds that a statement gets to leave the wire after its cancellation; then its connection is closed under it."""


class BridgeClosedError(BaseException):
    """Nothing more is handed to the loop. Not an ``Exception``: an author's ``except Exception`` lets it through."""


class Bridge:
    """The way of one plain function from its thread to the event loop.

    Made on the loop. All decisions are made there, one after the other: once :meth:`close` was called, nothing begins.

    Attributes:
        thread_id: of the thread, once it has begun.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._task: asyncio.Task[Any] | None = None
        self._left: asyncio.Future[None] = self._loop.create_future()
        self.thread_id: int | None = None

    def wait(self, awaitable: Awaitable[T], *, always: bool = False) -> T:
        """In the thread: have the loop await something, and return or raise what came of it.

        Args:
            always: do so after :meth:`close` as well: for giving back what would be lost otherwise.

        Raises:
            BridgeClosedError: the bridge is closed.
            asyncio.CancelledError: it was closed while this was awaited.
        """
        # Not by run_coroutine_threadsafe: when that is cancelled, it frees the thread before the task has ended.
        answer: Future[T] = Future()
        self._loop.call_soon_threadsafe(self._begin, awaitable, answer, always)  # in a copy of the thread's context
        return answer.result()

    async def close(self) -> None:
        """Hand nothing more to the loop, cancel what is being awaited, and wait until it has ended."""
        self._closed = True
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=WIRE_GRACE)
        self._task = None  # its result may be a connection that is to be forgotten

    def enter(self) -> None:
        """Record the thread, in it."""
        self.thread_id = threading.get_ident()

    def leave(self) -> None:
        """Record that the thread has left the function, or never began it."""
        if not self._left.done():
            self._left.set_result(None)

    def done(self) -> bool:
        """Return whether the thread has left the function."""
        return self._left.done()

    def when_done(self, action: Callable[[], object]) -> None:
        """Call this, on the loop, as soon as the thread has left the function."""
        self._left.add_done_callback(lambda _: action())

    def _begin(self, awaitable: Awaitable[T], answer: Future[T], always: bool) -> None:
        if self._closed and not always:
            if inspect.iscoroutine(awaitable):
                awaitable.close()
            answer.set_exception(BridgeClosedError())
            return
        # A coroutine not inside another one: cancelled before it has begun, it would never be awaited.
        task = self._loop.create_task(awaitable if inspect.iscoroutine(awaitable) else _await(awaitable))
        if not always:
            self._task = task
        # Not inside the task: one that is cancelled before it has begun would never answer its thread.
        task.add_done_callback(partial(_answer, answer))


class _Bridged(greenlet):  # type: ignore[misc]
    """The greenlet of a function that has a bridge."""

    __sqlalchemy_greenlet_provider__ = True  # SQLAlchemy then switches to the parent with what it wants to await

    def __init__(self, function: Callable[[], Any], bridge: Bridge) -> None:
        parent = getcurrent()
        super().__init__(function, parent)
        self.gr_context = parent.gr_context  # otherwise a greenlet begins with an empty context
        self.bridge = bridge


def drive(function: Callable[[], T], bridge: Bridge) -> T:
    """In the thread: call a function with a bridge."""
    child = _Bridged(function, bridge)
    result = child.switch()
    while not child.dead:
        try:
            value = bridge.wait(result)
        except BaseException:
            result = child.throw(*sys.exc_info())
        else:
            result = child.switch(value)
    return cast("T", result)


def current_bridge() -> Bridge | None:
    """Return the bridge of the plain function that calls this; ``None`` on the loop, and in threads of an author's own."""
    current = getcurrent()
    return current.bridge if isinstance(current, _Bridged) else None


def current_user() -> Bridge | asyncio.Task[Any] | threading.Thread | None:
    """Return who is running: the bridge of a plain function, else the task, else the thread."""
    bridge = current_bridge()
    if bridge is not None:
        return bridge
    try:
        return asyncio.current_task()
    except RuntimeError:
        return threading.current_thread()


def wait_for(awaitable: Awaitable[T]) -> T:
    """In a plain function: have the loop await something, and return or raise what came of it.

    Raises:
        RuntimeError: this is not a plain function of an author's, or a thread that it has started itself.
    """
    bridge = current_bridge()
    if bridge is None:
        if inspect.iscoroutine(awaitable):
            awaitable.close()
        raise RuntimeError(
            "only a plain function can wait for the event loop, in the thread in which the engine calls it"
        )
    return bridge.wait(awaitable)


async def _await(awaitable: Awaitable[T]) -> T:
    return await awaitable


def _answer(answer: Future[T], task: asyncio.Task[T]) -> None:
    if task.cancelled():
        # That very class: SQLAlchemy then closes the connection, and no author's "except Exception" takes it.
        answer.set_exception(asyncio.CancelledError())
    elif (error := task.exception()) is not None:
        answer.set_exception(error)
    else:
        answer.set_result(task.result())
