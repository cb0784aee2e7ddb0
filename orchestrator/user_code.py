"""Call the functions of workflow authors: steps, forms, run predicates and authorization callbacks.

Such a function may raise anything, sys.exit() included, may block, and may never end. The program that calls it serves other
processes as well, so the function gets a task or a thread of its own and a deadline, and its outcome is a value.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Final

import structlog

from orchestrator.activity import current_activity, expect_end, find_lost_time
from orchestrator.bridge import Bridge, drive
from orchestrator.diagnostics import read_thread
from orchestrator.errors import DefinitionError, OrchestratorError
from orchestrator.forked import end_if_forked
from orchestrator.text import format_error
from orchestrator.threads import Threads

logger = structlog.get_logger(__name__)

CANCEL_GRACE = 5.0
"""Seconds that a function gets to end after it was cancelled; then it is abandoned."""

LEAVE_GRACE = 0.1
"""Seconds that the thread of a plain function gets to end after its statement was cancelled; then it is left behind."""

HOOK_TIMEOUT = 30.0
"""Seconds that a form, predicate or authorization callback gets. A request waits for it and holds a database connection; work
that takes longer belongs into a step."""

HOOK_THREADS = Threads("hook", 32, patience=HOOK_TIMEOUT)
"""For plain functions outside of steps. Not the event loop's own threads: those look up the names of hosts."""


@dataclass(frozen=True, slots=True)
class Raised:
    """The error that a function raised, as a value.

    Raised out of a task, SystemExit and KeyboardInterrupt end the whole program. Raised out of a thread, a TimeoutError loses
    its traceback, a CancelledError looks like a cancellation of ours, and a StopIteration makes asyncio wait for ever.
    """

    error: BaseException


class _Ended(Enum):
    OVERDUE = 1
    CANCELLED = 2


OVERDUE: Final = _Ended.OVERDUE
"""The function did not end in time and was cancelled."""

CANCELLED: Final = _Ended.CANCELLED
"""The function cancelled itself."""


class ExitedError(RuntimeError):
    """An author's function raised an exception that is meant to end a program."""


async def run(
    function: Callable[[], object], *, is_async: bool, seconds: float, what: str, threads: Threads = HOOK_THREADS
) -> object:
    """Call a function and wait until it ends.

    Args:
        is_async: whether it may be called on the event loop; otherwise it runs in a thread. An awaitable result is awaited.
        seconds: the function is cancelled after this time. Time in which others block the event loop does not count, nor does
            time in which it waits for a thread. A thread cannot be cancelled: what it wants of the loop is refused from then on.
        what: names the function in the log.
        threads: in which a plain function runs.

    Returns:
        Its result, or :class:`Raised`, :data:`OVERDUE` or :data:`CANCELLED`.
    """
    # In a task of its own, so that a function which ignores its cancellation cannot block us.
    task = asyncio.create_task(_call(function, is_async, threads, what))
    activity = current_activity()
    if activity is not None:
        activity.call = task
    try:
        try:
            is_over = await _wait(task, seconds)
        except asyncio.CancelledError:
            await _cancel(task, what)
            raise
        if not is_over:
            await _cancel(task, what)
            return OVERDUE
        return CANCELLED if task.cancelled() else task.result()
    finally:
        if activity is not None:
            # What a task does is known for as long as the task is there: were it in hand here, no call would ever be freed, nor
            # what it has returned.
            activity.call = None


async def run_in_thread(function: Callable[[], object], what: str, threads: Threads = HOOK_THREADS) -> object:
    """Call a plain function in a thread, in this context and with a bridge; return what it raises as :class:`Raised`.

    When this is cancelled, the bridge is closed, and a thread that goes on is left behind.

    Args:
        what: names the function in the log.
    """
    bridge = Bridge()
    activity = current_activity()
    if activity is not None:
        activity.in_line = True
        activity.begin_wait()

    def call() -> object:
        if activity is not None:
            activity.in_line = False
            activity.end_wait()
            activity.thread_id = threading.get_ident()
        bridge.enter()
        try:
            return drive(partial(_catch, function), bridge)
        finally:
            end_if_forked(what)

    work = threads.submit(contextvars.copy_context().run, call)
    ended = asyncio.wrap_future(work)
    ended.add_done_callback(lambda _: bridge.leave())
    if threads.patience is not None:
        # It cancels what has not begun, and nothing else.
        giving_up = asyncio.get_running_loop().call_later(threads.patience, work.cancel)
        ended.add_done_callback(lambda _: giving_up.cancel())
    try:
        await asyncio.wait({ended})
    except asyncio.CancelledError:
        if not work.cancel():
            await bridge.close()
            await asyncio.wait({ended}, timeout=LEAVE_GRACE)
            if not ended.done():
                threads.leave_behind(work)
                _log_left(bridge, what)
        raise
    await bridge.close()
    if ended.cancelled():
        return Raised(
            DefinitionError(
                f"{what} did not begin: no thread was free for {threads.patience:g} s; {threads.left_behind} of them run"
                " functions that should have ended, which the log names"
            )
        )
    return ended.result()


