"""Follow the events of processes as server-sent events, from now on or from the last one that was seen."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from functools import lru_cache, partial
from typing import Annotated, Final
from uuid import UUID

from fastapi import Depends, Header, Query
from sse_starlette.event import ServerSentEvent
from sse_starlette.sse import EventSourceResponse, SendTimeoutError
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from orchestrator.api.authentication import Authenticator
from orchestrator.api.bodies import Router
from orchestrator.api.callers import Caller, Role, find_authenticator, requires
from orchestrator.api.context import ApiContext, Context
from orchestrator.api.live import BUFFER, Reader
from orchestrator.db.session import is_database_outage
from orchestrator.engine.position import MAX_TEXT, Position
from orchestrator.messages import MessageType, Name, StepEvent, encode
from orchestrator.services.feed import EventFilter, EventPage, FeedEvent, parse_position

router = Router(prefix="/events", tags=["events"])

PING_EVERY: Final = 15.0
"""Seconds without an event after which a comment is sent: proxies end what is silent for a minute."""

SEND_PATIENCE: Final = 20.0
"""Seconds in which a reader must take something before its stream is ended."""

CHUNK: Final = 32_768
"""Bytes after which waiting events are sent."""

RETRY: Final = (1000, 5000)
"""Milliseconds after which a client connects again, at random between these: not all of them at one moment."""


class _Stream(EventSourceResponse):
    """A stream whose reader may stop reading: it is then ended, which is no error."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except SendTimeoutError:
            return


@router.get(
    "",
    operation_id="follow_events",
    response_class=EventSourceResponse,
    responses={
        200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}, "description": "The events."},
        400: {"description": "`Last-Event-ID` is not an id of this stream."},
    },
)
async def follow_events(
    context: Context,
    caller: Annotated[Caller, requires(Role.READ)],
    authenticator: Annotated[Authenticator, Depends(find_authenticator)],
    process: Annotated[UUID | None, Query(description="Only of this process.")] = None,
    workflow: Annotated[Name | None, Query(description="Only of processes of this workflow.")] = None,
    subscription: Annotated[UUID | None, Query(description="Only of processes of this subscription.")] = None,
    last_event_id: Annotated[
        str | None,
        Header(alias="Last-Event-ID", max_length=MAX_TEXT, description="Continue after this event, from the log."),
    ] = None,
) -> Response:
    """Follow what happens to processes. Each event has the JSON of the message on RabbitMQ; a comment comes when none does.

    At least once, in the order of `sequence` for each process. A client that connects again with `Last-Event-ID` misses none.
    """
    wanted = EventFilter(process, workflow, subscription)
    return await open_stream(context, partial(authenticator.is_current, caller), wanted, last_event_id)


async def open_stream(
    context: ApiContext, may_read: Callable[[], Awaitable[bool]], wanted: EventFilter, last_event_id: str | None
) -> Response:
    """Return the answer that is a stream of events.

    Args:
        may_read: whether the reader still may; asked now and then.

    Raises:
        InvalidInputError: see :func:`parse_position`.
    """
    # Before the stream begins, so that what cannot be read is refused by a status.
    page = None if not last_event_id else await context.live.read(parse_position(last_event_id), wanted)
    return _Stream(_Events(context, may_read, wanted).stream(page), ping=0, send_timeout=SEND_PATIENCE)


class _Events:
    """What one stream sends.

    Args:
        may_read: whether its caller still may; asked now and then.
    """

    def __init__(self, context: ApiContext, may_read: Callable[[], Awaitable[bool]], wanted: EventFilter) -> None:
        self._context = context
        self._may_read = may_read
        self._wanted = wanted
        self._position: Position | None = None
        """From which on the reader has not got everything."""
        self._end: str | None = None
        """Why the stream ends, once it does."""
        self._check_at = 0.0

    async def stream(self, page: EventPage | None) -> AsyncIterator[ServerSentEvent | bytes]:
        """Send a page from the log if there is one, then everything until the stream must end."""
        try:
            if page is not None:
                async for one in self._send_log(page):
                    yield one
            while not await self._must_end():
                async for one in self._send_live():
                    yield one
        except Exception as error:
            if not is_database_outage(error):
                raise
            self._end = "database unavailable"
        yield ServerSentEvent(json.dumps({"reason": self._end}), event="end", retry=_some_time())

    async def _send_log(self, page: EventPage) -> AsyncIterator[ServerSentEvent | bytes]:
        """Send a page and those that follow it."""
        while True:
            for chunk in _chunks(page.events):
                yield chunk
            self._position = page.position
            if page.is_last or await self._must_end():
                return
            page = await self._context.live.read(self._position, self._wanted)

    async def _send_live(self) -> AsyncIterator[ServerSentEvent | bytes]:
        """Send what happens, until the reader has fallen behind or the stream must end."""
        live, reader = self._context.live, Reader(self._wanted)
        async with live.joined(reader) as start:
            if self._position is not None:
                # What was committed between the last look at the log and now.
                async for one in self._send_log(await live.read(self._position, self._wanted)):
                    yield one
            known = self._position = self._position or start
            yield ServerSentEvent(comment="following", id=str(known), retry=_some_time())
            while not await self._must_end():
                if reader.is_behind:
                    return
                waiting = reader.pop()
                if not waiting:
                    self._position = live.position
                    if not await reader.wait(self._check_at - asyncio.get_running_loop().time()):
                        # The id goes on although no event was wanted: to continue then costs no walk through the log.
                        yield ServerSentEvent(comment="ping", id=str(self._position))
                fresh = [one for one in waiting if not known.covers(one.txid)]
                for chunk in _chunks(fresh):
                    yield chunk
                if fresh:
                    self._position = fresh[-1].position

    async def _must_end(self) -> bool:
        """Return whether the stream must end now."""
        now = asyncio.get_running_loop().time()
        if self._context.stopping.is_set():
            self._end = "stopping"
        elif now >= self._check_at:
            self._check_at = now + PING_EVERY
            if not await self._may_read():
                self._end = "unauthorized"
        return self._end is not None


def _chunks(events: Iterable[FeedEvent]) -> Iterator[bytes]:
    """Return events as the stream has them, as many together as are worth one packet."""
    waiting: list[bytes] = []
    size = 0
    for one in events:
        waiting.append(_format(one))
        size += len(waiting[-1])
        if size > CHUNK:
            yield b"".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)


@lru_cache(maxsize=BUFFER)
def _format(one: FeedEvent) -> bytes:
    """Return an event as the stream has it; once for all readers, who have it at nearly the same time."""
    kind = MessageType.STEP_EVENT if isinstance(one.event, StepEvent) else MessageType.PROCESS_EVENT
    return ServerSentEvent(encode(one.event).decode(), event=kind.value, id=str(one.position)).encode()


def _some_time() -> int:
    return random.randint(*RETRY)  # noqa: S311 - not a secret
