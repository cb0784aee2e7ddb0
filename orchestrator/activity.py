"""What each task of the event loop does, and for which process: readable from another thread while the loop is blocked."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from orchestrator.types import JSON


@dataclass(frozen=True, slots=True)
class Blockage:
    """An event loop that did not respond.

    Args:
        seconds: for how long.
        by: what blocked it, if that is known: "the step 'Count' of 'count_prefixes'".
        at: the file, line and function of user code; ``None`` when none of it was running.
        stack: the functions that were running, the outermost first, without values.
        fields: the log fields of the process.
    """

    seconds: float
    by: str | None = None
    at: str | None = None
    stack: tuple[str, ...] = ()
    fields: Mapping[str, object] = field(default_factory=dict)

    @property
    def culprit(self) -> str:
        """What blocked the loop and where, to follow "blocked for 5 s"; empty when neither is known."""
        return f"{'' if self.by is None else f' by {self.by}'}{'' if self.at is None else f' at {self.at}'}"

    def document(self) -> dict[str, JSON]:
        """Return it as JSON."""
        fields = {name: value if isinstance(value, int) else str(value) for name, value in self.fields.items()}
        return {**fields, "by": self.by, "at": self.at, "seconds": round(self.seconds, 1), "stack": list(self.stack)}

    def __str__(self) -> str:
        return f"blocked for {format_seconds(self.seconds)}{self.culprit}"


@dataclass(slots=True, eq=False)
class Activity:
    """What a task does.

    Args:
        what: "the step 'Count' of 'count_prefixes'".
        fields: log fields of the process.
        ends_program: whether the program may end because the task blocks it beyond its deadline: others do its work then.
        ends_by: when the engine cancels the task's present call, by the monotonic clock.
        blocked: the longest time for which it has blocked the event loop; written by the loop's watch.
        held: seconds for which it has blocked the loop, all in all.
        pauses: whether its clock stands still while it waits for a thread or a connection that others have.
        connections: how many it holds. Who holds one and waits for something has its clock running: others may wait for it.
        waited: seconds for which its clock has stood still, all in all.
        in_line: whether it waits for a thread: its function has not begun.
        call: the task in which the author's function is called; ``None`` again when that has ended.
        thread_id: the thread in which it runs, if it is a plain one.
        waits_since: since when it has waited for one, by the monotonic clock; ``None`` while it does not.
    """

    what: str
    fields: Mapping[str, object]
    ends_program: bool = False
    ends_by: float | None = None
    blocked: Blockage | None = None
    held: float = 0.0
    pauses: bool = False
    connections: int = 0
    waited: float = 0.0
    waits_since: float | None = None
    in_line: bool = False
    call: asyncio.Task[object] | None = None
    thread_id: int | None = None

    def begin_wait(self) -> None:
        """Say that it waits for what other steps have, which is not the fault of its function."""
        if self.pauses and not self.connections:
            self.waits_since = time.monotonic()

    def end_wait(self) -> None:
        """Say that it waits no more. May be called in a thread."""
        if self.waits_since is not None:
            # In this order: for a moment too much rather than too little has been lost.
            self.waited += time.monotonic() - self.waits_since
            self.waits_since = None


class _Stalls:
    """Seconds for which the event loop of this process was blocked, all in all."""

    total = 0.0


_current: contextvars.ContextVar[Activity | None] = contextvars.ContextVar("activity", default=None)


class _Task(asyncio.Task[Any]):
    """A task that knows what it does."""

    __slots__ = ("activity",)
    activity: Activity | None


_by_other_task: WeakKeyDictionary[asyncio.Future[Any], Activity] = WeakKeyDictionary()
"""Of tasks that :func:`make_task` has not made: that of the whole program above all."""


class _Doing:
    """Says in a block what the present task does; not a generator, because each step has one."""

    __slots__ = ("_activity", "_before", "_task", "_token")

    def __init__(self, activity: Activity) -> None:
        self._activity = activity

    def __enter__(self) -> Activity:
        task = asyncio.current_task()
        assert task is not None, "only a task does something"  # noqa: S101 - a programming error, not a user's
        self._task = task
        self._before = find_activity(task)
        self._token = _current.set(self._activity)
        _set_activity(task, self._activity)
        return self._activity

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)
        _set_activity(self._task, self._before)


def doing(what: str, **fields: object) -> AbstractContextManager[Activity]:
    """Say what the present task, and each task that it creates in the body, does."""
    return _Doing(Activity(what, fields))


def expect_end(seconds: float) -> None:
    """Say that the engine cancels what the present task does after so many seconds."""
    activity = _current.get()
    if activity is not None:
        activity.ends_by = time.monotonic() + seconds


def count_stall(seconds: float, culprit: Activity | None) -> None:
    """Count a time in which the event loop was blocked."""
    _Stalls.total += seconds
    if culprit is not None:
        culprit.held += seconds


def find_lost_time() -> float:
    """Return how many seconds the task has lost by others so far. A deadline moves by what is added meanwhile.

    Others have blocked the event loop, or had all threads or connections.
    """
    activity = _current.get()
    if activity is None:
        return _Stalls.total
    since = activity.waits_since
    waiting = 0.0 if since is None else time.monotonic() - since
    return _Stalls.total - activity.held + activity.waited + waiting


def current_activity() -> Activity | None:
    """Return what the present task does, if it was said."""
    return _current.get()


def make_task(loop: asyncio.AbstractEventLoop, coroutine: Any, /, **options: Any) -> asyncio.Task[Any]:
    """Make a task that does what its maker does: a task factory. A task's context cannot be read before Python 3.12."""
    task = _Task(coroutine, loop=loop, **options)
    task.activity = _current.get()
    return task


def find_activity(task: asyncio.Task[Any] | None) -> Activity | None:
    """Return what a task does, if it was said."""
    if isinstance(task, _Task):
        return task.activity
    return None if task is None else _by_other_task.get(task)


def _set_activity(task: asyncio.Task[Any], activity: Activity | None) -> None:
    if isinstance(task, _Task):
        task.activity = activity
    elif activity is None:
        _by_other_task.pop(task, None)
    else:
        _by_other_task[task] = activity


def format_seconds(span: float) -> str:
    """Return a duration for a sentence."""
    return f"{span:.1f} s" if span < 10 else f"{span:.0f} s"  # noqa: PLR2004 - below ten seconds a tenth matters
