"""Dead letters over HTTP, on real servers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import httpx
import pytest

from orchestrator.api.app import create_app
from orchestrator.broker.publisher import Publisher
from orchestrator.broker.topology import Exchanges, Queues
from orchestrator.db.session import Database
from tests.integration.api_client import make_context, open_api
from tests.integration.letter_bench import SENT, fail, kept, only, publish, publishing, reading


@pytest.fixture
async def publisher(amqp_url: str) -> AsyncIterator[Publisher]:
    async with publishing(amqp_url) as made:
        yield made


@pytest.fixture
async def api(database: Database, amqp_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application whose publisher is connected."""
    context = make_context(database, amqp_url=amqp_url, queue_type="quorum")
    await context.publisher.open()
    transport = httpx.ASGITransport(app=create_app(context))
    async with httpx.AsyncClient(transport=transport, base_url="http://api.example", timeout=60) as client:
        yield client
    await context.publisher.close()


async def test_letters_are_listed_shown_replayed_and_discarded(
    api: httpx.AsyncClient, amqp_url: str, database: Database, publisher: Publisher
) -> None:
    async with reading(amqp_url, database, publisher, {Queues.COMMANDS.value: fail}):
        for number in range(3):
            await publish(
                amqp_url,
                Exchanges.COMMANDS,
                "workflow.start",
                b'{"workflow": "create_port"}',
                message_id=f"order-{number}",
                app_id="crm",
                timestamp=SENT,
                headers={"tenant": "north", "when": SENT, "many": [1, {"x": None}]},
            )
            await kept(database, number + 1)
    answer = await api.get("/api/dead-letters", params={"limit": 2, "workflow": "create_port"})
    assert answer.headers["content-range"] == "dead_letters 0-1/3"
    listed = answer.json()
    assert [one["message_id"] for one in listed] == ["order-2", "order-1"]
    assert (await api.get("/api/dead-letters", params={"workflow": "another"})).json() == []
    shown = (await api.get(f"/api/dead-letters/{listed[0]['id']}")).json()
    assert (shown["app_id"], shown["timestamp"]) == ("crm", "2026-11-26T07:30:00Z")
    assert shown["headers"] == {"tenant": "north", "when": "2026-11-26T07:30:00+00:00", "many": [1, {"x": None}]}
    assert (shown["body"], shown["body_encoding"]) == ({"workflow": "create_port"}, "json")

    replayed = await api.post(f"/api/dead-letters/{listed[0]['id']}/replay")
    assert (replayed.status_code, replayed.json()["outcome"]) == (200, "replayed")
    assert (await only(amqp_url, Queues.COMMANDS)).message_id == "order-2"
    again = await api.post(f"/api/dead-letters/{listed[0]['id']}/replay")
    assert (again.status_code, again.headers["content-type"]) == (409, "application/problem+json")
    assert (await api.delete(f"/api/dead-letters/{listed[1]['id']}")).status_code == 204
    assert (await api.delete(f"/api/dead-letters/{listed[1]['id']}")).status_code == 409
    assert len((await api.get("/api/dead-letters")).json()) == 1
    closed = (await api.get("/api/dead-letters", params={"closed": True})).json()
    assert sorted(str(one["outcome"]) for one in closed) == ["None", "discarded", "replayed"]


async def test_without_a_broker_letters_are_read_and_a_replay_is_refused(database: Database, amqp_url: str) -> None:
    async with publishing(amqp_url) as publisher:
        await publish(amqp_url, Exchanges.DEAD, "", b"\xff", headers={"x-queue": "orchestrator.commands"})
        async with reading(amqp_url, database, publisher):
            (stored,) = await kept(database)
    async with open_api(database) as api:
        assert (await api.get("/api/dead-letters")).json()[0]["id"] == str(stored.summary.letter_id)
        answer = await api.post(f"/api/dead-letters/{stored.summary.letter_id}/replay")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        await kept(database)


NO_LETTER = "00000000-0000-4000-8000-000000000000"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", f"/api/dead-letters/{NO_LETTER}", 404),
        ("DELETE", f"/api/dead-letters/{NO_LETTER}", 404),
        ("GET", "/api/dead-letters/nonsense", 422),
        ("GET", "/api/dead-letters?limit=0", 422),
        ("GET", "/api/dead-letters?limit=99999999999999999999", 422),
        ("GET", "/api/dead-letters?offset=99999999999999999999", 422),
        ("GET", "/api/dead-letters?queue=%00", 422),
        ("GET", "/api/dead-letters?workflow=%ff", 200),
    ],
)
async def test_what_is_wrong_is_a_problem_document(database: Database, method: str, path: str, status: int) -> None:
    async with open_api(database) as api:
        answer = await api.request(method, path)
    assert answer.status_code == status
    if status != 200:
        assert answer.headers["content-type"] == "application/problem+json"


async def test_a_replay_of_nothing_is_not_found(api: httpx.AsyncClient) -> None:
    assert (await api.post(f"/api/dead-letters/{uuid4()}/replay")).status_code == 404
