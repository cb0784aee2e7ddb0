"""Notice, from a thread, that an event loop does not respond, and say what blocks it.

One function that does not await – ``time.sleep``, a library without async – stops everything in its program: other steps,
messages, timeouts, signals. Nothing on the loop can notice that while it lasts.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import structlog

from orchestrator.activity import Activity, Blockage, count_stall, find_activity, make_task
from orchestrator.diagnostics import read_thread

logger = structlog.get_logger(__name__)

SAMPLE = 0.25
"""Seconds between two looks at the loop."""

BLOCKED_AFTER = 1.0
"""Seconds without a response after which a loop is called blocked."""

RARELY = 60.0
"""Seconds between two reports of one blockage, at most; at first they come after 1, 2, 4, 8 … seconds."""

RECENT = 60.0
"""Seconds for which a blockage that is over may still be the cause of a lost connection or a missed deadline."""

OVERDUE_GRACE = 5.0
"""Seconds beyond its deadline that a call may block the loop which would have cancelled it."""

ADVICE = "use a plain function (def), or await; see docs/async-or-plain.md"
OVERLOADED_ADVICE = (
    "more consumers help, a smaller --concurrency, or a machine that is less busy; see docs/async-or-plain.md"
)


class LoopWatch:
    """A daemon thread that asks an event loop for a sign of life several times a second.

    Args:
        loop: runs in the thread that makes this object.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._thread_id = threading.get_ident()
        self._ended = threading.Event()
        self._asked_at: float | None = None
        self._present: Blockage | None = None
        self._past: tuple[float, Blockage] | None = None
        self._next_report = BLOCKED_AFTER
        self._task: asyncio.Task[Any] | None = None
        self._task_since = 0.0
        self._culprit: Activity | None = None
        self._give_up: Callable[[], None] | None = None
        self._stop_reported = False
        self.stop_requested = False
        """Set when a signal has asked the program to stop, which a blocked loop cannot notice."""
        self.users = 0

    def start(self) -> None:
        """Start the thread."""
        self._loop.set_task_factory(make_task)
        threading.Thread(target=self._run, name="loop-watch", daemon=True).start()

    def end(self) -> None:
        """Let the thread end."""
        self._ended.set()

    def end_program_with(self, give_up: Callable[[], None]) -> None:
        """Call this function, in the thread, when a step blocks the loop beyond the deadline at which it would be cancelled."""
        self._give_up = give_up

    @property
    def blockage(self) -> Blockage | None:
        """What blocks the loop now, if it has not responded for :data:`BLOCKED_AFTER`."""
        return self._present

    @property
    def unresponsive_for(self) -> float:
        """Seconds for which the loop has not responded."""
        asked_at = self._asked_at
        return 0.0 if asked_at is None else time.monotonic() - asked_at

    def recent(self) -> Blockage | None:
        """Return what blocks the loop or has blocked it a short while ago."""
        if self._present is not None:
            return self._present
        if self._past is not None and time.monotonic() - self._past[0] < RECENT:
            return self._past[1]
        return None

    def _run(self) -> None:
        before, used = time.monotonic(), time.process_time()
        while not self._ended.wait(SAMPLE):
            now = time.monotonic()
            try:
                if now - before > SAMPLE + BLOCKED_AFTER:
                    self._stood_still(now - before - SAMPLE, time.process_time() - used, now)
                else:
                    self._look(now)
            except RuntimeError:
                return  # the loop is closed
            except Exception:
                logger.exception("the event loop's watch has failed once")
            before, used = now, time.process_time()

    def _look(self, now: float) -> None:
        if self._asked_at is None:
            self._asked_at = now
            self._task_since = now
            self._task = None
            self._loop.call_soon_threadsafe(self._respond)
            return
        waited = now - self._asked_at
        task = asyncio.current_task(self._loop)
        if task is not self._task and waited > 1.5 * SAMPLE:
            self._task_since = now
        self._task = task
        if waited < BLOCKED_AFTER:
            return
        found, activity = self._describe(task, waited)
        self._present, self._culprit = found, activity
        held = now - self._task_since
        if activity is not None and held >= BLOCKED_AFTER - SAMPLE:
            _remember(activity, Blockage(max(held, BLOCKED_AFTER), found.by, found.at, found.stack, found.fields))
        if waited >= self._next_report:
            self._next_report = min(2 * self._next_report, self._next_report + RARELY)
            # Without a task the loop itself waits: for its turn, which busy threads take.
            is_one = held > waited / 2 and (activity is not None or found.at is not None)
            event = "event loop blocked" if is_one else "event loop overloaded"
            advice = ADVICE if is_one else OVERLOADED_ADVICE
            logger.warning(event, seconds=round(waited, 1), **_fields(found) | {"advice": advice})
        if self.stop_requested and not self._stop_reported:
            self._stop_reported = True
            logger.warning("stopping when the event loop responds; a second signal ends the program at once")
        ends_by = activity.ends_by if activity is not None and activity.ends_program else None
        is_overdue = ends_by is not None and now > ends_by + OVERDUE_GRACE and held > OVERDUE_GRACE
        if is_overdue and self._give_up is not None:
            logger.critical("event loop blocked beyond the deadline of a call: the program ends", **_fields(found))
            self._give_up()

    def _respond(self) -> None:
        """On the loop: it responds."""
        asked_at, self._asked_at = self._asked_at, None
        found, self._present = self._present, None
        reported, self._next_report = self._next_report > BLOCKED_AFTER, BLOCKED_AFTER
        if asked_at is None or found is None:
            return
        now = time.monotonic()
        found = Blockage(now - asked_at, found.by, found.at, found.stack, found.fields)
        self._past = now, found
        count_stall(found.seconds, self._culprit)
        if reported:
            logger.warning("event loop responds again", after=round(found.seconds, 1), by=found.by, **found.fields)

    def _stood_still(self, seconds: float, used: float, now: float) -> None:
        """Report that this thread, too, could not run: the machine stood still, or code holds the interpreter's lock."""
        task = asyncio.current_task(self._loop)
        if used > seconds / 2:
            found, activity = self._describe(task, seconds)
            event = "the program stood still: code that does not release Python's global lock"
            logger.warning(event, seconds=round(seconds, 1), **_fields(found))
            self._past = now, found
            count_stall(seconds, activity)
            if activity is not None:
                _remember(activity, found)
        else:
            logger.warning("the program stood still: the machine was stopped or overloaded", seconds=round(seconds, 1))
        if self._asked_at is not None:
            self._asked_at = self._task_since = now

    def _describe(self, task: asyncio.Task[Any] | None, seconds: float) -> tuple[Blockage, Activity | None]:
        activity = find_activity(task)
        stack = read_thread(self._thread_id)
        by, fields = (None, {}) if activity is None else (activity.what, activity.fields)
        return Blockage(seconds, by, stack.at, stack.frames, fields), activity


