"""Find out whose error it is – the author's, our own servers', another system's – and at which line it was raised.

The classes that a client library raises stand with the package that uses it: ``db.session`` and ``broker.connection``. The class
alone is not enough: authors may use the same libraries for servers of their own, and both clients raise plain ``OSError``.
"""

from __future__ import annotations

import asyncio
import sys
import sysconfig
import traceback
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from orchestrator.text import format_error, sanitise

_OWN = "orchestrator_own"

_ADVICE = {
    f"{kind!r} object is not callable": "write the name of the step or of the steps without parentheses"
    for kind in ("Step", "StepList")
}
"""Probable mistakes of authors, by Python's error text."""

_HERE = Path(__file__).resolve().parent
_STDLIB = Path(sysconfig.get_path("stdlib")).resolve()
_NOT_OF_AUTHORS = (_HERE, _HERE.parent / "consumers", _STDLIB)
_ENGINE = {"orchestrator", "consumers"}
_NEUTRAL = sys.stdlib_module_names | {"uvloop"}


_WAITING, _MOST_WAITING = 4, 30
"""Functions that are kept of each task that waits, and tasks."""

_OUTER, _INNER = 3, 9
"""Functions of a deep stack that are kept, at its two ends."""


@dataclass(frozen=True, slots=True)
class Stack:
    """The functions that a thread is in, the outermost first, and the author's line among them."""

    at: str | None
    frames: tuple[str, ...]


def mark_own(error: BaseException) -> None:
    """Mark an error as raised by a connection of ours."""
    setattr(error, _OWN, True)


def is_own(error: BaseException) -> bool:
    """Return whether an error was marked by :func:`mark_own`."""
    return bool(getattr(error, _OWN, False))


def comes_from(error: BaseException, package: str, client: Collection[str]) -> bool:
    """Return whether a client library raised an error in a call of the engine's, or our ``package`` reports a lost connection.

    The nearest caller that belongs to neither the library nor Python decides, because an author's module may use the same
    library.
    """
    by_client = _top(type(error).__module__) in client
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    for frame in reversed(frames):
        module = str(frame.f_globals.get("__name__", ""))
        if _top(module) in _NEUTRAL:
            continue
        if _top(module) in client:
            by_client = True
            continue
        reported = module.startswith(f"{package}.") and isinstance(error, OSError)
        return _top(module) in _ENGINE and (by_client or reported)
    return by_client


def describe(error: BaseException) -> str:
    """Return an error's class and message, a hint at the author's probable mistake, and :func:`locate`."""
    if isinstance(error, SyntaxError) and error.filename is not None:
        # Its own text has the file without its folder.
        return f"{type(error).__name__}: {error.msg}{locate(error)}"
    advice = _ADVICE.get(str(error)) if isinstance(error, TypeError) else None
    if isinstance(error, ModuleNotFoundError) and error.name:
        advice = f"it was looked for in {_searched(error.name)}"
    return f"{format_error(error)}{f'; {advice}' if advice else ''}{locate(error)}"


def _searched(module: str) -> str:
    """Return the folders in which a module was looked for, without Python's own."""
    package = sys.modules.get(module.rpartition(".")[0])
    folders = [Path(one).absolute() for one in getattr(package, "__path__", sys.path)]
    own = [one for one in folders if one.suffix != ".zip" and not _is_of_python(one)]
    return ", ".join(sanitise(str(one)) for one in dict.fromkeys(own)) or "no folder"


def _is_of_python(folder: Path) -> bool:
    return folder.is_relative_to(_STDLIB) and "site-packages" not in folder.parts


def locate(error: BaseException) -> str:
    """Return the file and line of user code that an error comes from, in brackets; empty if it comes from none."""
    if isinstance(error, SyntaxError) and error.filename is not None:
        return f" ({_relative(error.filename)}, line {error.lineno})"
    own = [one for one in traceback.extract_tb(error.__traceback__) if _is_of_author(one.filename)]
    return f" ({_relative(own[-1].filename)}, line {own[-1].lineno})" if own else ""


