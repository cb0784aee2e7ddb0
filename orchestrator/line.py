"""A FIFO line of waiting tasks, which are released one by one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class Line:
    """Tasks that wait, in order. The line is true while a task waits in it."""

    def __init__(self) -> None:
        self._turns: deque[asyncio.Future[None]] = deque()

    def __bool__(self) -> bool:
        while self._turns and self._turns[0].cancelled():
            self._turns.popleft()
        return bool(self._turns)

    async def wait(self, give_back: Callable[[], object]) -> None:
        """Wait behind the others until this task is released.

        Args:
            give_back: called when the task was cancelled at the moment of its release, to return what it was released with.
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
        """Release the first task of the line; there must be one."""
        self._turns.popleft().set_result(None)
