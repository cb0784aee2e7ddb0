"""The API on a socket in this process, with everything that makes it live, and readers of its streams."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from orchestrator.api.app import create_app
from orchestrator.api.context import ApiContext
from orchestrator.api.program import Server, address_of, bind
from orchestrator.broker.connection import BrokerAddress
from orchestrator.broker.doorbell import Doorbell
from orchestrator.broker.topology import Topology
from orchestrator.db.session import Database
from tests.integration.api_client import make_context
from tests.integration.waiting import until
from tests.servers import NO_CERTIFICATES


@dataclass(slots=True)
class Event:
    """One block of a stream, as the standard's parser reads it; a comment alone has no data."""

    id: str | None = None
    name: str = "message"
    data: str = ""
    comment: str = ""

    @property
    def json(self) -> Any:
        """The data."""
        return json.loads(self.data)


@dataclass(slots=True)
class Stream:
    """What has come over one stream so far."""

    response: httpx.Response
    events: list[Event] = field(default_factory=list)
    comments: list[Event] = field(default_factory=list)
    last_id: str = ""
    has_ended: bool = False

    async def read(self) -> None:
        """Read to the end."""
        left = b""
        async for chunk in self.response.aiter_bytes():
            *blocks, left = (left + chunk).split(b"\r\n\r\n")
            for one in blocks:
                self._take(_parse(one.decode()))
        assert not left
        self.has_ended = True

    def _take(self, block: Event) -> None:
        if block.id is not None:
            self.last_id = block.id
        (self.events if block.data else self.comments).append(block)

    def sequences(self) -> list[tuple[str, int]]:
        """Return process and number of each event."""
        return [(one.json["process_id"], one.json["sequence"]) for one in self.events if one.name != "end"]

    async def is_following(self) -> None:
        """Wait until the stream has everything so far, and gets what happens from now on."""
        await until(lambda: any(one.comment == "following" for one in self.comments), "the stream follows")

    async def has(self, count: int) -> None:
        """Wait until so many events have come."""
        await until(lambda: len(self.events) >= count, f"{count} events have come")


def _parse(text: str) -> Event:
    block, data = Event(), []
    for line in re.split(r"\r\n|\r|\n", text):
        key, _, value = line.partition(": ")
        match key:
            case "data":
                data.append(value)
            case "event":
                block.name = value
            case "id":
                block.id = value
            case "retry":
                assert value.isdecimal()
            case "":
                block.comment = value
            case _:
                pytest.fail(f"not a field: {line!r}")
    block.data = "\n".join(data)
    return block


class _Mute(Doorbell):
    """Listens to no broker."""

    async def run(self) -> None:
        """Wait for the end."""
        await self._stopping.wait()


@dataclass(slots=True)
class LiveApi:
    """A running API."""

    context: ApiContext
    server: Server
    client: httpx.AsyncClient
    port: int

    @asynccontextmanager
    async def stream(self, *, last_id: str | None = None, **query: str) -> AsyncIterator[Stream]:
        """Open a stream of events."""
        headers = {} if last_id is None else {"last-event-id": last_id}
        async with self.client.stream("GET", "/api/events", params=query, headers=headers) as response:
            stream = Stream(response)
            if response.status_code != 200:
                await response.aread()
                yield stream
                return
            reading = asyncio.create_task(stream.read())
            try:
                yield stream
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)


@asynccontextmanager
async def live_api(
    database: Database, amqp_url: str | None = None, issuer: httpx.AsyncBaseTransport | None = None, **settings: Any
) -> AsyncIterator[LiveApi]:
    """Serve the API; without a broker when none is given."""
    if amqp_url is not None:
        settings["amqp_url"] = amqp_url
    context = make_context(database, **settings)
    bell = (_Mute if amqp_url is None else Doorbell)(
        BrokerAddress.of(context.settings, "tests"), Topology.of("classic"), "api.tests"
    )
    listener = bind("127.0.0.1", 0)
    # Accepted sockets have it, too: what a reader does not read is noticed after kilobytes, not after megabytes.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
    server = Server(create_app(context, issuer), 20)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(context.live.run(bell, context.stopping))
        serving = tasks.create_task(server.serve([listener]))
        await until(lambda: server.started, "the API serves")
        if amqp_url is not None:
            await until(lambda: bell.is_connected, "the API hears of events")
        limits = httpx.Limits(max_connections=None)
        url = address_of(listener)
        async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits, verify=NO_CERTIFICATES) as client:
            try:
                yield LiveApi(context, server, client, listener.getsockname()[1])
            finally:
                context.stopping.set()
                server.should_exit = True
                await serving
