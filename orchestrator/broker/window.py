"""Publish over one channel: what is given in one turn of the loop goes out in one write, and its confirms come together.

The client library publishes each message by itself: a lock, a write, a confirm that the broker sends for this one alone. Here
the messages that have gathered share a write, and the broker then answers for many of them at once. The library's own books
are kept – the numbers of the messages, and what waits for their confirms – so it handles the broker's answers as ever.
"""

from __future__ import annotations

import asyncio
from typing import Any

from aiormq import spec
from aiormq.abc import ChannelFrame
from aiormq.channel import Channel
from aiormq.exceptions import ChannelInvalidStateError

from orchestrator.broker.frames import encode_frames
from orchestrator.broker.outgoing import Outgoing

LARGEST_WRITE = 256 * 1024
"""Bytes after which what has gathered goes out in another write."""


class Window:
    """The messages of one channel with confirms that the broker has not confirmed yet; nothing else publishes over it.

    Args:
        timeout: seconds to wait for a confirm.
    """

    def __init__(self, channel: Channel, timeout: float) -> None:
        self.channel = channel
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._gathered: list[tuple[Outgoing, str, asyncio.Future[Any]]] = []
        self._waiting: set[asyncio.Future[Any]] = set()
        self._writing: asyncio.Task[None] | None = None
        channel.closing.add_done_callback(self._close)

    async def publish(self, message: Outgoing, message_id: str) -> bool:
        """Publish a message, and wait until the broker has confirmed it; return whether it has gone to where it should.

        Args:
            message_id: two messages with one id must not be published at the same time.

        Raises:
            TimeoutError: no confirm in time.
            DeliveryError: a queue has refused it.
            ValueError: it cannot be encoded.
            another error of the client library: the channel was closed.
        """
        confirm: asyncio.Future[Any] = self._loop.create_future()
        confirm.add_done_callback(_retrieve)
        self._waiting.add(confirm)
        self._gathered.append((message, message_id, confirm))
        if self._writing is None:
            self._writing = self._loop.create_task(self._write())
        try:
            async with asyncio.timeout(self._timeout):
                return isinstance(await confirm, spec.Basic.Ack)
        finally:
            self._waiting.discard(confirm)
            self.channel.message_id_delivery_tag.pop(message_id, None)

    async def _write(self) -> None:
        try:
            while self._gathered and not self.channel.is_closed:
                # Others wait for a place in the queue of the connection as well, so it is in order.
                await self.channel.write_queue.put(ChannelFrame(self._encode(), should_close=False))
        finally:
            self._writing = None
            if self.channel.is_closed:
                self._fail_all()

    def _encode(self) -> bytes:
        """Return the frames of what has gathered, as far as one write may be long, and number these messages."""
        channel = self.channel
        parts: list[bytes] = []
        size = taken = 0
        for message, message_id, confirm in self._gathered:
            if size > LARGEST_WRITE:
                break
            taken += 1
            if confirm.done():
                continue  # nobody waits for it any more
            try:
                frames = encode_frames(message, message_id, channel.number, channel.max_content_size)
            except ValueError as error:
                confirm.set_exception(error)
                continue
            channel.delivery_tag += 1
            channel.confirmations[channel.delivery_tag] = confirm
            if message.mandatory:
                # By this the library knows which message the broker returns.
                channel.message_id_delivery_tag[message_id] = channel.delivery_tag
            parts.append(frames)
            size += len(frames)
        del self._gathered[:taken]
        return b"".join(parts)

    def _close(self, _: object) -> None:
        if self._writing is not None:
            self._writing.cancel()  # it may wait for a place in the queue of a connection that is gone
        self._fail_all()

    def _fail_all(self) -> None:
        self._gathered.clear()
        closing = self.channel.closing
        reason = closing.exception() if closing.done() and not closing.cancelled() else None
        for confirm in self._waiting:
            if not confirm.done():
                confirm.set_exception(reason or ChannelInvalidStateError("the channel is closed"))


def _retrieve(confirm: asyncio.Future[Any]) -> None:
    """Take note of an exception that came when the publisher had just given up, so that it is not logged as lost."""
    if not confirm.cancelled():
        confirm.exception()
