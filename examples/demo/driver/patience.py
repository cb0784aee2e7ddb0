"""How long the demo waits: as long as something happens. A slow machine may take its time; silence is a failure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from .errors import DemoError

SILENCE = 60
"""Seconds. The longest pause of a run that goes well is 10 s, until the consumer that was killed is presumed dead."""


class Patience:
    """A limit on the time between two signs of life (a line printed, an event, a check), and none on the whole run."""

    def __init__(self, silence: float = SILENCE) -> None:
        self._silence = silence
        self._awaited: list[str] = []
        self._limit: asyncio.Timeout | None = None

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[None]:
        """Cancel the block when there is no sign of life.

        Raises:
            DemoError: there was none; the text names what was awaited.
        """
        self._awaited.clear()
        try:
            async with asyncio.timeout(self._silence) as self._limit:
                yield
        except TimeoutError:
            if self._limit is None or not self._limit.expired():
                raise
            awaited = "; ".join(self._awaited) or "nothing in particular"
            raise DemoError(f"no sign of life for {self._silence:g} s. Awaited: {awaited}") from None
        finally:
            self._limit = None

    def sign(self) -> None:
        """Note a sign of life."""
        if self._limit is not None:
            now = asyncio.get_running_loop().time()
            if now < (self._limit.when() or 0):  # past the limit the run is being cancelled
                self._limit.reschedule(now + self._silence)

    @contextmanager
    def awaiting(self, what: str) -> Iterator[None]:
        """Name what the block waits for."""
        self._awaited.append(what)
        yield
        self._awaited.remove(what)  # unless it was cancelled: then the error names it
