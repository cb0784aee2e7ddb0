"""How long the demo waits: as long as something happens. A slow machine may take its time; silence is a failure."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

SILENCE = 60
"""Seconds. The longest pause of a run that goes well is 10 s, until the consumer that was killed is presumed dead."""

Found = TypeVar("Found")


class DemoError(Exception):
    """Something is not as it should be; the text says what, to a person."""


class Patience:
    """A limit on the time between two signs of life (a line printed, an event, a check), and none on the whole run."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._clock, self._sleep = clock, sleep
        self._last_sign = clock()

    def sign(self) -> None:
        """Note a sign of life."""
        self._last_sign = self._clock()

    def until(self, what: str, condition: Callable[[], Found | None]) -> Found:
        """Wait for a condition; return what it found.

        Raises:
            DemoError: there was no sign of life for too long.
        """
        self.sign()
        while not (found := condition()):
            if self._clock() - self._last_sign > SILENCE:
                raise DemoError(f"no sign of life for {SILENCE} s. Awaited: {what}")
            self._sleep(0.1)
        return found
