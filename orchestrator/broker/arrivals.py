"""Assemble the messages that arrive over one channel, and acknowledge them: many in one frame if they are in order."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from aiormq.channel import Channel
from aiormq.exceptions import ChannelInvalidStateError

from orchestrator.broker.frames import DELIVER, read_body_size, read_deliver, settle_frame
from orchestrator.broker.wire import BODY, HEADER, METHOD, wire_of

LINGER: Final = 0.02
"""Seconds for which acknowledgements gather where they may. On an idle system each of them would be one more entry in a quorum
queue's log, written beside a message that a process waits for. If the program is killed meanwhile, these messages come again."""


@dataclass(slots=True)
class Arrival:
    """A message as it arrived; immutable.

    Args:
        tag: the delivery tag on this channel.
        header: the content of its header frame.
        body: as much of it as is kept.
    """

    tag: int
    redelivered: bool
    exchange: str
    routing_key: str
    header: bytes
    body: bytes


class Arrivals:
    """The messages that the broker delivers over a channel with one consumer; nothing else acknowledges them.

    Args:
        max_bytes: of each body only so many are kept; the header has the full size.
        receive: is called with each message, and must not block.
        most: so many acknowledgements may gather for :data:`LINGER`; by default only those of one event loop iteration.
    """

    def __init__(self, channel: Channel, max_bytes: int, receive: Callable[[Arrival], None], *, most: int = 1) -> None:
        self._channel = channel
        self._max_bytes = max_bytes
        self._receive = receive
        self._most = max(1, most)
        self._loop = asyncio.get_running_loop()
        self._wire = wire_of(channel)
        self._deliver: tuple[int, bool, str, str] | None = None
        self._header = b""
        self._left = 0
        self._body = bytearray()
        self._open: OrderedDict[int, None] = OrderedDict()
        """The messages that are not settled, in the order in which they came."""
        self._handled: list[int] = []
        self._wire.take(channel.number, self._take)

    @property
    def is_closed(self) -> bool:
        """Whether the channel is closed; the broker then delivers again what is not settled."""
        return self._channel.is_closed

    @property
    def closing(self) -> asyncio.Future[Any]:
        """Done when the channel is closed."""
        return self._channel.closing

    def acknowledge(self, tag: int) -> None:
        """Acknowledge a message in a moment, together with others.

        Raises:
            ChannelInvalidStateError: the channel is closed, and the message comes again.
        """
        if self._channel.is_closed:
            raise ChannelInvalidStateError("the channel is closed")
        self._handled.append(tag)
        count = len(self._handled)
        if count == self._most:
            self._loop.call_soon(self.flush)
        elif count == 1:
            self._loop.call_later(LINGER, self.flush)

    def requeue(self, tag: int) -> None:
        """Requeue a message."""
        if not self._channel.is_closed:
            self.flush()
            del self._open[tag]
            self._wire.write(settle_frame(self._channel.number, tag, requeue=True))

    def flush(self) -> None:
        """Acknowledge now what has gathered."""
        handled, self._handled = self._handled, []
        if not handled or self._channel.is_closed:
            return
        for tag in handled:
            del self._open[tag]
        handled.sort()
        # One frame acknowledges everything up to the oldest unsettled message, with one entry in a quorum queue's log.
        oldest = next(iter(self._open), handled[-1] + 1)
        first = bisect_left(handled, oldest)
        number = self._channel.number
        frames = [settle_frame(number, tag) for tag in handled[first:]]
        if first:
            frames.append(settle_frame(number, handled[first - 1], multiple=first > 1))
        self._wire.write(b"".join(frames))

    def _take(self, kind: int, content: bytes) -> bool:
        if kind == METHOD:
            if not content.startswith(DELIVER):
                return False
            self._deliver = read_deliver(content)
            return True
        if self._deliver is None:
            return False  # of an answer to another request, which the library has made
        if kind == HEADER:
            self._header, self._left, self._body = content, read_body_size(content), bytearray()
        elif kind == BODY:
            self._left -= len(content)
            self._body += content[: max(0, self._max_bytes - len(self._body))]
        if self._left <= 0:
            deliver, self._deliver = self._deliver, None
            self._open[deliver[0]] = None
            self._receive(Arrival(*deliver, self._header, bytes(self._body)))
        return True
