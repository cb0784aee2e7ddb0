"""Publish large messages apart: a broker answers one that is larger than its ``max_message_size`` by closing the channel."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from aio_pika.abc import AbstractConnection
from aiormq.channel import Channel

from orchestrator.broker.connection import one_channel, raw_channel

LARGE: Final = 64 * 1024
"""Bytes of a message that gets a channel of its own. No broker has a limit below that."""


@asynccontextmanager
async def channel_for(size: int, connection: AbstractConnection, shared: Channel) -> AsyncIterator[Channel]:
    """Provide the channel for a message of so many bytes: the shared one, or one that nothing else is published on."""
    if size < LARGE:
        yield shared
        return
    async with one_channel(connection, confirms=True) as channel:
        yield await raw_channel(channel)
