"""A stream ends when its caller may no longer read, and none begins without permission."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets import Origin, Subprotocol
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from orchestrator.api import live
from orchestrator.api.routes import events, events_socket
from orchestrator.api.tokens import SKEW
from orchestrator.authorization import Role
from orchestrator.db.session import Database
from orchestrator.services.api_keys import MadeKey, create_key
from tests.integration.live_api import LiveApi, live_api
from tests.integration.waiting import until
from tests.oidc_issuer import AUDIENCE, ISSUER, Issuer, claims_of, sign

REVOKE = "UPDATE api_keys SET revoked_at = now() WHERE key_id = $1"
EXPIRE = "UPDATE api_keys SET expires_at = now() WHERE key_id = $1"


@pytest.fixture
async def api(database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LiveApi]:
    monkeypatch.setattr(live, "LOOK_EVERY", 0.05)
    monkeypatch.setattr(events, "PING_EVERY", 0.05)
    monkeypatch.setattr(events_socket, "CHECK_EVERY", 0.05)
    ways: dict[str, Any] = {"auth": "api-keys,oidc", "oidc_issuer": ISSUER, "oidc_audience": AUDIENCE}
    async with live_api(database, issuer=Issuer().transport, **ways) as made:
        yield made


async def make_key(database: Database) -> MadeKey:
    async with database.transaction() as session:
        return await create_key(session, "monitor", Role.READ, "tests", None)


@pytest.mark.parametrize("change", [REVOKE, EXPIRE])
async def test_a_stream_of_events_ends_when_its_key_does(api: LiveApi, database: Database, change: str) -> None:
    key = await make_key(database)
    api.client.headers["authorization"] = f"Bearer {key.secret}"
    async with api.stream() as stream:
        await stream.is_following()
        await database.pool.execute(change, key.key_id)
        await until(lambda: stream.has_ended, "the stream has ended")
    assert [(one.name, one.json) for one in stream.events] == [("end", {"reason": "unauthorized"})]
    async with api.stream(last_id=stream.last_id) as again:
        assert again.response.status_code == 401
        assert again.response.headers["www-authenticate"] == 'Bearer error="invalid_token"'


def offer(*protocols: str) -> dict[str, Any]:
    return {"subprotocols": [Subprotocol(one) for one in ("base64.bearer.token", *protocols)]}


async def test_a_websocket_is_closed_when_its_key_is_revoked(api: LiveApi, database: Database) -> None:
    key = await make_key(database)
    async with connect(f"ws://127.0.0.1:{api.port}/api/ws/events", **offer(key.secret)) as socket:
        await socket.send("__ping__")
        assert await socket.recv() == "__pong__"
        await database.pool.execute(REVOKE, key.key_id)
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                await socket.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008


async def test_streams_end_with_the_token_that_opened_them(api: LiveApi) -> None:
    """The token has expired already; the 30 seconds by which clocks may differ are nearly over."""
    token = sign(claims_of(roles=["read"], exp=time.time() - SKEW + 10))  # until then both must be open
    api.client.headers["authorization"] = f"Bearer {token}"
    async with api.stream() as stream, connect(f"ws://127.0.0.1:{api.port}/api/ws/events", **offer(token)) as socket:
        await stream.is_following()
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                await socket.recv()
        await until(lambda: stream.has_ended, "the stream has ended")
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008
    assert [(one.name, one.json) for one in stream.events] == [("end", {"reason": "unauthorized"})]
    async with api.stream(last_id=stream.last_id) as again:
        assert again.response.status_code == 401


async def test_a_websocket_needs_a_token_with_a_role_and_never_repeats_it(api: LiveApi) -> None:
    url = f"ws://127.0.0.1:{api.port}/api/ws/events"
    async with connect(url, **offer(sign(claims_of(roles=["read"])))) as socket:
        assert socket.subprotocol == "base64.bearer.token"
        assert socket.response is not None
        assert sign().partition(".")[0] not in str(socket.response.headers)
    for options in ({}, offer(), offer("abc"), offer(sign(claims_of(roles=[])))):
        with pytest.raises(InvalidStatus) as refused:
            await connect(url, **options)
        assert refused.value.response.status_code == 403


async def test_open_streams_that_are_checked_hold_no_connection(api: LiveApi, database: Database) -> None:
    """Through the check of their keys as well."""
    key = await make_key(database)
    api.client.headers["authorization"] = f"Bearer {key.secret}"
    async with api.stream() as first, api.stream() as second:
        await first.is_following()
        await second.is_following()
        await until(lambda: len(first.comments) > 3, "it was checked some times")
        assert database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
        assert await database.pool.fetchval(
            "SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'"
        )


async def test_a_websocket_opens_below_the_prefix_of_a_proxy_whether_it_is_stripped_or_not(database: Database) -> None:
    async with live_api(database, public_url="https://orch.example/noc") as api:
        for path in ("/noc/api/ws/events", "/api/ws/events"):
            async with connect(f"ws://127.0.0.1:{api.port}{path}", origin=Origin("https://orch.example")) as socket:
                await socket.send("__ping__")
                assert await socket.recv() == "__pong__"
        with pytest.raises(InvalidStatus):
            await connect(f"ws://127.0.0.1:{api.port}/api/ws/events", origin=Origin("https://evil.example"))
