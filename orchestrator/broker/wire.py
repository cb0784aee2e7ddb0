"""Read and write the frames of busy channels directly, beside the client library on the same connection.

For each frame the library awaits the socket three times, builds an object, and wakes another task; a message has three frames,
and a confirm is one. So a busy channel may have a taker here: a function that gets its frames as they arrive. Everything else
(the handshake, requests and their answers, heartbeats, the closing of channels) goes to the library as usual.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Any, Final

from aiormq.channel import Channel
from aiormq.connection import Connection
from aiormq.exceptions import AMQPConnectionError
from yarl import URL

METHOD, HEADER, BODY = 1, 2, 3
"""Kinds of frames."""

CLASS_CHANNEL: Final = b"\x00\x14"
"""The first bytes of the methods that open and close a channel."""

_FRAME: Final = struct.Struct(">BHI")
_AROUND: Final = _FRAME.size + 1
_END: Final = 0xCE
_HEARTBEAT: Final = b"\x08\x00\x00\x00\x00\x00\x00\xce"
_WIRE: Final = "orchestrator_wire"
_SIGN_OF_LIFE: Final = 1.0
"""Seconds without a frame for the library after which it gets a heartbeat, because takers got everything."""

Taker = Callable[[int, bytes], bool]
"""Gets the kind and the content of a frame of its channel; returns whether it has handled the frame."""


class Wire(asyncio.StreamReader):
    """Splits the input of one connection into frames for takers, and a stream of all others for the client library."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(limit=2**16, loop=loop)
        self._loop = loop
        self._clock = loop.time
        self._takers: dict[int, Taker] = {}
        self._rest = b""
        self._seen_at = 0.0
        self.transport: asyncio.WriteTransport
        self._is_gathering = False
        self._gathered: list[bytes] = []

    def take(self, channel: int, taker: Taker) -> None:
        """Give the frames of a channel to a taker from now on, until the channel is closed."""
        self._takers[channel] = taker

    def write(self, frames: bytes) -> None:
        """Send frames to the broker: at once, and what else comes in this turn of the event loop together after it.

        Nothing is sent over a connection that is lost; its channels report what was not sent.
        """
        if self._is_gathering:
            self._gathered.append(frames)
        elif not self.transport.is_closing():
            self._is_gathering = True
            self._loop.call_soon(self._send_gathered)
            self.transport.write(frames)

    def _send_gathered(self) -> None:
        self._is_gathering = False
        gathered, self._gathered = self._gathered, []
        # The connection may have been closed in this turn.
        if gathered and not self.transport.is_closing():
            self.transport.write(b"".join(gathered))

    def feed_data(self, data: bytes) -> None:  # type: ignore[override] # what transports give
        """Handle bytes from the broker."""
        data = self._rest + data if self._rest else data
        begin = at = 0
        others: list[bytes] = []
        size = len(data)
        while size - at >= _AROUND:
            kind, channel, length = _FRAME.unpack_from(data, at)
            after = at + length + _AROUND
            if after > size:
                break
            taker = self._takers.get(channel)
            if taker is not None and data[after - 1] == _END:
                content = data[at + _FRAME.size : after - 1]
                if kind == METHOD and content.startswith(CLASS_CHANNEL):
                    # It is closed, as a rule; its number may be given to another one.
                    del self._takers[channel]
                if taker(kind, content):
                    others.append(data[begin:at])
                    begin = after
            at = after
        others.append(data[begin:at])
        self._rest = data[at:]
        self._pass_on(b"".join(others))

    def feed_eof(self) -> None:
        """Handle the end of the input."""
        if self._rest:
            super().feed_data(self._rest)
        super().feed_eof()

    def _pass_on(self, data: bytes) -> None:
        now = self._clock()
        if data:
            self._seen_at = now
            super().feed_data(data)
        elif now > self._seen_at + _SIGN_OF_LIFE and not self._rest:
            self._seen_at = now
            super().feed_data(_HEARTBEAT)


async def open_wire(url: URL, *, ssl_context_provider: Any, **options: Any) -> tuple[Wire, asyncio.StreamWriter]:
    """Open a connection as the client library does.

    Raises:
        AMQPConnectionError: it cannot be opened.
    """
    loop = asyncio.get_running_loop()
    reader = Wire(loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    context = await ssl_context_provider.get_context() if url.scheme == "amqps" else None
    host, port = str(url.host), int(url.port or 0)
    try:
        transport, _ = await loop.create_connection(lambda: protocol, host, port, ssl=context, **options)
    except OSError as error:
        raise AMQPConnectionError(*error.args) from error
    reader.transport = transport
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


def keep_wire(connection: Connection, wire: Wire) -> None:
    """Store the wire of a connection of the client library."""
    setattr(connection, _WIRE, wire)


def wire_of(channel: Channel) -> Wire:
    """Return the wire over which a channel goes."""
    wire: Wire = getattr(channel.connection, _WIRE)
    return wire