def _log_left(bridge: Bridge, what: str) -> None:
    stack = read_thread(bridge.thread_id)
    # Without its last frames it still says which of the author's functions it is.
    function = stack.frames[0] if stack.frames else None
    logger.error("thread left behind: its function goes on after its end", what=what, function=function, at=stack.at)


async def call_hook(
    function: Callable[[], object],
    what: str,
    *,
    is_async: bool,
    is_outage: Callable[[BaseException], bool] = lambda _: False,
) -> object:
    """Call a function for a request that waits for its result; re-raise the engine's own errors.

    Args:
        what: names the function in error texts.
        is_outage: recognizes an outage of our own servers, which is re-raised, so that the request is tried again.

    Raises:
        DefinitionError: the function raised, or did not end in time; the log has the traceback.
    """
    outcome = await run(function, is_async=is_async, seconds=HOOK_TIMEOUT, what=what)
    if outcome is OVERDUE:
        raise DefinitionError(f"{what} was cancelled: it ran longer than {HOOK_TIMEOUT:g} s")
    if outcome is CANCELLED:
        raise DefinitionError(f"{what} cancelled itself")
    if not isinstance(outcome, Raised):
        return outcome
    error = outcome.error
    if isinstance(error, OrchestratorError) or is_outage(error):
        raise error
    logger.error("user code raised", what=what, exc_info=error)
    raise DefinitionError(f"{what} raised {format_error(error)}") from error


def unwrap(outcome: object, what: str) -> object:
    """Return a function's result, or raise what it raised, as an error that may leave a task or a thread."""
    if isinstance(outcome, Raised):
        raise _to_error(outcome.error, what)
    return outcome


def _to_error(raised: BaseException, what: str) -> Exception:
    match raised:
        case SystemExit() as error:
            return _with_cause(ExitedError(f"{what} called sys.exit({error.code!r})"), error)
        case StopIteration() as error:
            return _with_cause(RuntimeError(f"{what} raised StopIteration"), error)
        case Exception() as error:
            return error
        case error:
            return _with_cause(ExitedError(f"{what} raised {type(error).__name__}"), error)


async def _call(function: Callable[[], object], is_async: bool, threads: Threads, what: str) -> object:
    try:
        made = function() if is_async else await run_in_thread(function, what, threads)
        # A singledispatch may have both kinds of functions.
        return await made if inspect.isawaitable(made) else made
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        return Raised(error)
    finally:
        end_if_forked(what)


def _catch(function: Callable[[], object]) -> object:
    try:
        return function()
    except BaseException as error:
        return Raised(error)


def _with_cause(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


async def _wait(task: asyncio.Future[object], seconds: float) -> bool:
    """Wait until a task has ended; return whether it has in time."""
    before = find_lost_time()
    ends_at = asyncio.get_running_loop().time() + max(seconds, 0)
    expect_end(seconds)
    # Many functions never wait, and have ended after this turn of the event loop. All the rest here is not for those.
    await asyncio.sleep(0)
    while not task.done():
        await _wait_once(task, ends_at)
        if task.done():
            break
        # The deadline of a function that could not run has not passed.
        seconds = find_lost_time() - before
        if seconds <= 0:
            return False
        before += seconds
        expect_end(seconds)
        ends_at = asyncio.get_running_loop().time() + seconds
    return True


async def _wait_once(task: asyncio.Future[object], ends_at: float) -> None:
    """Wait until a task has ended or a moment has come; ``asyncio.wait`` is for many, and each step waits for one."""
    loop = asyncio.get_running_loop()
    woken: asyncio.Future[None] = loop.create_future()

    def wake(_: object = None) -> None:
        if not woken.done():
            woken.set_result(None)

    task.add_done_callback(wake)
    timer = loop.call_at(ends_at, wake)
    try:
        await woken
    finally:
        timer.cancel()
        task.remove_done_callback(wake)


async def _cancel(task: asyncio.Future[object], what: str) -> None:
    task.cancel()
    _, running = await asyncio.wait({task}, timeout=CANCEL_GRACE)
    if running:
        logger.error("user code abandoned: it ignores its cancellation", what=what)
    elif not task.cancelled():
        task.exception()
