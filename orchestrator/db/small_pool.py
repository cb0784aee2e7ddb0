"""The pool of connections for the engine's own statements, which gives connections back in the task that has used them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any

import asyncpg

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    _Pool = asyncpg.Pool[asyncpg.Record]
else:  # asyncpg's classes are generic in its stubs only
    _Pool = asyncpg.Pool


class SmallPool(_Pool):
    """A pool of asyncpg's that opens connections when they are needed.

    Args:
        connections: how many at most.
        connect: opens one.
        reset: gets each connection that comes back.
    """

    def __init__(
        self,
        connections: int,
        *,
        connect: Callable[..., Coroutine[Any, Any, Any]],
        reset: Callable[[Any], Awaitable[None]],
    ) -> None:
        super().__init__(
            # With a floor, asyncpg restores it by itself: in an outage one more attempt, and a traceback in the log, for each
            # of ours that fails. Ours log the outage, and connect again.
            min_size=0,
            max_size=connections,
            # Our statements leave no session state behind, and asyncpg's reset would be one more round trip per statement.
            reset=reset,
            connect=connect,
            # The defaults of asyncpg.create_pool().
            max_queries=50_000,
            max_inactive_connection_lifetime=300.0,
            loop=None,
            connection_class=asyncpg.Connection,
            record_class=asyncpg.Record,
        )

    async def release(
        self,
        connection: PoolConnectionProxy[asyncpg.Record],
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - asyncpg's
    ) -> None:
        """Give a connection back; the library does so in a task of its own, which cancellations do not reach.

        That costs three turns of the event loop for each statement, and is needed only where the server has to say something, or
        where others wait: a task that goes on without a pause would take the connection again before them.
        """
        # Its private parts, as in the library's own method.
        used = connection._con  # type: ignore[attr-defined]  # noqa: SLF001
        if used is None or used._protocol._is_cancelling() or self._is_waited_for():  # noqa: SLF001
            await super().release(connection, timeout=timeout)
        else:
            used._on_release()  # noqa: SLF001
            # Whatever it waits for here ends the connection when this task is cancelled, and so frees its place, too.
            await connection._holder.release(timeout)  # noqa: SLF001

    def _is_waited_for(self) -> bool:
        # asyncio's queues have it, and no other way to ask.
        return bool(self._queue._getters)  # type: ignore[attr-defined]  # noqa: SLF001
