"""Leave out events for which no queue is bound, where the broker has said so about a moment at which they could have gone out.

The broker returns a message that no queue takes. So it has looked for queues with this routing key after the message was sent,
and found none. An event of the same key whose log entry was committed before that message was sent could have been published in
its place: nobody would have got it. To leave it out is the same as to publish it at that moment. An answer about an earlier
moment says nothing: a reader may have bound a queue since, before the entry was committed.

For each process these moments, and those at which events were really published, follow one another as the events do. A reader
that binds a queue in between therefore gets all events from some one on, in order, whichever keys it has bound.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from orchestrator.broker.outgoing import Outgoing
from orchestrator.broker.publisher import Publisher

REMEMBERED: Final = 10_000
"""Routing keys of which it is known that no queue was bound; an event of one that is forgotten is published."""


@dataclass(slots=True)
class _Known:
    """What is known of a routing key about which the broker's newest answer was that no queue is bound."""

    returned: int
    """The place of the newest message that was returned."""
    under_way: asyncio.Future[None] | None = None
    """Ends when the message is answered whose answer others wait for."""


class Unbound:
    """Routing keys for which no queue was bound, each as of the place of a message of this publisher."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._known: dict[str, _Known] = {}

    def begin(self) -> Course:
        """Begin with events of one process whose log entries are committed, and all before which are settled."""
        return Course(self._publisher, self._known)


class Course:
    """The events of one process, which are settled one after the other: each is left out, or published.

    Args:
        known: is kept up to date here, for all courses.
    """

    def __init__(self, publisher: Publisher, known: dict[str, _Known]) -> None:
        self._publisher = publisher
        self._known = known
        self._floor = publisher.sent + 1
        """The first place that is certainly behind the commit of the entries, and not before the event that was settled last."""
        self._settled_as: str | None = None
        """The key of the event that was settled last, if its message, or one in its place, was returned."""

    async def leaves_out(self, key: str) -> bool:
        """Settle the next event by leaving it out, if that is the same as publishing it; return whether it is.

        If not, it must be published, at once. While another message of a key is under way for which no queue was bound, its
        answer is waited for, so that of many processes one publishes for all.
        """
        if key == self._settled_as:
            return True  # by the same message
        while (known := self._known.get(key)) is not None:
            if known.returned >= self._floor:
                self._floor = known.returned + 1
                self._settled_as = key
                return True
            if known.under_way is None:
                break
            await asyncio.shield(known.under_way)
        return False

    async def publish(self, message: Outgoing) -> None:
        """Settle the next event by publishing it.

        Raises:
            PublishError: see :meth:`Publisher.publish`; nothing may be settled by this course any more.
        """
        key = message.routing_key
        known, done = self._known.get(key), None
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
                # A queue is bound, or it is not known when there was none: nobody waits for another's answer.
                self._known.pop(key, None)
            else:
                self._note_return(key, place)
            if known is not None and done is not None:
                known.under_way = None
                done.set_result(None)
        self._floor = (self._publisher.sent if place is None else place) + 1
        if not is_taken:
            self._settled_as = key

    def _note_return(self, key: str, place: int) -> None:
        known = self._known.get(key)
        if known is None:
            self._known[key] = _Known(place)
            if len(self._known) > REMEMBERED:
                del self._known[next(iter(self._known))]
        else:
            known.returned = max(known.returned, place)
