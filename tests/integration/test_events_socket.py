"""The WebSocket by which a user interface learns what is stale, as the field's user interface speaks it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest
from websockets import Subprotocol
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from orchestrator.api import live
from orchestrator.api.invalidations import EVERYTHING
from orchestrator.api.routes import events_socket
from orchestrator.db.notices import Change, Notice, notify
from orchestrator.db.session import Database
from orchestrator.services.pause import set_paused
from tests.integration.live_api import LiveApi, live_api
from tests.integration.log_rows import Log
from tests.integration.waiting import until


@pytest.fixture
def log(database: Database) -> Log:
    return Log(database)


@pytest.fixture
async def api(database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LiveApi]:
    monkeypatch.setattr(live, "LOOK_EVERY", 0.05)
    async with live_api(database) as made:
        await until(lambda: _listens(database), "changes are listened to")
        yield made


async def _listens(database: Database) -> bool:
    found = await database.pool.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"
    )
    return bool(found)


@asynccontextmanager
async def socket_of(api: LiveApi, **options: Any) -> AsyncIterator[ClientConnection]:
    before = api.context.live.readers
    async with connect(f"ws://127.0.0.1:{api.port}/api/ws/events", **options) as socket:
        await until(lambda: api.context.live.readers > before, "the socket is served")
        yield socket
    await until(lambda: api.context.live.readers == before, "it is forgotten")


HANDSHAKE = (
    b"GET /api/ws/events HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
MASKED_PING = b"\x81\x88\0\0\0\0__ping__"
"""A text frame; the mask is zero."""


async def next_value(socket: ClientConnection) -> Mapping[str, str]:
    message = json.loads(await asyncio.wait_for(socket.recv(), 30))
    assert message["name"] == "invalidateCache"
    assert set(message) == {"name", "value"}
    value: Mapping[str, str] = message["value"]
    return value


async def test_a_ping_is_answered(api: LiveApi) -> None:
    async with socket_of(api) as socket:
        for text in ("__ping__", "something else", "__ping__"):
            await socket.send(text)
        assert [await asyncio.wait_for(socket.recv(), 30) for _ in range(2)] == ["__pong__", "__pong__"]


async def test_the_first_subprotocol_is_chosen_and_none_when_none_is_offered(api: LiveApi) -> None:
    async with socket_of(api) as socket:
        assert socket.subprotocol is None
    offered = [Subprotocol("base64.bearer.token"), Subprotocol("c2VjcmV0")]
    async with socket_of(api, subprotocols=offered) as socket:
        assert socket.subprotocol == "base64.bearer.token"


async def test_a_large_frame_ends_the_socket(api: LiveApi) -> None:
    async with socket_of(api) as socket:
        await socket.send("x" * 1_048_576)
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(socket.recv(), 30)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009


async def test_an_event_names_what_is_stale_once(api: LiveApi, log: Log) -> None:
    subscription_id = uuid4()
    process_id = await log.process("w", {"subscription_id": str(subscription_id)})
    async with socket_of(api) as socket:
        await log.store(process_id, *range(1, 50), kind="process")
        assert [await next_value(socket) for _ in range(5)] == [
            {"type": "processes", "id": "LIST"},
            {"type": "processes", "id": str(process_id)},
            {"type": "processStatusCounts"},
            {"type": "subscriptions", "id": str(subscription_id)},
            {"type": "subscriptions"},
        ]
        await socket.send("__ping__")
        assert await asyncio.wait_for(socket.recv(), 30) == "__pong__"


async def test_a_message_comes_after_the_commit(api: LiveApi, database: Database) -> None:
    """What is read on receipt has changed."""
    async with socket_of(api) as socket:
        for paused in (True, False):
            async with database.transaction() as session:
                await set_paused(session, paused, "ana")
                await socket.send("__ping__")
                assert await asyncio.wait_for(socket.recv(), 30) == "__pong__"
            assert await next_value(socket) == {"type": "engineStatus"}
            assert await database.pool.fetchval("SELECT global_lock FROM engine_settings") is paused


async def test_changes_without_an_event_are_told_of(api: LiveApi, log: Log, database: Database) -> None:
    process_id, subscription_id = await log.process(), uuid4()
    stale = [{"type": "processes"}, {"type": "processes", "id": "LIST"}, {"type": "processStatusCounts"}]
    async with socket_of(api) as socket:
        await database.pool.execute("UPDATE processes SET note = 'wait for the NOC' WHERE process_id = $1", process_id)
        assert [await next_value(socket) for _ in range(3)] == stale
        await database.pool.execute("DELETE FROM processes")
        assert [await next_value(socket) for _ in range(3)] == stale
        async with database.transaction() as session:
            await notify(session, Notice(Change.SUBSCRIPTIONS, subscription_id))
        assert [await next_value(socket) for _ in range(2)] == [
            {"type": "subscriptions", "id": str(subscription_id)},
            {"type": "subscriptions"},
        ]


async def test_a_product_that_is_changed_is_fetched_again(api: LiveApi, database: Database) -> None:
    product = await database.pool.fetchval(
        "INSERT INTO products (name, product_type) VALUES ('Node', 'Node') RETURNING product_id"
    )
    async with socket_of(api) as socket:
        for change in ({"description": "ten gigabits"}, {"status": "end_of_life"}):
            answer = await api.client.patch(f"/api/products/{product}", json=change)
            assert answer.status_code == 200, answer.text
            assert await next_value(socket) == {"type": "metadataProducts"}


async def test_a_schedule_that_is_added_changed_or_removed_is_fetched_again(api: LiveApi, database: Database) -> None:
    async with socket_of(api) as socket:
        for change in (
            (
                "INSERT INTO schedules (name, origin, workflow, inputs, trigger, enabled, missed, missed_limit, overlap, jitter,"
                " settled_through, zone_rules, created_by, changed_by)"
                " VALUES ('nightly', 'person', 'w', '[]', '{}', true, 'once', 10, 'skip', 0, now(), '', 'ana', 'ana')"
            ),
            "UPDATE schedules SET enabled = false",
            "UPDATE schedules SET deleted_at = now()",
            "DELETE FROM schedules",
        ):
            await database.pool.execute(change)
            assert await next_value(socket) == {"type": "scheduledTags"}
        await database.pool.execute("UPDATE schedules SET enabled = true")
        await database.pool.execute("UPDATE engine_settings SET global_lock = false")
        assert await next_value(socket) == {"type": "engineStatus"}


async def test_when_changes_may_have_been_missed_everything_is_stale(api: LiveApi, database: Database) -> None:
    async with socket_of(api) as socket:
        await database.pool.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND query LIKE 'LISTEN%'"
        )
        assert [await next_value(socket) for _ in EVERYTHING] == [{"type": kind.value} for kind, _ in EVERYTHING]


async def test_a_socket_is_closed_when_the_program_stops(database: Database) -> None:
    async with live_api(database) as api, socket_of(api) as socket:
        api.context.stopping.set()
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(socket.recv(), 30)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012


async def test_one_socket_that_is_not_read_holds_up_none_of_99_others_and_is_dropped(
    api: LiveApi, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It asks without reading the answers, until the program can send it nothing more."""
    monkeypatch.setattr(events_socket, "SEND_PATIENCE", 2)
    loop = asyncio.get_running_loop()
    process_id = await log.process()
    frozen = socket.socket()
    frozen.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    frozen.setblocking(False)
    async with AsyncExitStack() as stack:
        stack.callback(frozen.close)
        await loop.sock_connect(frozen, ("127.0.0.1", api.port))
        await loop.sock_sendall(frozen, HANDSHAKE)
        await until(lambda: api.context.live.readers == 1, "the frozen one is served")
        # Without a limit for what has come and was not asked for: one at its limit does not see the end of the connection either.
        address = f"ws://127.0.0.1:{api.port}/api/ws/events"
        others = [await stack.enter_async_context(connect(address, open_timeout=60, max_queue=None)) for _ in range(99)]
        await until(lambda: api.context.live.readers == 100, "all are served")

        async def ask() -> None:
            with contextlib.suppress(OSError):
                while True:
                    await loop.sock_sendall(frozen, MASKED_PING * 100)

        asking = asyncio.create_task(ask())
        for number in range(1, 6):
            await log.store(process_id, number, kind="process")
            for one in others:
                assert await next_value(one) == {"type": "processes", "id": "LIST"}
                while await next_value(one) != {"type": "processStatusCounts"}:
                    pass
        while api.context.live.readers == 100:
            number += 1
            await log.store(process_id, number, kind="process")
            await next_value(others[0])
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
