"""Encode and decode messages like the client library, in a small part of its time.

The library handles each property and header with a chain of calls. Nearly all of the engine's messages have the same
properties, all of them text. Tests compare the two implementations.
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

DELIVER: Final = b"\x00\x3c\x00\x3c"
RETURN: Final = b"\x00\x3c\x00\x32"
ACK: Final = b"\x00\x3c\x00\x50"
NACK: Final = b"\x00\x3c\x00\x78"
"""The first bytes of the methods that are read here."""

_END: Final = b"\xce"
_MODE_OF_OURS: Final = bytes((PERSISTENT,))
_METHOD, _HEADER, _BODY = 1, 2, 3
_FRAME: Final = struct.Struct(">BHI")
_CONTENT: Final = struct.Struct(">HHQH")
_LONG: Final = struct.Struct(">I")
_TEXT: Final = ord("S")
_BASIC, _ACK, _NACK = 60, 80, 120
_SETTLE: Final = struct.Struct(">BHIHHQBB")
_TAG: Final = struct.Struct(">QB")
_SIZE: Final = struct.Struct(">Q")
_CONTENT_TYPE, _HEADERS, _MODE, _CORRELATION, _MESSAGE_ID, _TYPE = (1 << bit for bit in (15, 13, 12, 10, 7, 5))
_OURS: Final = _CONTENT_TYPE | _HEADERS | _MODE | _MESSAGE_ID | _TYPE
"""The properties that all messages of the engine have."""
_READ: Final = (
    (1 << 15, "content_type"),
    (1 << 14, "content_encoding"),
    (_HEADERS, "headers"),
    (_MODE, "delivery_mode"),
    (1 << 11, "priority"),
    (_CORRELATION, "correlation_id"),
    (1 << 9, "reply_to"),
    (1 << 8, "expiration"),
    (_MESSAGE_ID, "message_id"),
    (_TYPE, "message_type"),
    (1 << 4, "user_id"),
    (1 << 3, "app_id"),
)
"""The properties that are read here, in the order of AMQP, by the client library's names."""
_FEW_VALUES: Final = frozenset({"workflow", "step"})
"""Headers with few different values, whose encodings are remembered."""


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


def settle_frame(channel: int, tag: int, *, multiple: bool = False, requeue: bool = False) -> bytes:
    """Return the frame that acknowledges or requeues a message.

    Args:
        multiple: whether earlier messages are included.
    """
    method = _NACK if requeue else _ACK
    return _SETTLE.pack(_METHOD, channel, 13, _BASIC, method, tag, multiple | requeue << 1, 0xCE)


def read_tag(content: bytes) -> tuple[int, bool]:
    """Return the number of the message that the broker confirms or rejects, and whether earlier ones are included."""
    tag, bits = _TAG.unpack_from(content, 4)
    return tag, bool(bits & 1)


def read_deliver(content: bytes) -> tuple[int, bool, str, str]:
    """Return delivery tag, redelivered flag, exchange and routing key of a delivery."""
    at = 5 + content[4]
    tag, bits = _TAG.unpack_from(content, at)
    at += _TAG.size
    end = at + 1 + content[at]
    key = content[end + 1 : end + 1 + content[end]]
    return tag, bool(bits & 1), content[at + 1 : end].decode(errors="replace"), key.decode(errors="replace")


def read_body_size(header: bytes) -> int:
    """Return the size of the body in bytes."""
    return int(_SIZE.unpack_from(header, 4)[0])


def read_properties(header: bytes) -> dict[str, Any] | None:
    """Return the properties of a message that have a value, by the client library's names.

    Returns:
        ``None`` when the library must read them: they have a time or headers that are not text, or are malformed.
    """
    names = _find_names(int.from_bytes(header[12:14], "big"))
    if names is None:
        return None
    found: dict[str, Any] = {}
    at = 14
    try:
        for name in names:
            if name == "headers":
                end = at + 4 + _LONG.unpack_from(header, at)[0]
                headers = _read_headers(header, at + 4, end)
                if headers is None:
                    return None
                found[name] = headers
                at = end
            elif name in {"delivery_mode", "priority"}:
                found[name] = header[at]
                at += 1
            else:
                end = at + 1 + header[at]
                if end > at + 1:
                    found[name] = header[at + 1 : end].decode()
                at = end
    except (UnicodeDecodeError, IndexError, struct.error):
        return None
    return found if at == len(header) else None


def read_message_id(header: bytes) -> str | None:
    """Return the id of a message."""
    flags = int.from_bytes(header[12:14], "big")
    if flags & ~_CORRELATION == _OURS:
        # The broker returns nearly always messages of the engine, whose preceding properties need not be read.
        try:
            at = 15 + header[14]
            at += 5 + int(_LONG.unpack_from(header, at)[0])
            if flags & _CORRELATION:
                at += 1 + header[at]
            found = header[at + 1 : at + 1 + header[at]].decode()
        except (UnicodeDecodeError, IndexError, struct.error):
            found = ""
        if found:
            return found
    read = ContentHeader()
    read.unmarshal(header)
    return read.properties.message_id or None


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
        # A message of another sender that is republished may have any property, and headers of any type.
        return bytes(ContentHeader(0, len(message.body), build_properties(message, message_id)).marshal())
    flags = _OURS
    parts = [b"", _keep_short(JSON_TYPE), _table(headers), _MODE_OF_OURS]
    if message.correlation_id:
        flags |= _CORRELATION
        parts.append(_short(message.correlation_id))
    parts += (_short(message_id), _keep_short(message.type))
    parts[0] = _CONTENT.pack(_BASIC, 0, len(message.body), flags)
    return b"".join(parts)


def _table(headers: Mapping[str, Any]) -> bytes:
    table = b"".join(
        [(_keep_entry if name in _FEW_VALUES else _entry)(name, headers[name]) for name in sorted(headers)]
    )
    return _LONG.pack(len(table)) + table


def _entry(name: str, value: str) -> bytes:
    text = value.encode()
    return b"".join((_keep_short(name), b"S", _LONG.pack(len(text)), text))


@lru_cache(maxsize=1000)
def _keep_entry(name: str, value: str) -> bytes:
    return _entry(name, value)


def _read_headers(header: bytes, at: int, end: int) -> dict[str, str] | None:
    headers: dict[str, str] = {}
    while at < end:
        begin = at + 1 + header[at]
        name = header[at + 1 : begin].decode()
        if header[begin] != _TEXT:
            return None
        at = begin + 5 + _LONG.unpack_from(header, begin + 1)[0]
        headers[name] = header[begin + 5 : at].decode()
    return headers if at == end else None


@lru_cache(maxsize=1000)
def _find_names(flags: int) -> tuple[str, ...] | None:
    """Return the names of a message's properties, in order; ``None`` when it has one that is not read here."""
    if flags & ~sum(flag for flag, _ in _READ):
        return None
    return tuple(name for flag, name in _READ if flags & flag)


@lru_cache(maxsize=1000)
def _keep_short(text: str) -> bytes:
    return _short(text)


def _short(text: str) -> bytes:
    data = text.encode()
    return bytes((len(data),)) + data
