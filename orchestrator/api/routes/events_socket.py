"""Tell user interfaces over a WebSocket what they must fetch again."""

from __future__ import annotations

import asyncio
from typing import Final

from fastapi import WebSocket, WebSocketDisconnect
from starlette import status

from orchestrator.api.bodies import Router
from orchestrator.api.callers import Role, requires
from orchestrator.api.context import Context
from orchestrator.api.invalidations import Waiting, message_of
from orchestrator.stopping import wait_or_stop

router = Router()

BEARER: Final = "base64.bearer.token"
"""The subprotocol that a browser offers together with its token; it must be the one that is chosen."""

PING, PONG = "__ping__", "__pong__"

PAUSE: Final = 0.1
"""Seconds between two batches: what becomes stale again meanwhile is said once."""

SEND_PATIENCE: Final = 20.0
"""Seconds in which a reader must take what it is sent."""

CHECK_EVERY: Final = 15.0
"""Seconds between two checks whether the caller may still read."""


@router.websocket("/ws/events", dependencies=[requires(Role.READ)])
async def tell_what_is_stale(socket: WebSocket, context: Context) -> None:
    """Send ``invalidateCache`` messages; answer ``__ping__`` with ``__pong__``."""
    await socket.accept(BEARER if BEARER in socket.scope.get("subprotocols", ()) else None)
    waiting = Waiting()
    async with context.live.joined(waiting):
        parts = [asyncio.create_task(_answer(socket)), asyncio.create_task(_send(socket, waiting, context.stopping))]
        try:
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            code = next(iter(done)).result()
        except (WebSocketDisconnect, TimeoutError, OSError):
            return
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


async def _send(socket: WebSocket, waiting: Waiting, stopping: asyncio.Event) -> int:
    while not stopping.is_set():
        await waiting.wait(CHECK_EVERY)
        async with asyncio.timeout(SEND_PATIENCE):
            for one in waiting.pop():
                await socket.send_text(message_of(one))
        await wait_or_stop(PAUSE, stopping)
    return status.WS_1012_SERVICE_RESTART