def find_place_of_author(frame: FrameType) -> str | None:
    """Return the file and line at which a function stands, in brackets, if it is an author's."""
    name = frame.f_code.co_filename
    return f"({_relative(name)}, line {frame.f_lineno})" if _is_of_author(name) else None


def read_stack(frame: FrameType | None) -> Stack:
    """Return the functions that a thread is in, from the author's that the engine has called; never their values."""
    frames: list[FrameType] = []
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    frames.reverse()
    engine = [number for number, one in enumerate(frames) if _module(one) in _ENGINE]
    first = engine[0] if engine else 0
    authors = [number for number, one in enumerate(frames) if number > first and _is_of_author(one.f_code.co_filename)]
    innermost = authors[-1] if authors else len(frames)
    frames = frames[max((number for number in engine if number < innermost), default=-1) + 1 :] or frames[-1:]
    # A task that an author's function has created is called by Python's event loop, not by the engine.
    while len(frames) > 1 and _module(frames[0]) in _NEUTRAL:
        frames.pop(0)
    at = next((one for one in reversed(frames) if _is_of_author(one.f_code.co_filename)), frames[0] if frames else None)
    shown = [_place(one) for one in frames]
    if len(shown) > _OUTER + _INNER:
        shown[_OUTER:-_INNER] = ["…"]
    is_own = at is None or _module(at) in _ENGINE | _NEUTRAL
    return Stack(None if at is None or is_own else _place(at), tuple(shown))


def read_thread(thread_id: int | None) -> Stack:
    """Return the functions that a thread is in at this moment; of one that has ended, none."""
    frames = sys._current_frames()  # noqa: SLF001 - the only way to another thread's frames
    return read_stack(None if thread_id is None else frames.get(thread_id))


def read_waiting(loop: asyncio.AbstractEventLoop) -> list[str]:
    """Return what each task of an event loop waits for: the engine's or the author's innermost lines; never their values."""
    found: list[str] = []
    for task in asyncio.all_tasks(loop):
        places = [_place(frame) for frame in _walk(task.get_coro()) if _module(frame) not in _NEUTRAL]
        if places:
            found.append(" > ".join(places[-_WAITING:]))
    return sorted(found)[:_MOST_WAITING]


def find_waiting(call: object) -> str | None:
    """Return the author's line at which a coroutine waits, the innermost; ``None`` while it runs, or if none is known."""
    places = [frame for frame in _walk(call) if _is_of_author(frame.f_code.co_filename)]
    return _place(places[-1]) if places else None


def _walk(call: Any) -> Iterator[FrameType]:
    """Yield the frames of a coroutine, and of what it awaits, and so on."""
    while call is not None:
        frame = getattr(call, "cr_frame", None) or getattr(call, "ag_frame", None) or getattr(call, "gi_frame", None)
        if frame is not None:
            yield frame
        call = getattr(call, "cr_await", None) or getattr(call, "ag_await", None) or getattr(call, "gi_yieldfrom", None)


def _place(frame: FrameType) -> str:
    return sanitise(f"{_relative(frame.f_code.co_filename)}:{frame.f_lineno} in {frame.f_code.co_qualname}")[-200:]


def _module(frame: FrameType) -> str:
    return _top(str(frame.f_globals.get("__name__", "")))


def _is_of_author(file: str) -> bool:
    """Return whether a file is neither the engine's nor a library's nor generated by Python."""
    path = Path(file).resolve()
    return (
        not file.startswith("<")
        and {"site-packages", "dist-packages"}.isdisjoint(path.parts)
        and not any(path.is_relative_to(folder) for folder in _NOT_OF_AUTHORS)
    )


def _relative(file: str) -> str:
    path = Path(file)
    for name in ("site-packages", "dist-packages"):
        if name in path.parts:
            return "/".join(path.parts[path.parts.index(name) + 1 :])
    for folder in (Path.cwd(), _STDLIB):
        if path.is_relative_to(folder):
            return str(path.relative_to(folder))
    return file


def _top(module: str) -> str:
    return module.partition(".")[0]
