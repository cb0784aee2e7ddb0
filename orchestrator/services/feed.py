"""Follow the events of all processes from the log, from any position on: the same events as over RabbitMQ, and none left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from orchestrator.db.processes.feed import FeedRow, read_feed, read_position
from orchestrator.db.session import DriverPool
from orchestrator.engine.position import Position, arrange
from orchestrator.engine.references import subscription_ids
from orchestrator.errors import InvalidInputError
from orchestrator.messages import Advanced, LoggedEntry, ProcessEvent
from orchestrator.services.results import build_event


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events a reader wants; each condition that is set must hold."""

    process_id: UUID | None = None
    workflow: str | None = None
    subscription_id: UUID | None = None

    def takes(self, event: ProcessEvent) -> bool:
        """Return whether an event is wanted."""
        return (
            self.process_id in (None, event.process_id)
            and self.workflow in (None, event.workflow)
            and (self.subscription_id is None or self.subscription_id in event.subscription_ids)
        )


EVERYTHING = EventFilter()


@dataclass(frozen=True, slots=True, eq=False)
class FeedEvent:
    """An event, with the position from which nothing after it is left out.

    Args:
        txid: the transaction that has stored it.
        position: the id of the event in a stream.
    """

    event: ProcessEvent
    txid: int
    position: Position


@dataclass(frozen=True, slots=True)
class EventPage:
    """Events, in order for each process.

    Args:
        position: of who has read the page.
        is_last: whether there was nothing more when it was read.
    """

    events: Sequence[FeedEvent]
    position: Position
    is_last: bool


def parse_position(text: str) -> Position:
    """Read the id of an event that a reader has seen.

    Raises:
        InvalidInputError: it is none.
    """
    try:
        return Position.parse(text)
    except ValueError:
        raise InvalidInputError(
            "Last-Event-ID is not an id of this stream: send the one of the last event, or none to follow from now on"
        ) from None


async def read_events(pool: DriverPool, since: Position, wanted: EventFilter = EVERYTHING) -> EventPage:
    """Return the next events that a reader at ``since`` has not seen.

    An event may come twice; events of one process come in the order of ``sequence``, repetitions aside.

    Raises:
        InvalidInputError: the position lies in the future: it is of another database, or of one that was restored.
    """
    page = await read_feed(pool, since, process_id=wanted.process_id, workflow=wanted.workflow)
    if since.below > page.snapshot.below:
        raise InvalidInputError(
            "Last-Event-ID is not of this database, or of what it was before it was restored: read what you follow anew, and"
            " connect without it"
        )
    events = []
    for row, upto in arrange([(row.place, row) for row in page.rows]):
        event = _build_event(row)
        if wanted.takes(event):
            reached = upto if page.upto is None else min(upto, page.upto)
            events.append(FeedEvent(event, row.place.txid, since.advance(reached, page.snapshot)))
    if page.upto is None:
        return EventPage(events, page.snapshot, is_last=True)
    return EventPage(events, since.advance(page.upto, page.snapshot), is_last=False)


async def read_now(pool: DriverPool) -> Position:
    """Return the position from which only what happens from now on is read."""
    return await read_position(pool)


def _build_event(row: FeedRow) -> ProcessEvent:
    entry = LoggedEntry.model_construct(
        sequence=row.place.sequence,
        kind="step" if row.kind == "step" else "process",
        name=row.name,
        status=row.status,
        attempt=row.attempt,
        author=row.author,
        position=row.position,
        at=row.at,
    )
    message = Advanced.model_construct(
        process_id=row.place.process_id,
        workflow=row.workflow,
        target=row.target,
        is_task=row.is_task,
        status=row.status,
        sequence=row.place.sequence,
        user=row.author,
        subscription_ids=subscription_ids(row.referring),
        at=row.at,
        entries=[entry],
    )
    return build_event(message, entry)
