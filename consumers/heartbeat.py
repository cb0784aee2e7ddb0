"""Record that a consumer is alive, from a thread of its own, and read its claims from the database.

A step that blocks the event loop stops everything on it, but the consumer is alive. So the heartbeat needs neither the loop nor
its connections. Whether the loop responds is a second fact in the row.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar
from uuid import UUID, uuid4

import structlog

from consumers.inbox import Inbox
from consumers.threads import StepThreads
from orchestrator.db.consumers import ConsumerFacts, record_heartbeat, remove_consumer
from orchestrator.db.engine_lock import read_engine_lock
from orchestrator.db.processes.claims import list_claim_times
from orchestrator.db.session import CONNECTION_ERRORS, Database, Driver, DriverPool
from orchestrator.hosts import program_name
from orchestrator.outage import Outage
from orchestrator.registry import Abilities
from orchestrator.services.pause import PauseReport
from orchestrator.stopping import wait_or_stop
from orchestrator.text import format_message
from orchestrator.watchdog import LoopWatch

logger = structlog.get_logger(__name__)

Claims = dict[UUID, datetime]
"""The processes that this consumer has claimed, and when by the database's clock."""

T = TypeVar("T")
STOP_TIMEOUT = 5.0
"""Seconds for deleting the row; if that fails, the consumer is presumed dead after a while."""

SOONER = 8
"""After a beat that has failed the next one comes so many times sooner than otherwise. The limit is a few intervals: one
that was waited for in vain and another whole one would use it up, and others would take the steps of a living consumer."""

_WITHOUT_FLUSH = "SET synchronous_commit = off"
"""A beat that a crash of the server loses is written again by the next one. So none waits for the disk behind the commits of
steps, which may take longest on a busy machine."""

OnBeat = Callable[[datetime, Claims], Awaitable[None]]


class Heartbeat:
    """The consumer's row in the table ``consumers``.

    Args:
        watch: measures whether the consumer's event loop responds.
        interval: seconds between two heartbeats.
        presumed_dead_after: seconds after which others may presume this consumer dead.
        revisions: the newest migrations in its code.
        inbox: the commands that it has received.
        threads: the threads for plain steps.
        consumer_id: the key of the row; default a new one.
    """

    def __init__(
        self,
        database: Database,
        queues: Sequence[str],
        concurrency: int,
        abilities: Abilities,
        watch: LoopWatch,
        *,
        interval: float,
        presumed_dead_after: float,
        revisions: Sequence[str] = (),
        inbox: Inbox | None = None,
        threads: StepThreads | None = None,
        consumer_id: UUID | None = None,
    ) -> None:
        name = program_name()
        self._facts = ConsumerFacts(
            consumer_id or uuid4(),
            name,
            tuple(queues),
            concurrency,
            interval,
            presumed_dead_after,
            abilities,
            tuple(revisions),
        )
        self._database = database
        self._watch = watch
        self._inbox = inbox
        self._threads = threads
        self._last: datetime | None = None
        self._recorded_at = asyncio.get_running_loop().time()
        self._pauses = PauseReport()
        self._thread: _BeatingThread | None = None

    @property
    def consumer_id(self) -> UUID:
        """The key of the row."""
        return self._facts.consumer_id

    @property
    def name(self) -> str:
        """The name of this consumer for people: host and process."""
        return self._facts.name

    @property
    def missing_for(self) -> float:
        """The seconds since the last recorded heartbeat."""
        return asyncio.get_running_loop().time() - self._recorded_at

    async def register(self) -> datetime:
        """Insert the row, without which no step can be claimed; return the database's time."""
        return await self._record(self._database.pool)

    async def run(self, on_beat: OnBeat) -> None:
        """Record heartbeats until :meth:`stop`; after each call ``on_beat`` with the database's time and the claims."""
        thread = self._thread = _BeatingThread(self._database, self._facts, self._beat)
        comparing: asyncio.Task[None] | None = None
        thread.start()
        try:
            while (found := await thread.next_beat()) is not None:
                if comparing is not None and comparing.done():
                    comparing.result()
                    comparing = None
                # In a task of its own, because a later beat's claims are newer: a released claim is published, and the broker
                # may be down.
                if comparing is None:
                    comparing = asyncio.create_task(_call(on_beat, *found))
        finally:
            thread.abandon()
            if comparing is not None:
                comparing.cancel()
                await asyncio.wait({comparing})

    async def stop(self) -> None:
        """Stop the heartbeat and delete the row."""
        if self._thread is not None:
            await self._thread.finish()

    async def _beat(self, connection: Driver) -> tuple[datetime, Claims]:
        now, claims = await self._record(connection), await list_claim_times(connection, self.consumer_id)
        self._pauses.report(await read_engine_lock(connection))
        return now, claims

    async def _record(self, connection: Driver | DriverPool) -> datetime:
        blockage = self._watch.blockage
        blocked_by = None if blockage is None else blockage.document()
        received = None if self._inbox is None else self._inbox.report()
        left_behind = 0 if self._threads is None else self._threads.left_behind
        unresponsive_for = self._watch.unresponsive_for
        now = await record_heartbeat(connection, self._facts, unresponsive_for, blocked_by, received, left_behind)
        if self._last is not None:
            _report_lateness(now - self._last, self._facts)
        self._last = now
        self._recorded_at = asyncio.get_running_loop().time()  # every loop has the same clock
        return now


