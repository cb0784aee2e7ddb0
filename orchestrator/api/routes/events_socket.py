"""Tell user interfaces over a WebSocket what they must fetch again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from fastapi import WebSocket, WebSocketDisconnect
from starlette import status
from starlette.exceptions import HTTPException

from orchestrator.api.bodies import Router
from orchestrator.api.callers import Role, find_authenticator, find_websocket_caller
from orchestrator.api.context import Context
from orchestrator.api.invalidations import Waiting, message_of
from orchestrator.db.session import is_database_outage
from orchestrator.errors import RequestError
from orchestrator.stopping import wait_or_stop

router = Router()

PING, PONG = "__ping__", "__pong__"

PAUSE: Final = 0.1
"""Seconds between two batches: what becomes stale again meanwhile is said once."""

SEND_PATIENCE: Final = 20.0
"""Seconds in which a reader must take what it is sent."""

CHECK_EVERY: Final = 15.0
"""Seconds between two checks whether the caller may still read."""


@router.websocket("/ws/events")
async def tell_what_is_stale(socket: WebSocket, context: Context) -> None:
    """Send ``invalidateCache`` messages; answer ``__ping__`` with ``__pong__``."""
    try:
        caller, protocol = await find_websocket_caller(socket, Role.READ)
    except (RequestError, HTTPException):
        await socket.close(status.WS_1008_POLICY_VIOLATION)
        return
    may_read = partial(find_authenticator(socket).is_current, caller)
    await socket.accept(protocol)
    waiting = Waiting()
    async with context.live.joined(waiting):
        parts = [
            asyncio.create_task(_answer(socket)),
            asyncio.create_task(_send(socket, waiting, context.stopping, may_read)),
        ]
        try:
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            code = next(iter(done)).result()
        except (WebSocketDisconnect, TimeoutError, OSError):
            return
        except Exception as error:
            if not is_database_outage(error):
                raise
            code = status.WS_1013_TRY_AGAIN_LATER  # whether the caller may still read cannot be found out
        finally:
            for one in parts:
                one.cancel()
            await asyncio.gather(*parts, return_exceptions=True)
    await socket.close(code)


async def _answer(socket: WebSocket) -> int:
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", status.WS_1005_NO_STATUS_RCVD))
        if message.get("text") == PING:
            await socket.send_text(PONG)


async def _send(
    socket: WebSocket, waiting: Waiting, stopping: asyncio.Event, may_read: Callable[[], Awaitable[bool]]
) -> int:
    clock = asyncio.get_running_loop().time
    check_at = clock() + CHECK_EVERY
    while not stopping.is_set():
        await waiting.wait(max(0.0, check_at - clock()))
        if clock() >= check_at:
            check_at = clock() + CHECK_EVERY
            if not await may_read():
                return status.WS_1008_POLICY_VIOLATION
        async with asyncio.timeout(SEND_PATIENCE):
            for one in waiting.pop():
                await socket.send_text(message_of(one))
        await wait_or_stop(PAUSE, stopping)
    return status.WS_1012_SERVICE_RESTART
