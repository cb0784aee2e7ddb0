"""Know for how long a connection has waited for an answer.

The client library does not say, and cannot be made to stop waiting: a command that is cancelled waits for the server's word that
it was, and giving a connection back to the pool waits for that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from orchestrator.sockets import silent_for


def _timed(name: str) -> Callable[..., Awaitable[Any]]:
    async def ask(self: Asking, *arguments: Any, **options: Any) -> Any:
        self._asked, self._is_waiting = self._now(), True
        try:
            return await getattr(self._protocol, name)(*arguments, **options)
        finally:
            self._is_waiting = False

    return ask


class Asking:
    """Stands before the protocol of a connection and notes when a command was sent that has no answer yet."""

    __slots__ = (
        "_asked",
        "_get_timeout",
        "_is_cancelling",
        "_is_waiting",
        "_now",
        "_protocol",
        "_transport",
        "is_connected",
    )

    def __init__(self, connection: Any) -> None:
        self._protocol = connection._protocol  # noqa: SLF001 - nothing public knows whether a command is on its way
        self._transport = connection._transport  # noqa: SLF001
        self._now = asyncio.get_running_loop().time
        # Asked for by the library with each command, and then found sooner than by __getattr__.
        self._get_timeout = self._protocol._get_timeout  # noqa: SLF001
        self._is_cancelling = self._protocol._is_cancelling  # noqa: SLF001
        self.is_connected = self._protocol.is_connected
        self._asked = 0.0
        self._is_waiting = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._protocol, name)

    def waits_for(self) -> float:
        """Return for how many seconds the server has owed an answer and sent nothing; 0 when it owes none."""
        if not self.is_connected() or not (self._is_waiting or self._is_cancelling()):
            return 0.0
        waited = self._now() - self._asked
        silent = silent_for(self._transport.get_extra_info("socket"))
        return waited if silent is None else min(waited, silent)

    # What the library calls, and what waits for the server.
    query = _timed("query")
    prepare = _timed("prepare")
    bind_execute = _timed("bind_execute")
    bind_execute_many = _timed("bind_execute_many")
    bind = _timed("bind")
    execute = _timed("execute")
    copy_out = _timed("copy_out")
    copy_in = _timed("copy_in")
    close_portal = _timed("close_portal")
    close_statement = _timed("close_statement")
    close = _timed("close")
