"""Fan out what happens to the readers of this program: one reads the log for all of them.

Events wake it; the log says what there is to send, so that a lost message, or a broker that is away, costs time only. A reader
that does not keep up loses its buffer and goes on from the log at its own pace; the others do not wait for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final, Protocol

import structlog

from orchestrator.broker.doorbell import Doorbell
from orchestrator.db.notices import Notice, listen
from orchestrator.db.session import Database, is_connection_error
from orchestrator.engine.position import Position
from orchestrator.errors import InvalidInputError
from orchestrator.outage import Outage
from orchestrator.retry import SERVER_AWAY, backoff
from orchestrator.services.feed import EventFilter, EventPage, FeedEvent, read_events, read_now
from orchestrator.stopping import wait_or_stop

logger = structlog.get_logger(__name__)

LOOK_EVERY: Final = 2.0
"""Seconds after which the log is looked at although nothing rang: broker or coordinator may be away."""

PAUSE: Final = 0.02
"""Seconds between two looks: what happens meanwhile is read together."""

BUFFER: Final = 1000
"""Events that wait for one reader before it must go on from the log."""

CATCHING_UP: Final = 2
"""Readers that read the log for themselves at a time: the others' requests need connections, too."""

STABLE_AFTER: Final = 30.0
"""Seconds after which an outage of the database is another one, with a short pause and a line in the log of its own."""


class Sink(Protocol):
    """What is given everything that happens, and must not wait."""

    def take_events(self, events: Sequence[FeedEvent]) -> None:
        """Take events, in order for each process."""

    def take_notice(self, notice: Notice) -> None:
        """Take a change that has no event."""

    def take_gap(self) -> None:
        """Take into account that notices may have been missed."""

    def take_stop(self) -> None:
        """End soon: the program stops."""


class Live:
    """What the readers of one program share. Run :meth:`run` beside them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sinks: set[Sink] = set()
        self._wanted = asyncio.Event()
        self._position: Position | None = None
        self._joining = asyncio.Lock()
        self._catching_up = asyncio.Semaphore(CATCHING_UP)
        self._bell: Doorbell | None = None

    @property
    def readers(self) -> int:
        """How many streams and sockets are open."""
        return len(self._sinks)

    @property
    def position(self) -> Position:
        """Up to where the readers have been given events; only while there are some."""
        assert self._position is not None, "there is no reader"  # noqa: S101 - a programming error, not a user's
        return self._position

    def wake(self) -> None:
        """Look at the log now: this program has just committed something."""
        if self._bell is not None:
            self._bell.ring()

    async def read(self, since: Position, wanted: EventFilter) -> EventPage:
        """Read the next events for one reader.

        Raises:
            InvalidInputError: see :func:`read_events`.
        """
        async with self._catching_up:
            return await read_events(self._database.pool, since, wanted)

    @asynccontextmanager
    async def joined(self, sink: Sink) -> AsyncIterator[Position]:
        """Give a sink everything that happens while the block runs; return from which position on."""
        async with self._joining:
            if self._position is None:
                self._position = await read_now(self._database.pool)
        self._sinks.add(sink)
        self._want(True)
        try:
            yield self._position
        finally:
            self._sinks.discard(sink)
            if not self._sinks:
                self._want(False)
                self._position = None

    async def run(self, bell: Doorbell, stopping: asyncio.Event) -> None:
        """Give the sinks what happens until ``stopping`` is set."""
        self._bell = bell
        bell.want(bool(self._sinks))
        async with asyncio.TaskGroup() as tasks:
            parts = [
                tasks.create_task(bell.run()),
                tasks.create_task(_patiently("the log", lambda outage: self._follow(bell, stopping, outage), stopping)),
                tasks.create_task(_patiently("notices", lambda outage: self._listen(stopping, outage), stopping)),
            ]
            await stopping.wait()
            for sink in tuple(self._sinks):
                sink.take_stop()
            bell.stop()
            for one in parts[1:]:
                one.cancel()

    def _want(self, wanted: bool) -> None:
        if wanted:
            self._wanted.set()
        else:
            self._wanted.clear()
        if self._bell is not None:
            self._bell.want(wanted)

    async def _follow(self, bell: Doorbell, stopping: asyncio.Event, outage: Outage) -> None:
        while not stopping.is_set():
            await self._wanted.wait()
            await bell.wait(LOOK_EVERY)
            while self._position is not None and not await self._read_page(self._position):
                outage.over()
            await wait_or_stop(PAUSE, stopping)

    async def _read_page(self, since: Position) -> bool:
        """Give the sinks the next page; return whether it was the last one."""
        try:
            page = await read_events(self._database.pool, since)
        except InvalidInputError:
            logger.warning("the database has been restored: event streams go on from now")
            page = EventPage([], await read_now(self._database.pool), is_last=True)
        if self._position is not since:
            return True  # all readers have left meanwhile, and others may have come
        self._position = page.position
        if page.events:
            for sink in tuple(self._sinks):
                sink.take_events(page.events)
        return page.is_last

    async def _listen(self, stopping: asyncio.Event, outage: Outage) -> None:
        def receive(notice: Notice) -> None:
            for sink in tuple(self._sinks):
                sink.take_notice(notice)

        def connected() -> None:
            outage.over()
            for sink in tuple(self._sinks):
                sink.take_gap()

        await listen(self._database, receive, connected, stopping)


class Reader:
    """The buffer of one stream of events."""

    def __init__(self, wanted: EventFilter) -> None:
        self._filter = wanted
        self._events: list[FeedEvent] = []
        self._filled = asyncio.Event()
        self.is_behind = False
        """Whether events were left out because too many wait: the reader must go on from the log."""

    def take_events(self, events: Sequence[FeedEvent]) -> None:
        """Take events if they are wanted."""
        for one in events:
            if not self.is_behind and self._filter.takes(one.event):
                self._events.append(one)
                if len(self._events) > BUFFER:
                    self.is_behind = True
                    self._events.clear()
                self._filled.set()

    def take_notice(self, _: Notice) -> None:
        """Ignore it: streams have events only."""

    def take_gap(self) -> None:
        """Ignore it: events are not missed."""

    def take_stop(self) -> None:
        """Wake the stream, which then looks whether the program stops."""
        self._filled.set()

    async def wait(self, patience: float) -> bool:
        """Wait at most ``patience`` seconds; return whether there are events, or the program stops."""
        return await wait_or_stop(patience, self._filled)

    def pop(self) -> list[FeedEvent]:
        """Return the events that wait, and forget them."""
        events, self._events = self._events, []
        if not self.is_behind:
            self._filled.clear()
        return events


async def _patiently(what: str, once: Callable[[Outage], Awaitable[None]], stopping: asyncio.Event) -> None:
    """Run a part again and again; while the database is away with growing pauses."""
    loop = asyncio.get_running_loop()
    failures = 0
    outage = Outage("live events wait for the database", "live events go on", part=what)
    while not stopping.is_set():
        began = loop.time()
        try:
            await once(outage)
        except Exception as error:
            if loop.time() - began > STABLE_AFTER:
                failures = 0
            if not is_connection_error(error):
                # A bug in the engine must not end the streams, nor hide.
                logger.exception("live events: a part has failed and begins again", part=what)
            else:
                outage.report(error)
        failures += 1
        await wait_or_stop(backoff(SERVER_AWAY, failures), stopping)
