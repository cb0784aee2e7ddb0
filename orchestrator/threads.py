"""Threads for plain functions of authors, which cannot be stopped: one that does not end is replaced, up to a limit.

They are daemons: a program that stops does not wait for a function that sleeps for an hour.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_Work = tuple["Future[Any]", Callable[[], Any]]


class Threads(Executor):
    """Runs functions in threads, which are started when they are needed.

    Args:
        name: of the threads.
        limit: functions that may run at once.
        spare: threads left behind that are replaced; default as many as ``limit``. Beyond it they count towards the limit.
        patience: seconds that callers should wait for a thread; default without a limit.
    """

    def __init__(self, name: str, limit: int, spare: int | None = None, patience: float | None = None) -> None:
        self.patience = patience
        self._name, self._limit = name, limit
        self._spare = limit if spare is None else spare
        self._changed = threading.Condition()
        self._work: deque[_Work] = deque()
        self._idle = self._count = 0
        self._left: set[Future[Any]] = set()
        self._when_used_up: Callable[[], object] | None = None
        self._is_closed = False

    @property
    def left_behind(self) -> int:
        """How many threads run a function that should have ended."""
        return len(self._left)

    def when_used_up(self, action: Callable[[], object] | None) -> None:
        """Call this when no further thread would be replaced; ``None`` for nothing."""
        self._when_used_up = action

    def submit(self, function: Callable[P, T], /, *args: P.args, **options: P.kwargs) -> Future[T]:
        """Run a function as soon as there is a thread for it.

        Raises:
            RuntimeError: after :meth:`shutdown`.
        """
        future: Future[T] = Future()
        with self._changed:
            if self._is_closed:
                raise RuntimeError(f"the threads {self._name!r} take no more functions: their program stops")
            self._work.append((future, lambda: function(*args, **options)))
            self._find_thread()
        return future

    def leave_behind(self, future: Future[Any]) -> None:
        """Wait no longer for a function that goes on: another thread takes the place of its thread, unless too many are gone."""
        with self._changed:
            if future.done():
                return
            self._left.add(future)
            if self._work:
                self._find_thread()
            is_used_up = len(self._left) >= self._spare
        if is_used_up and self._when_used_up is not None:
            self._when_used_up()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002 - of an executor
        """Take no more functions, and wait for none: they run in daemons.

        Args:
            wait: ignored.
            cancel_futures: begin none of those that wait for a thread.
        """
        with self._changed:
            self._is_closed = True
            if cancel_futures:
                for future, _ in self._work:
                    future.cancel()
                self._work.clear()
            self._changed.notify_all()

    def _find_thread(self) -> None:
        # Not by a semaphore, as ThreadPoolExecutor does: there a thread may take work and be counted as idle afterwards.
        if self._idle >= len(self._work):
            self._changed.notify()
        elif self._count < self._allowed:
            self._count += 1
            threading.Thread(target=self._run, name=f"{self._name} {self._count}", daemon=True).start()

    @property
    def _allowed(self) -> int:
        return self._limit + min(len(self._left), self._spare)

    def _run(self) -> None:
        while (work := self._take()) is not None:
            future, function = work
            _run_one(future, function)
            with self._changed:
                self._left.discard(future)
                # The place of a thread that was left behind has been taken.
                if self._count > self._allowed:
                    self._count -= 1
                    return
            del work, future, function

    def _take(self) -> _Work | None:
        """Wait for a function; return ``None`` when there will be no more."""
        with self._changed:
            self._idle += 1
            while not self._work and not self._is_closed:
                self._changed.wait()
            self._idle -= 1
            return self._work.popleft() if self._work else None


def _run_one(future: Future[Any], function: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = function()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)
