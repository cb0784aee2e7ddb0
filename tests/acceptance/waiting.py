"""Waiting for something that happens in another program: always with a deadline, never a fixed sleep."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 180.0
"""Seconds until a test gives up. It guards against hanging: a busy machine is slow, and what is right comes much sooner."""


def until(condition: Callable[[], T], what: str, seconds: float = PATIENCE, every: float = 0.03) -> T:
    """Ask again and again until the answer is true, and return it.

    The longer it takes, the less often it asks: asking takes time from what is awaited.

    Raises:
        AssertionError: it did not happen in time; the text says what, and what was last seen.
    """
    began = time.monotonic()
    while True:
        answer = condition()
        if answer:
            return answer
        waited = time.monotonic() - began
        if waited > seconds:
            raise AssertionError(f"waited {seconds:g} s in vain for: {what} (last seen: {answer!r})")
        time.sleep(max(every, min(waited / 20, 0.25)))


def throughout(condition: Callable[[], object], what: str, seconds: float) -> None:
    """Watch for a while that something stays true. For what must *not* happen there is no event to wait for."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert condition(), f"did not stay true for {seconds:g} s: {what}"
        time.sleep(0.05)
