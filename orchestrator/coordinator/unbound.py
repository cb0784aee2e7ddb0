"""Leave out events for which no queue was bound at a moment when they could have been published.

The broker returns a message that no queue takes. So it looked for queues with this routing key after the message was sent, and
found none. An event with the same key whose log entry was committed before that message was sent could have been published in
its place, and no queue would have received it. To leave it out is equivalent to publishing it at that moment. An answer about
an earlier moment says nothing: a reader may have bound a queue since, before the entry was committed.

For each process these moments, and those at which events were really published, are in the order of the events. A reader that
binds a queue in between therefore gets all events from some event on, in order, whichever keys it has bound.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from orchestrator.broker.outgoing import Outgoing
from orchestrator.broker.publisher import Publisher

REMEMBERED: Final = 10_000
"""The most routing keys known to have no queue; events of forgotten keys are published."""

REST: Final = 0.01
"""Seconds from one message of a key for which no queue was bound to the next, while the program is busy: more processes then
share an answer. A start waits for two of them, so for about as long as its transaction takes."""

RECENTLY: Final = 1.0
"""Seconds for which an answer says something about what happens next, where nothing but time depends on it. Under load a key is
answered more often; and who binds a queue should not get events late for long."""


@dataclass(slots=True)
class _Known:
    """The knowledge about a routing key for which the broker's newest answer was that no queue is bound."""

    returned: int
    """The place of the newest message that was returned."""
    asked_at: float
    """When the newest message was sent, by the event loop's clock."""
    under_way: asyncio.Future[None] | None = None
    """Ends when the message is answered whose answer others wait for."""
    resting: asyncio.Future[None] | None = None
    """Ends when the next message may be sent."""

    def begin_rest(self, seconds: float) -> asyncio.Future[None]:
        """Return a future that ends after the rest, the same for all waiters."""
        if self.resting is None or self.resting.done():
            loop = asyncio.get_running_loop()
            self.resting = loop.create_future()
            loop.call_later(seconds, self.resting.set_result, None)
        return self.resting


class Unbound:
    """Routing keys for which no queue was bound, each at the place of a message of this publisher.

    Args:
        is_busy: returns whether the program is so busy that a few milliseconds for one process do not matter.
    """

    def __init__(self, publisher: Publisher, is_busy: Callable[[], bool]) -> None:
        self._publisher = publisher
        self._known: dict[str, _Known] = {}
        self._is_busy = is_busy
        self._clock = asyncio.get_running_loop().time

    def begin(self) -> Course:
        """Return the course of a process whose next events are committed and whose earlier ones are all settled."""
        return Course(self._publisher, self._known, self._find_rest)

    def was_returned(self, key: str) -> bool:
        """Return whether the newest answer for a key was recent and said that no queue is bound. One may be bound by now."""
        known = self._known.get(key)
        return known is not None and self._clock() - known.asked_at < RECENTLY

    def _find_rest(self, known: _Known) -> float:
        """Return the seconds until a key's next message should be sent, so that many processes share its answer."""
        return known.asked_at + REST - self._clock() if self._is_busy() else 0.0


class Course:
    """The events of one process, which are settled in order: each is left out or published.

    Args:
        known: shared by all courses, which update it.
        find_rest: returns the seconds until a key's next message should be sent.
    """

    def __init__(self, publisher: Publisher, known: dict[str, _Known], find_rest: Callable[[_Known], float]) -> None:
        self._publisher = publisher
        self._known = known
        self._find_rest = find_rest
        self._floor = publisher.sent + 1
        """The first place that is certainly behind the commit of the entries, and not before the event that was settled last."""
        self._settled_as: str | None = None
        """The key of the event that was settled last, if its message, or one in its place, was returned."""

    async def leaves_out(self, key: str) -> bool:
        """Settle the next event by leaving it out, if that is equivalent to publishing it; return whether it is.

        If not, it must be published, at once. While another message of a key is under way for which no queue was bound, its
        answer is waited for, so that of many processes one publishes for all. While the program is busy, such a message
        is not sent soon after the one before it: more processes then share its answer.
        """
        if key == self._settled_as:
            return True  # by the same message
        while (known := self._known.get(key)) is not None:
            if known.returned >= self._floor:
                self._floor = known.returned + 1
                self._settled_as = key
                return True
            if known.under_way is not None:
                await _wait_with_others(known.under_way)
            elif (rest := self._find_rest(known)) > 0:
                await _wait_with_others(known.begin_rest(rest))
            else:
                break
        return False

    async def publish(self, message: Outgoing) -> None:
        """Settle the next event by publishing it.

        Raises:
            PublishError: see :meth:`Publisher.publish`; nothing may be settled by this course any more.
        """
        key = message.routing_key
        known, done = self._known.get(key), None
        asked_at = asyncio.get_running_loop().time()
        if known is not None:
            known.asked_at = asked_at
        if known is not None and known.under_way is None:
            known.under_way = done = asyncio.get_running_loop().create_future()
        self._settled_as = None
        place: int | None = None
        is_taken = True
        try:
            answer = await self._publisher.publish(message)
            place, is_taken = answer.place, answer.is_taken
        finally:
            if is_taken or place is None:
                # A queue is bound, or it is unknown when there was none. Then nothing waits for another message's answer.
                self._known.pop(key, None)
            else:
                self._note_return(key, place, asked_at)
            if known is not None and done is not None:
                known.under_way = None
                done.set_result(None)
        self._floor = (self._publisher.sent if place is None else place) + 1
        if not is_taken:
            self._settled_as = key

    def _note_return(self, key: str, place: int, asked_at: float) -> None:
        known = self._known.get(key)
        if known is None:
            self._known[key] = _Known(place, asked_at)
            if len(self._known) > REMEMBERED:
                del self._known[next(iter(self._known))]
        else:
            known.returned = max(known.returned, place)


async def _wait_with_others(shared: asyncio.Future[None]) -> None:
    """Wait until it is done; others go on to wait for it when this is cancelled. As asyncio.shield, with fewer callbacks."""
    own = asyncio.get_running_loop().create_future()
    shared.add_done_callback(partial(_wake, own))
    await own


def _wake(waiting: asyncio.Future[None], _: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