def _remember(activity: Activity, found: Blockage) -> None:
    if activity.blocked is None or activity.blocked.seconds < found.seconds:
        activity.blocked = found


def _fields(found: Blockage) -> dict[str, object]:
    return {"by": found.by, "at": found.at, "frames": list(found.stack), "advice": ADVICE, **found.fields}


_watches: dict[asyncio.AbstractEventLoop, LoopWatch] = {}


@contextmanager
def watch_loop() -> Iterator[LoopWatch]:
    """Watch the running loop in the body. Programs that share a loop share its watch."""
    loop = asyncio.get_running_loop()
    watch = _watches.get(loop)
    if watch is None:
        watch = _watches[loop] = LoopWatch(loop)
        watch.start()
    watch.users += 1
    try:
        yield watch
    finally:
        watch.users -= 1
        if not watch.users:
            watch.end()
            del _watches[loop]


def request_stop(loop: asyncio.AbstractEventLoop) -> None:
    """Note that a signal has asked the program of this loop to stop. May be called by a signal's handler."""
    watch = _watches.get(loop)
    if watch is not None:
        watch.stop_requested = True


def with_blockage(event: str) -> str:
    """Return a log line about a server that does not answer, with the blockage of this program's loop that may be the cause."""
    watch = _watches.get(asyncio.get_running_loop())
    found = None if watch is None else watch.recent()
    if found is None:
        return event
    return f"{event} – or this program could not listen, because its event loop was {found}"
