"""Calling what authors have written: steps, forms, run predicates and authorisation callbacks.

Such a function may raise anything, sys.exit() included, may block, and may never end. Whoever calls it serves others as well,
so here it gets a task or a thread of its own, a deadline, and an end that is a value.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import sysconfig
import traceback
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

import structlog

from orchestrator.errors import DefinitionError, OrchestratorError
from orchestrator.text import class_and_message

logger = structlog.get_logger(__name__)

CANCEL_GRACE = 5.0
"""Seconds that a function gets to end after it was cancelled; then it is left behind."""

DOOR_TIMEOUT = 30.0
"""Seconds that a form, predicate or authorisation callback gets. Somebody waits for the answer, with a connection to the
database held for it; work that takes longer belongs into a step."""


@dataclass(frozen=True, slots=True)
class Raised:
    """What a function raised, as a value.

    Out of a task, SystemExit and KeyboardInterrupt end the whole program; out of a thread, asyncio replaces a TimeoutError
    by one without traceback, takes a CancelledError for a cancellation of ours, and waits for ever after a StopIteration.
    """

    error: BaseException


class _Ended(Enum):
    OVERDUE = 1
    CANCELLED = 2


OVERDUE: Final = _Ended.OVERDUE
"""The function did not end in time and was cancelled."""

CANCELLED: Final = _Ended.CANCELLED
"""The function has cancelled itself."""


class ExitedError(RuntimeError):
    """An author's function raised what is meant to end a program."""


async def run(
    function: Callable[[], object], *, is_async: bool, seconds: float, what: str, threads: Executor | None = None
) -> object:
    """Call a function and wait for its end.

    Args:
        is_async: whether it may be called on the event loop; else it runs in a thread. What it returns is awaited if need be.
        seconds: after these it is cancelled.
        what: names it in the log.
        threads: default those of the event loop.

    Returns:
        What it returned, or :class:`Raised`, :data:`OVERDUE` or :data:`CANCELLED`.
    """
    # In a task of its own, so that what ignores its cancellation cannot hold us.
    task = asyncio.create_task(_outcome(function, is_async, threads))
    try:
        finished, _ = await asyncio.wait({task}, timeout=seconds)
    except asyncio.CancelledError:
        await _cancel(task, what)
        raise
    if not finished:
        await _cancel(task, what)
        return OVERDUE
    return CANCELLED if task.cancelled() else task.result()


async def in_thread(function: Callable[[], object], threads: Executor | None = None) -> object:
    """Call a plain function in a thread, in this context; what it raises is returned as :class:`Raised`."""
    context = contextvars.copy_context()
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(threads, lambda: context.run(_guarded, function))


async def ask(
    function: Callable[[], object],
    what: str,
    *,
    is_async: bool,
    is_outage: Callable[[BaseException], bool] = lambda _: False,
) -> object:
    """Call a function on behalf of somebody who waits for the answer; errors of the engine go through.

    Args:
        what: names it in error texts.
        is_outage: tells an error of our own servers, which goes through: who asked waits until they are back.

    Raises:
        DefinitionError: it raised something, or did not end in time; the log has the traceback.
    """
    outcome = await run(function, is_async=is_async, seconds=DOOR_TIMEOUT, what=what)
    if outcome is OVERDUE:
        raise DefinitionError(f"{what} was cancelled: it ran longer than {DOOR_TIMEOUT:g} s")
    if outcome is CANCELLED:
        raise DefinitionError(f"{what} cancelled itself")
    if not isinstance(outcome, Raised):
        return outcome
    error = outcome.error
    if isinstance(error, OrchestratorError) or is_outage(error):
        raise error
    logger.error("an author's function raised", what=what, exc_info=error)
    raise DefinitionError(f"{what} raised {class_and_message(error)}") from error


def as_error(raised: Raised, what: str) -> Exception:
    """The error that may leave a task or a thread for what a function raised."""
    match raised.error:
        case SystemExit() as error:
            return _caused(ExitedError(f"{what} called sys.exit({error.code!r})"), error)
        case StopIteration() as error:
            return _caused(RuntimeError(f"{what} raised StopIteration"), error)
        case Exception() as error:
            return error
        case error:
            return _caused(ExitedError(f"{what} raised {type(error).__name__}"), error)


def words_and_place(error: BaseException) -> str:
    """As :func:`words`, with :func:`place`, and with what an author has probably done."""
    if isinstance(error, SyntaxError) and error.filename is not None:
        # Its own text has the file without its folder.
        return f"{type(error).__name__}: {error.msg}{place(error)}"
    advice = _ADVICE.get(str(error)) if isinstance(error, TypeError) else None
    return f"{class_and_message(error)}{f'; {advice}' if advice else ''}{place(error)}"


def place(error: BaseException) -> str:
    """The file and line of the author's own code that an error comes from, in brackets; empty if it comes from none."""
    if isinstance(error, SyntaxError) and error.filename is not None:
        return f" ({_shown(error.filename)}, line {error.lineno})"
    own = [one for one in traceback.extract_tb(error.__traceback__) if _is_of_author(one.filename)]
    return f" ({_shown(own[-1].filename)}, line {own[-1].lineno})" if own else ""


_ADVICE = {
    f"{kind!r} object is not callable": "write the name of the step or of the steps without parentheses"
    for kind in ("Step", "StepList")
}
"""What an author has probably done, by what Python says of it."""

_NOT_OF_AUTHORS = (Path(__file__).resolve().parent, Path(sysconfig.get_path("stdlib")).resolve())


def _is_of_author(file: str) -> bool:
    """Whether a file is neither the engine's nor a library's, nor made up by Python."""
    path = Path(file).resolve()
    return (
        not file.startswith("<")
        and {"site-packages", "dist-packages"}.isdisjoint(path.parts)
        and not any(path.is_relative_to(folder) for folder in _NOT_OF_AUTHORS)
    )


def _shown(file: str) -> str:
    """A file as people know it: from the folder in which they work."""
    path = Path(file)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


async def _outcome(function: Callable[[], object], is_async: bool, threads: Executor | None) -> object:
    try:
        made = function() if is_async else await in_thread(function, threads)
        # A singledispatch may have both kinds of functions behind it.
        return await made if inspect.isawaitable(made) else made
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        return Raised(error)


def _guarded(function: Callable[[], object]) -> object:
    try:
        return function()
    except BaseException as error:
        return Raised(error)


def _caused(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


async def _cancel(task: asyncio.Future[object], what: str) -> None:
    task.cancel()
    _, running = await asyncio.wait({task}, timeout=CANCEL_GRACE)
    if running:
        logger.error("left behind: it ignores its cancellation", what=what)
    elif not task.cancelled():
        task.exception()
