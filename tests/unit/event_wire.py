"""Stand in for a publisher of events whose broker answers when it is told to."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from orchestrator.broker.outgoing import Outgoing
from orchestrator.broker.publisher import Answer
from orchestrator.errors import PublishError
from orchestrator.messages import ProcessEvent, decode


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(20):
        await asyncio.sleep(0)


@dataclass(eq=False)
class Sent:
    message: Outgoing
    place: int
    channel: int
    answer: asyncio.Future[Answer]
    is_taken: bool = False

    @property
    def key(self) -> str:
        return self.message.routing_key

    @property
    def sequence(self) -> int:
        return decode(ProcessEvent, self.message.body).sequence

    @property
    def process_id(self) -> str:
        return str(self.message.correlation_id)


class Wire:
    """What a publisher has sent: the broker looks at messages in the order of their channel, and answers when it likes."""

    def __init__(self) -> None:
        self.sent = 0
        self.channel = 0
        self.waiting: dict[int, deque[Sent]] = {}
        self.looked_at: list[Sent] = []
        self.news = asyncio.Event()
        """Set when something is sent; whoever waits for it clears it first."""
        self.alone: set[str] = set()
        """Keys whose messages have a channel of their own."""
        self._channels = 0

    async def publish(self, message: Outgoing) -> Answer:
        """Stand in for ``Publisher.publish``."""
        if message.routing_key in self.alone:
            self._channels -= 1
            return await self._send(message, 0, self._channels)
        self.sent += 1
        return await self._send(message, self.sent, self.channel)

    async def _send(self, message: Outgoing, place: int, channel: int) -> Answer:
        sent = Sent(message, place, channel, asyncio.get_running_loop().create_future())
        self.waiting.setdefault(channel, deque()).append(sent)
        self.news.set()
        return await sent.answer

    def look(self, channel: int) -> Sent:
        """Take the oldest message of a channel in hand."""
        sent = self.waiting[channel].popleft()
        if not self.waiting[channel]:
            del self.waiting[channel]
        self.looked_at.append(sent)
        return sent

    def answer(self, sent: Sent) -> None:
        """Say what has become of a message."""
        self.looked_at.remove(sent)
        place = sent.place if sent.channel == self.channel else None
        sent.answer.set_result(Answer(sent.is_taken, place))

    def fail(self, sent: Sent) -> None:
        """Refuse a message, or lose the answer."""
        self.looked_at.remove(sent)
        sent.answer.set_exception(PublishError("refused, or no confirm"))
