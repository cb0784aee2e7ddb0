"""Publish over one channel, and handle the broker's confirms as they arrive, many at once.

For each message the client library takes a lock, a timer, a task for the write, and objects for the confirm. Here a message
goes to the socket at once, with all others of this event loop iteration, and one pass over the window handles everything that
a frame of the broker confirms.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from aiormq.channel import Channel
from aiormq.exceptions import ChannelInvalidStateError, DeliveryError
from pamqp.commands import Basic

from orchestrator.broker.frames import ACK, NACK, RETURN, encode_frames, read_body_size, read_message_id, read_tag
from orchestrator.broker.outgoing import Outgoing
from orchestrator.broker.wire import CLASS_CHANNEL, HEADER, METHOD, wire_of


@dataclass(slots=True)
class _Sent:
    confirm: asyncio.Future[bool]
    ends_at: float
    message_id: str


class Window:
    """The unconfirmed messages of one channel with confirms; nothing else publishes over it.

    Args:
        timeout: seconds to wait for a confirm.
    """

    def __init__(self, channel: Channel, timeout: float) -> None:
        self.channel = channel
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._wire = wire_of(channel)
        self._number = 0
        self._sent: dict[int, _Sent] = {}
        self._by_id: dict[str, _Sent] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False
        self._returns = False
        self._left = 0
        self._wire.take(channel.number, self._take)
        channel.closing.add_done_callback(self._close)

    def __len__(self) -> int:
        """Return how many messages the broker has not confirmed."""
        return len(self._sent)

    def publish(self, message: Outgoing, message_id: str) -> asyncio.Future[bool]:
        """Publish a message; return a future of the broker's confirm, with whether a queue got the message.

        It fails with a ``TimeoutError`` when no confirm comes in time, a ``DeliveryError`` when a queue has refused it, and
        another error of the client library when the channel was closed.

        Args:
            message_id: two messages with one id must not be published at the same time.

        Raises:
            ValueError: it cannot be encoded.
            an error of the client library: the channel was closed.
        """
        channel = self.channel
        if self._is_closed or channel.is_closed:
            raise self._find_reason()
        if self._wire.transport.is_closing():
            raise ConnectionResetError("the connection to the broker is lost")
        frames = encode_frames(message, message_id, channel.number, channel.max_content_size)
        sent = _Sent(self._loop.create_future(), self._loop.time() + self._timeout, message_id)
        self._number += 1
        self._sent[self._number] = sent
        if message.mandatory:
            # This identifies a message that the broker returns.
            self._by_id[message_id] = sent
        self._wire.write(frames)
        if self._timer is None:
            self._timer = self._loop.call_at(sent.ends_at, self._expire)
        return sent.confirm

    def _take(self, kind: int, content: bytes) -> bool:
        if kind == METHOD:
            if content.startswith(ACK):
                self._confirm(*read_tag(content), None)
            elif content.startswith(NACK):
                self._confirm(*read_tag(content), DeliveryError(None, Basic.Nack()))
            elif content.startswith(RETURN):
                self._returns = True
            else:
                # The broker closes the channel, and does not read what is published from now on.
                self._is_closed |= content.startswith(CLASS_CHANNEL)
                return False
            return True
        if not self._returns:
            return False
        if kind == HEADER:
            self._left = read_body_size(content)
            self._note_return(read_message_id(content))
        else:
            self._left -= len(content)
        self._returns = self._left > 0
        return True

    def _confirm(self, number: int, and_before: bool, error: DeliveryError | None) -> None:
        if and_before:
            numbers = []
            for one in self._sent:
                if one > number:
                    break
                numbers.append(one)
        else:
            numbers = [number]
        for one in numbers:
            sent = self._sent.pop(one, None)
            if sent is None:
                continue
            if self._by_id.get(sent.message_id) is sent:
                del self._by_id[sent.message_id]
            if sent.confirm.done():
                continue  # nobody waits for it any more, or it was returned
            if error is None:
                sent.confirm.set_result(True)
            else:
                _fail(sent, error)

    def _note_return(self, message_id: str | None) -> None:
        sent = None if message_id is None else self._by_id.pop(message_id, None)
        if sent is not None and not sent.confirm.done():
            sent.confirm.set_result(False)

    def _expire(self) -> None:
        """Fail the messages whose time is over; the broker's answer may still come."""
        self._timer = None
        now = self._loop.time()
        for sent in self._sent.values():
            if sent.confirm.done():
                continue
            if sent.ends_at > now:
                self._timer = self._loop.call_at(sent.ends_at, self._expire)
                return
            _fail(sent, TimeoutError())

    def _close(self, _: object) -> None:
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        reason = self._find_reason()
        for sent in self._sent.values():
            if not sent.confirm.done():
                _fail(sent, reason)
        self._sent.clear()
        self._by_id.clear()

    def _find_reason(self) -> Exception:
        closing = self.channel.closing
        error = closing.exception() if closing.done() and not closing.cancelled() else None
        return error if isinstance(error, Exception) else ChannelInvalidStateError("the channel is closed")


def _fail(sent: _Sent, error: Exception) -> None:
    sent.confirm.set_exception(error)
    sent.confirm.exception()  # who waits may be cancelled at this moment, and then it is not to be logged as lost
