"""Say what a user interface must fetch again: the messages of the WebSocket, as the field's user interface reads them.

A message may name more than has changed, never less: one of a type without an id stands for everything of that type. What waits
for a slow reader is therefore a set, and a large one shrinks to types.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Final

from orchestrator.db.notices import Change, Notice
from orchestrator.messages import ProcessEvent, StepEvent
from orchestrator.services.feed import FeedEvent
from orchestrator.stopping import wait_or_stop

LIST: Final = "LIST"
"""The id that stands for the lists of a type."""

MOST_WAITING: Final = 200
"""Messages that wait for one reader before those with ids give way to one without."""


class Kind(StrEnum):
    """The types of a user interface's cache, as it spells them."""

    PROCESSES = "processes"
    PROCESS_COUNTS = "processStatusCounts"
    SUBSCRIPTIONS = "subscriptions"
    ENGINE = "engineStatus"
    WORKERS = "workerStatus"
    PRODUCTS = "metadataProducts"
    SCHEDULES = "scheduledTags"


Item = tuple[Kind, str | None]
"""A type, and the id of an object if it is only one."""

EVERYTHING: Final[tuple[Item, ...]] = tuple((kind, None) for kind in Kind)

_OF_CHANGES: Final[Mapping[Change, Sequence[Item]]] = {
    Change.ENGINE: ((Kind.ENGINE, None),),
    Change.PRODUCTS: ((Kind.PRODUCTS, None),),
    Change.CONSUMERS: ((Kind.WORKERS, None),),
    Change.PROCESSES: ((Kind.PROCESSES, None), (Kind.PROCESSES, LIST), (Kind.PROCESS_COUNTS, None)),
    Change.SUBSCRIPTIONS: ((Kind.SUBSCRIPTIONS, None),),
    Change.SCHEDULES: ((Kind.SCHEDULES, None),),
}


def items_of_event(event: ProcessEvent) -> Iterator[Item]:
    """Return what an event makes stale. A step may have changed the subscriptions of its process."""
    yield Kind.PROCESSES, LIST
    yield Kind.PROCESSES, str(event.process_id)
    if not isinstance(event, StepEvent):
        yield Kind.PROCESS_COUNTS, None
    if event.subscription_ids:
        for one in event.subscription_ids:
            yield Kind.SUBSCRIPTIONS, str(one)
        yield Kind.SUBSCRIPTIONS, None


def items_of_notice(notice: Notice) -> Iterator[Item]:
    """Return what a change without an event makes stale."""
    if notice.object_id is not None:
        kind = _OF_CHANGES[notice.change][0][0]
        yield kind, str(notice.object_id)
    yield from _OF_CHANGES[notice.change]


def message_of(item: Item) -> str:
    """Return the text of a message."""
    kind, object_id = item
    value = {"type": kind.value} if object_id is None else {"type": kind.value, "id": object_id}
    return json.dumps({"name": "invalidateCache", "value": value}, separators=(",", ":"))


class Waiting:
    """The messages that wait for one reader, each once, in the order in which they came."""

    def __init__(self) -> None:
        self._items: dict[Item, None] = {}
        self._filled = asyncio.Event()

    def take_events(self, events: Sequence[FeedEvent]) -> None:
        """Add what events make stale."""
        for one in events:
            self._add(items_of_event(one.event))

    def take_notice(self, notice: Notice) -> None:
        """Add what a change without an event makes stale."""
        self._add(items_of_notice(notice))

    def take_gap(self) -> None:
        """Add everything: a change without an event may have been missed."""
        self._add(EVERYTHING)

    def take_stop(self) -> None:
        """Wake the sender, which then looks whether the program stops."""
        self._filled.set()

    async def wait(self, patience: float) -> bool:
        """Wait at most ``patience`` seconds; return whether there are messages, or the program stops."""
        return await wait_or_stop(patience, self._filled)

    def pop(self) -> list[Item]:
        """Return what waits, and forget it."""
        items, self._items = list(self._items), {}
        self._filled.clear()
        return items

    def _add(self, items: Iterable[Item]) -> None:
        self._items.update(dict.fromkeys(items))
        if len(self._items) > MOST_WAITING:
            self._items = dict.fromkeys(_without_ids(self._items))
        self._filled.set()


def _without_ids(items: Iterable[Item]) -> Iterator[Item]:
    for kind, object_id in items:
        if object_id == LIST:
            yield kind, LIST
        yield kind, None
