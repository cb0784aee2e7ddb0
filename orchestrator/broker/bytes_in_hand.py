"""Bound the memory that messages take: how many a program holds, and how many bytes of them it handles at once.

AMQP's prefetch counts messages, of any size, and a broker's own limit may be 128 MB or none. Decoded, a message takes ten to
fifty times as much memory as its body.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Final

IN_HAND: Final = 64 * 1024 * 1024
"""The most bytes of unacknowledged messages of one queue in a program."""

AT_ONCE: Final = 1024 * 1024
"""The most bytes of messages of one queue to decode and handle at once; a larger message is handled alone."""

SMALL: Final = 16 * 1024
"""Messages up to so many bytes wait for no others: their number is limited anyway, and nearly all messages are small."""


def bound_prefetch(prefetch: int, max_bytes: int) -> int:
    """Return how many messages of a queue a program may hold within :data:`IN_HAND` bytes; at least one."""
    return max(1, min(prefetch, IN_HAND // max_bytes))


class BytesInHand:
    """Limits the bytes of messages that are handled at the same time. Messages that do not fit wait, in their order.

    A message larger than the limit is handled while no other one of more than :data:`SMALL` bytes is.
    """

    def __init__(self) -> None:
        self._held = 0
        self._waiting: deque[tuple[int, asyncio.Event]] = deque()

    def hold(self, size: int) -> AbstractAsyncContextManager[None]:
        """Reserve the bytes of a message while it is handled."""
        return nullcontext() if size <= SMALL else self._hold(size)

    @asynccontextmanager
    async def _hold(self, size: int) -> AsyncIterator[None]:
        turn = asyncio.Event()
        entry = (size, turn)
        self._waiting.append(entry)
        self._admit()
        try:
            await turn.wait()
            yield
        finally:
            if turn.is_set():
                self._held -= size
            else:
                self._waiting.remove(entry)
            self._admit()

    def _admit(self) -> None:
        while self._waiting and (not self._held or self._held + self._waiting[0][0] <= AT_ONCE):
            size, turn = self._waiting.popleft()
            self._held += size
            turn.set()
