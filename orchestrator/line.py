"""A line of those that wait for something, who go on one after the other."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class Line:
    """Tasks that wait, in order. It is true while one of them does."""

    def __init__(self) -> None:
        self._turns: deque[asyncio.Future[None]] = deque()

    def __bool__(self) -> bool:
        while self._turns and self._turns[0].cancelled():
            self._turns.popleft()
        return bool(self._turns)

    async def wait(self, give_back: Callable[[], object]) -> None:
        """Wait, behind those that already do, until this task is let go on.

        Args:
            give_back: called when the task was cancelled in the moment in which it was let go on: for what it was let go on with.
        """
        turn = asyncio.get_running_loop().create_future()
        self._turns.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                give_back()
            raise

    def let_go_on(self) -> None:
        """Let the first task of the line go on; there must be one."""
        self._turns.popleft().set_result(None)
