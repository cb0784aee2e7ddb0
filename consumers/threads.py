"""Run plain step functions in threads: each step queue has its own, so that no queue's steps wait for another's."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, ParamSpec, TypeVar

from orchestrator.shares import working_for
from orchestrator.threads import Threads

P = ParamSpec("P")
T = TypeVar("T")


class StepThreads(Threads):
    """Runs functions in threads of the queue for which the calling task works.

    Args:
        limit: the most threads for each queue. They are started when they are needed.
    """

    def __init__(self, limit: int) -> None:
        super().__init__("step", limit)
        self._queues: dict[str | None, Threads] = {}

    @property
    def left_behind(self) -> int:
        return sum(threads.left_behind for threads in self._queues.values())

    def when_used_up(self, action: Callable[[], object] | None) -> None:
        super().when_used_up(action)
        for threads in self._queues.values():
            threads.when_used_up(action)

    def submit(self, function: Callable[P, T], /, *args: P.args, **options: P.kwargs) -> Future[T]:
        """Run a function as soon as its queue has a thread for it."""
        return self._own.submit(function, *args, **options)

    def leave_behind(self, future: Future[Any]) -> None:
        self._own.leave_behind(future)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        for threads in self._queues.values():
            threads.shutdown(wait, cancel_futures=cancel_futures)

    @property
    def _own(self) -> Threads:
        queue = working_for.get()
        if queue not in self._queues:
            self._queues[queue] = Threads(f"step {queue}", self._limit)
            self._queues[queue].when_used_up(self._when_used_up)
        return self._queues[queue]
