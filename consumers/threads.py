"""Threads for plain step functions: each step queue has its own, so that no queue's steps wait for another's."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from orchestrator.shares import working_for

P = ParamSpec("P")
T = TypeVar("T")


class StepThreads(Executor):
    """Runs functions in a thread of the queue for which the calling task works.

    Args:
        limit: threads of each queue, at most. They are started when they are needed.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._pools: dict[str | None, ThreadPoolExecutor] = {}

    def submit(self, function: Callable[P, T], /, *args: P.args, **options: P.kwargs) -> Future[T]:
        """Run a function as soon as its queue has a thread for it."""
        queue = working_for.get()
        if queue not in self._pools:
            self._pools[queue] = ThreadPoolExecutor(self._limit, thread_name_prefix=f"step {queue}")
        return self._pools[queue].submit(function, *args, **options)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Begin no more functions."""
        for pool in self._pools.values():
            pool.shutdown(wait, cancel_futures=cancel_futures)
