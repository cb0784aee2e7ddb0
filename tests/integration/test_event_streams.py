"""Events over HTTP: in order, none left out, and no reader holds up another, the database or the end of the program."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from uuid import uuid4

import pytest
from websockets.asyncio.client import connect

from orchestrator.api import live
from orchestrator.api.routes import events
from orchestrator.broker.outgoing import Outgoing
from orchestrator.broker.topology import Exchanges
from orchestrator.db.processes import feed
from orchestrator.db.session import Database
from tests.integration.live_api import LiveApi, live_api
from tests.integration.log_rows import Log
from tests.integration.waiting import until


@pytest.fixture
def log(database: Database) -> Log:
    return Log(database)


@pytest.fixture
async def api(database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LiveApi]:
    """Serve the API without a broker: the log is looked at all the same."""
    monkeypatch.setattr(live, "LOOK_EVERY", 0.05)
    async with live_api(database) as made:
        yield made


async def test_a_stream_has_the_events_of_the_messages_and_says_how_to_treat_it(api: LiveApi, log: Log) -> None:
    process_id = await log.process("create_port")
    async with api.stream() as stream:
        await stream.is_following()
        await log.store(process_id, 1)
        await stream.has(1)
    headers = stream.response.headers
    assert headers["content-type"].startswith("text/event-stream")
    assert (headers["cache-control"], headers["x-accel-buffering"]) == ("no-store", "no")
    event = stream.events[0]
    assert event.name == "step.event"
    assert event.id
    assert event.id.replace(".", "").isdecimal()
    assert event.json == {
        "process_id": str(process_id),
        "workflow": "create_port",
        "target": "SYSTEM",
        "is_task": False,
        "status": "success",
        "sequence": 1,
        "at": "2026-11-26T05:00:00Z",
        "user": "ana",
        "subscription_ids": [],
        "step": "Configure",
        "position": 4,
        "attempt": 2,
    }


async def test_what_commits_late_is_sent_to_who_has_seen_more_and_to_who_continues(api: LiveApi, log: Log) -> None:
    one, other = await log.process(), await log.process()
    async with api.stream() as stream:
        await stream.is_following()
        async with log.transaction() as slow:
            await log.add(slow, one, 1)
            await log.store(other, 1)
            await stream.has(1)
            seen = stream.last_id
        await stream.has(2)
        assert stream.sequences() == [(str(other), 1), (str(one), 1)]
        async with api.stream(last_id=seen) as second, api.stream(last_id=stream.last_id) as third:
            await second.is_following()
            await third.is_following()
            assert second.sequences() == [(str(one), 1)]
            assert third.sequences() == []


async def test_a_stream_continues_from_the_log_and_goes_on_live(
    api: LiveApi, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "PAGE", 10)
    process_id = await log.process()
    async with api.stream() as stream:
        await stream.is_following()
    for number in range(1, 51):
        await log.store(process_id, number)
    async with api.stream(last_id=stream.last_id) as again:
        writing = asyncio.create_task(_store_all(log, process_id, range(51, 101)))
        await again.has(100)
        await writing
        assert [number for _, number in again.sequences()] == list(range(1, 101))
        for one in again.events[::25]:
            async with api.stream(last_id=one.id) as rest:
                await rest.is_following()
                assert [number for _, number in rest.sequences()] == list(range(one.json["sequence"] + 1, 101))


async def _store_all(log: Log, process_id: object, numbers: range) -> None:
    for number in numbers:
        await log.store(process_id, number)  # type: ignore[arg-type]


async def test_a_stream_has_only_what_was_asked_for(api: LiveApi, log: Log) -> None:
    subscription_id = str(uuid4())
    one, two = await log.process("a"), await log.process("b", {"subscription_id": subscription_id})
    queries: list[dict[str, str]] = [{"process": str(one)}, {"workflow": "b"}, {"subscription": subscription_id}, {}]
    async with AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(api.stream(**query)) for query in queries]
        for stream in streams:
            await stream.is_following()
        first = streams[0].last_id
        await log.store(one, 1)
        await log.store(two, 1)
        await streams[3].has(2)
        assert [stream.sequences() for stream in streams[:3]] == [[(str(one), 1)], [(str(two), 1)], [(str(two), 1)]]
        for query, expected in zip(queries, (one, two, two), strict=False):
            async with api.stream(last_id=first, **query) as again:
                await again.is_following()
                assert again.sequences() == [(str(expected), 1)]


@pytest.mark.parametrize(
    "last_id", ["x", "-1", "1.", "1 2", "9223372036854775807", "9223372036854775808", "7.9", "1" * 9000, "1;DROP"]
)
async def test_an_id_that_is_not_of_this_stream_is_refused(api: LiveApi, last_id: str) -> None:
    response = await api.client.get("/api/events", headers={"last-event-id": last_id})
    assert response.status_code in {400, 422}
    assert response.headers["content-type"] == "application/problem+json"
    assert last_id not in response.text or len(last_id) < 3


@pytest.mark.parametrize("query", ["process=x", "process=%00", "subscription=1", "workflow=%00", "workflow="])
async def test_a_filter_that_cannot_be_is_refused(api: LiveApi, query: str) -> None:
    response = await api.client.get(f"/api/events?{query}")
    assert response.status_code == 422


async def test_names_cannot_break_out_of_their_event(api: LiveApi, log: Log) -> None:
    name = "a\r\nid: 1\n\ndata: x\r\u2028\u0085: b"
    process_id = await log.process("w\nid: 7")
    async with api.stream() as stream:
        await stream.is_following()
        await log.store(process_id, 1, name=name)
        await stream.has(1)
        await log.store(process_id, 2)
        await stream.has(2)
    assert stream.events[0].json["step"] == name
    assert stream.events[0].json["workflow"] == "w\nid: 7"
    assert len(stream.events) == 2


async def test_open_streams_hold_no_connection_of_the_database(database_url: str, log: Log) -> None:
    database = Database(database_url, pool_size=2, engine_connections=2, connect_timeout=30, application_name="small")
    await database.open()
    try:
        async with live_api(database) as api, AsyncExitStack() as stack:
            process_id = await log.process()
            await log.store(process_id, 1)
            streams = [await stack.enter_async_context(api.stream()) for _ in range(20)]
            for stream in streams:
                await stream.is_following()
            for _ in range(20):
                await stack.enter_async_context(connect(f"ws://127.0.0.1:{api.port}/api/ws/events", open_timeout=60))
            await until(lambda: api.context.live.readers == 40, "all are served")
            await log.store(process_id, 2)
            for stream in streams:
                await stream.has(1)
            assert (await api.client.get("/api/processes")).status_code == 200
            assert database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
            busy = await log.database.pool.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'small' AND state <> 'idle'"
                " AND query NOT LIKE 'LISTEN%' AND backend_xmin IS NOT NULL"
            )
            assert busy == 0
    finally:
        await database.close()


async def test_answers_that_nobody_reads_hold_no_connection_of_the_database(database_url: str, log: Log) -> None:
    """More clients than connections ask for something large, and read nothing of it."""
    process_id = await log.process()
    await log.store(process_id, *range(1, 201), name="x" * 50_000)
    database = Database(database_url, pool_size=2, engine_connections=2, connect_timeout=30, application_name="small")
    await database.open()
    loop = asyncio.get_running_loop()
    try:
        # The sockets are closed first: the API waits for its clients before it ends.
        async with live_api(database) as api, AsyncExitStack() as frozen:
            for _ in range(5):
                one = frozen.enter_context(socket.socket())
                one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                one.setblocking(False)
                await loop.sock_connect(one, ("127.0.0.1", api.port))
                await loop.sock_sendall(one, f"GET /api/processes/{process_id} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                assert (await loop.sock_recv(one, 12)).endswith(b"200")
            assert (await api.client.get("/api/processes")).status_code == 200
            assert database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    finally:
        await database.close()


async def test_a_reader_that_stops_reading_holds_up_nobody_and_misses_nothing(
    api: LiveApi, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "BUFFER", 20)
    process_id = await log.process()
    loop = asyncio.get_running_loop()
    padding = "x" * 20_000
    count = 600
    received = bytearray()

    def numbers() -> list[int]:
        *whole, _ = received.split(b"\r\n")  # what comes after the last end of a line may be half a line
        return [json.loads(line[6:])["sequence"] for line in whole if line.startswith(b"data: ")]

    with socket.create_connection(("127.0.0.1", api.port)) as frozen:
        frozen.setblocking(False)
        await loop.sock_sendall(frozen, b"GET /api/events HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: api.context.live.readers == 1, "the frozen reader is there")
        async with api.stream() as stream:
            await stream.is_following()
            async with log.transaction() as connection:
                await log.add(connection, process_id, *range(1, count + 1), name=padding)
            await stream.has(count)
            assert [number for _, number in stream.sequences()] == list(range(1, count + 1))

        async def has_all() -> bool:
            received.extend(await loop.sock_recv(frozen, 1_000_000))
            return received.count(b"\r\ndata: ") >= count and len(numbers()) >= count

        await until(has_all, "the frozen reader has read everything")
    assert numbers() == list(range(1, count + 1))


async def test_fifty_readers_that_take_nothing_are_dropped_and_hold_up_nobody(
    api: LiveApi, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While they are there, the others get everything, and requests are answered."""
    monkeypatch.setattr(events, "SEND_PATIENCE", 2)
    process_id = await log.process()
    frozen = [socket.socket() for _ in range(50)]
    loop = asyncio.get_running_loop()
    try:
        for one in frozen:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one.setblocking(False)
            await loop.sock_connect(one, ("127.0.0.1", api.port))
            await loop.sock_sendall(one, b"GET /api/events HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: api.context.live.readers == 50, "the frozen readers are there")
        async with api.stream() as stream:
            await stream.is_following()
            async with log.transaction() as connection:
                await log.add(connection, process_id, *range(1, 401), name="x" * 10_000)
            await stream.has(400)
            assert (await api.client.get("/api/processes")).status_code == 200
            await until(lambda: api.context.live.readers == 1, "they have been dropped")
            await log.store(process_id, 401)
            await stream.has(401)
        await until(lambda: api.context.live.readers == 0, "none is left")
    finally:
        for one in frozen:
            one.close()


async def test_a_reader_that_leaves_is_forgotten(api: LiveApi) -> None:
    async with api.stream() as stream:
        await stream.is_following()
        assert api.context.live.readers == 1
    await until(lambda: api.context.live.readers == 0, "it is forgotten")


async def test_streams_end_with_an_event_when_the_program_stops(database: Database) -> None:
    async with live_api(database) as api, api.stream() as stream, api.stream() as other:
        await stream.is_following()
        await other.is_following()
        api.context.stopping.set()
        await until(lambda: stream.has_ended and other.has_ended, "both have ended")
        assert [(one.name, one.json) for one in stream.events] == [("end", {"reason": "stopping"})]
        async with api.stream() as late:
            await until(lambda: late.has_ended, "a late one ends at once")


async def test_a_silent_stream_is_kept_open_by_comments_that_carry_the_id_on(
    api: LiveApi, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert 15 <= events.PING_EVERY <= 25
    monkeypatch.setattr(events, "PING_EVERY", 0.2)
    one, other = await log.process("a"), await log.process("b")
    async with api.stream(workflow="a") as stream:
        await stream.is_following()
        first = stream.last_id
        await log.store(other, 1)
        await until(lambda: stream.last_id != first, "the id goes on")
        assert stream.events == []
        assert stream.comments[-1].comment == "ping"
        await log.store(one, 1)
        await stream.has(1)


async def test_an_event_comes_at_once_when_the_broker_has_it(
    database: Database, amqp_url: str, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "LOOK_EVERY", 600)
    async with live_api(database, amqp_url) as api, api.stream() as stream:
        await stream.is_following()
        publisher = api.context.publisher
        await publisher.open()
        process_id = await log.process()
        for number in (1, 2, 3):
            await log.store(process_id, number)
            await publisher.publish(Outgoing(Exchanges.EVENTS, "step.w.success", "step.event", b"{}", mandatory=False))
            await stream.has(number)
        await log.store(process_id, 4)
        api.context.live.wake()
        await stream.has(4)
        await publisher.close()
