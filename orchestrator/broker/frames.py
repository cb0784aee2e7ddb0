"""Encode messages for the wire: the same bytes as the client library's, in a small part of its time.

Three messages are published for each step, and the library builds each property and header with a chain of calls. Nearly all
of ours have the same properties, all of them text. A test compares the two encodings.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from pamqp import frame
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from orchestrator.broker.outgoing import Outgoing

PERSISTENT: Final = 2
"""The AMQP delivery mode of messages that survive a restart of the broker."""

JSON_TYPE: Final = "application/json"

_END: Final = b"\xce"
_HEADER, _BODY = 2, 3
_FRAME: Final = struct.Struct(">BHI")
_CONTENT: Final = struct.Struct(">HHQH")
_LONG: Final = struct.Struct(">I")
_BASIC: Final = 60
_CONTENT_TYPE, _HEADERS, _MODE, _CORRELATION, _MESSAGE_ID, _TYPE = (1 << bit for bit in (15, 13, 12, 10, 7, 5))


def encode_frames(message: Outgoing, message_id: str, channel: int, largest_body: int) -> bytes:
    """Return the frames that publish a message over a channel.

    Args:
        largest_body: bytes of a body that fit into one frame.

    Raises:
        ValueError: the routing key is too long.
    """
    body = message.body
    header = _encode_properties(message, message_id)
    parts = [_publish(channel, message.exchange, message.routing_key, message.mandatory), header_frame(channel, header)]
    for start in range(0, len(body), largest_body):
        piece = body[start : start + largest_body]
        parts += (_FRAME.pack(_BODY, channel, len(piece)), piece, _END)
    return b"".join(parts)


def header_frame(channel: int, header: bytes) -> bytes:
    """Return the frame of a content header."""
    return b"".join((_FRAME.pack(_HEADER, channel, len(header)), header, _END))


def build_properties(message: Outgoing, message_id: str) -> Basic.Properties:
    """Return the properties of a message as the client library has them."""
    return Basic.Properties(
        **{
            "content_type": JSON_TYPE,
            **message.properties,
            "delivery_mode": PERSISTENT,
            "message_type": message.type,
            "message_id": message_id,
            "correlation_id": message.correlation_id,
            "headers": dict(message.headers),
        }
    )


@lru_cache(maxsize=1000)
def _publish(channel: int, exchange: str, routing_key: str, mandatory: bool) -> bytes:
    if len(routing_key.encode()) > 255:  # noqa: PLR2004 - a short string of AMQP
        raise ValueError("the routing key is too long: an AMQP key has at most 255 bytes")
    method = Basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=mandatory)
    return frame.marshal(method, channel)


def _encode_properties(message: Outgoing, message_id: str) -> bytes:
    headers = message.headers
    if message.properties or not all(type(value) is str for value in headers.values()):
        # Another sender's message that is passed on: it may have any property, and headers of any type.
        return bytes(ContentHeader(0, len(message.body), build_properties(message, message_id)).marshal())
    flags = _CONTENT_TYPE | _HEADERS | _MODE | _MESSAGE_ID | _TYPE
    parts = [b"", _short(JSON_TYPE), _table(headers), bytes((PERSISTENT,))]
    if message.correlation_id:
        flags |= _CORRELATION
        parts.append(_short(message.correlation_id))
    parts += (_short(message_id), _short(message.type))
    parts[0] = _CONTENT.pack(_BASIC, 0, len(message.body), flags)
    return b"".join(parts)


def _table(headers: Mapping[str, Any]) -> bytes:
    parts = [b""]
    for name, value in sorted(headers.items()):
        text = value.encode()
        parts += (_short(name), b"S", _LONG.pack(len(text)), text)
    table = b"".join(parts)
    return _LONG.pack(len(table)) + table


def _short(text: str) -> bytes:
    data = text.encode()
    return bytes((len(data),)) + data