class _BeatingThread:
    """A daemon thread, which ends with the program, with an event loop and a database connection of its own.

    Args:
        beat: records a heartbeat over a connection; returns the database's time and the claims.
    """

    def __init__(
        self, database: Database, facts: ConsumerFacts, beat: Callable[[Driver], Awaitable[tuple[datetime, Claims]]]
    ) -> None:
        self._database = database
        self._facts = facts
        self._beat = beat
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._removes = False
        self._connection: Driver | None = None
        # What follows belongs to the program's event loop.
        self._program = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._found: tuple[datetime, Claims] | None = None
        self._ended: asyncio.Future[None] = self._program.create_future()

    def start(self) -> None:
        """Start the thread."""
        threading.Thread(target=self._run, name="heartbeat", daemon=True).start()

    async def next_beat(self) -> tuple[datetime, Claims] | None:
        """Wait for a newer heartbeat than the last, and return its result; ``None`` when the thread has ended."""
        while True:
            await self._news.wait()
            self._news.clear()
            if self._ended.done():
                self._ended.result()
                return None
            found, self._found = self._found, None
            if found is not None:
                return found

    async def finish(self) -> None:
        """Let the thread delete the row as its last statement, and wait for its end."""
        self._removes = True
        self.abandon()
        await asyncio.wait({self._ended}, timeout=min(self._facts.presumed_dead_after, STOP_TIMEOUT))

    def abandon(self) -> None:
        """Let the thread end; the row stays, unless the thread was asked to delete it."""
        with suppress(RuntimeError):  # its loop is closed
            self._loop.call_soon_threadsafe(self._stopping.set)

    def _run(self) -> None:
        failure: BaseException | None = None
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._beat_until_stopped())
        except BaseException as error:
            failure = error
        self._post(lambda: self._end(failure))

    def _end(self, failure: BaseException | None) -> None:
        if failure is None:
            self._ended.set_result(None)
        else:
            self._ended.set_exception(failure)
        self._news.set()

    async def _beat_until_stopped(self) -> None:
        beating = Outage("heartbeat failed", "heartbeats are recorded again")
        try:
            pause = interval = self._facts.heartbeat_interval
            while not await wait_or_stop(pause, self._stopping):
                began = self._loop.time()
                found = await self._use_connection(self._beat, beating)
                if found is None:
                    pause = interval / SOONER
                    continue
                # The next heartbeat must not be late because this one takes long.
                pause = max(interval / SOONER, began + interval - self._loop.time())
                self._found = found
                self._post(self._news.set)
            if self._removes:
                remove = partial(remove_consumer, consumer_id=self._facts.consumer_id)
                await self._use_connection(remove, Outage("consumer row not removed", None))
        finally:
            if self._connection is not None:
                self._connection.terminate()

    async def _use_connection(self, action: Callable[[Driver], Awaitable[T]], outage: Outage) -> T | None:
        try:
            is_new = self._connection is None or self._connection.is_closed()
            if self._connection is None or is_new:
                self._connection = await self._database.connect()
            # Half of the limit, so that a connection that hangs leaves time for another one.
            async with asyncio.timeout(self._facts.presumed_dead_after / 2):
                if is_new:
                    await self._connection.execute(_WITHOUT_FLUSH)
                done = await action(self._connection)
        except CONNECTION_ERRORS as error:
            outage.report(error)
            if self._connection is not None:
                self._connection.terminate()
                self._connection = None
            return None
        else:
            outage.over()
            return done

    def _post(self, function: Callable[[], object]) -> None:
        with suppress(RuntimeError):  # the program has ended
            self._program.call_soon_threadsafe(function)


def _report_lateness(gap: timedelta, facts: ConsumerFacts) -> None:
    """Log a heartbeat that came late by the database's clock, which goes on while this machine is frozen."""
    seconds = gap.total_seconds()
    if seconds <= (facts.heartbeat_interval + facts.presumed_dead_after) / 2:
        return
    logger.warning(
        "heartbeat was late"
        if seconds <= facts.presumed_dead_after
        else "heartbeat was late: others may have given our steps away",
        seconds=round(seconds, 1),
        heartbeat_interval=facts.heartbeat_interval,
        presumed_dead_after=facts.presumed_dead_after,
    )


async def _call(on_beat: OnBeat, now: datetime, claims: Claims) -> None:
    try:
        await on_beat(now, claims)
    except CONNECTION_ERRORS as error:
        logger.warning("claims not compared", error=format_message(error))
