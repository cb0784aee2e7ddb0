"""Notice that a function has called an async one and has not awaited it.

Python only warns of that, on standard error, when the coroutine is thrown away: what it should have done – a write to the
database, say – never happens, and the function ends as if it had.
"""

from __future__ import annotations

import gc
import sys
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from contextvars import ContextVar
from functools import cache
from opcode import opmap
from types import CoroutineType
from typing import Any

from orchestrator.diagnostics import find_place_of_author

_found: ContextVar[list[str] | None] = ContextVar("found", default=None)
_HOOK = "_warn_unawaited_coroutine"
"""What the interpreter calls, the only place that knows the coroutine. Without it Python warns as ever, and nothing is found."""

_python_warns: Callable[[CoroutineType[Any, Any, Any]], None] | None = getattr(warnings, _HOOK, None)
_POP_TOP = opmap["POP_TOP"]
"""The instruction by which a function throws away the value of a call that stands by itself."""

_collecting_garbage = False


def collect_unawaited() -> AbstractContextManager[list[str]]:
    """Collect, as texts, the calls in this context whose coroutines user code throws away at once.

    A coroutine that stays in a variable is not found: using what it should have returned raises.
    """
    return _Collecting()


class _Collecting:
    """Collects in a block; not a generator, because each step has one."""

    __slots__ = ("_token",)

    def __enter__(self) -> list[str]:
        _watch()
        found: list[str] = []
        self._token = _found.set(found)
        return found

    def __exit__(self, *_: object) -> None:
        _found.reset(self._token)


def _report(coroutine: CoroutineType[Any, Any, Any]) -> None:
    found = _found.get()
    # What a garbage collection throws away may be anybody's, and what goes with an error that was caught a library's.
    if found is not None and not _collecting_garbage:
        frame = sys._getframe(1)  # noqa: SLF001 - documented, and the only way to the caller
        place = find_place_of_author(frame)
        if place is not None and frame.f_code.co_code[frame.f_lasti] == _POP_TOP:
            found.append(f"{coroutine.__qualname__}() {place}")
            return
    if getattr(coroutine, "cr_origin", None) is not None and _python_warns is not None:
        _python_warns(coroutine)  # it also says where the coroutine was made, which asyncio's debug mode keeps
        return
    # Not by Python's function, which would name this line as the place.
    text = f"coroutine {coroutine.__qualname__!r} was never awaited"
    warnings.warn(text, RuntimeWarning, stacklevel=2, source=coroutine)


def _watch_collections(phase: str, _: dict[str, int]) -> None:
    global _collecting_garbage  # noqa: PLW0603 - of the interpreter, there is one
    _collecting_garbage = phase == "start"


@cache
def _watch() -> None:
    """From the first call on, have the interpreter report to this module."""
    if _python_warns is not None:
        setattr(warnings, _HOOK, _report)
        gc.callbacks.append(_watch_collections)
