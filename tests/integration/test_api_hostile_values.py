"""Values that no column holds, in every field of a body that the OpenAPI document knows; and times."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx
import pytest

from orchestrator.db.session import Database
from tests.integration import api_flows
from tests.integration.api_client import open_api
from tests.integration.subscription_rows import Rows

VALUES: tuple[Any, ...] = (
    "a\0b",
    "x" * 5_000,
    "",
    2**31,
    2**63,
    10**20,
    -1,
    1e308,
    True,
    None,
    [],
    {},
    [[]],
    {"a\0": 1},
)
ENDLESS = "/api/events"
METHODS = {"get", "post", "put", "patch", "delete"}


@pytest.fixture
async def api(database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    await api_flows.register(database, monkeypatch)
    async with open_api(database) as client:
        yield client


@pytest.fixture
async def document(api: httpx.AsyncClient) -> dict[str, Any]:
    found: dict[str, Any] = (await api.get("/api/openapi.json")).json()
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method in METHODS & methods.keys() if path != ENDLESS else ():
            yield method.upper(), path, methods[method]


@pytest.fixture
async def ids(api: httpx.AsyncClient, database: Database) -> dict[str, str]:
    """Return what there is, so that requests are not refused because there is nothing."""
    rows = Rows(database.pool)
    subscription = await rows.subscription(await rows.product("Node"))
    pages = [{"name": "ana"}, {"tone": "kind"}]
    process_id = (await api.post("/api/processes/greeting", json=pages)).json()["id"]
    schedule_id = (await api.post("/api/schedules/", json=api_flows.SCHEDULE)).json()["id"]
    return {
        "process_id": process_id,
        "subscription_id": str(subscription),
        "product": "Node",
        "schedule_id": schedule_id,
    }


def fill(path: str, operation: dict[str, Any], ids: dict[str, str]) -> str:
    """Return an address with all parameters of the path."""
    for one in operation.get("parameters", ()):
        if one["in"] == "path":
            unknown = str(uuid4()) if one["schema"].get("format") == "uuid" else "greeting"
            path = path.replace(f"{{{one['name']}}}", ids.get(one["name"], unknown))
    return path


async def check(api: httpx.AsyncClient, method: str, url: str, **request: Any) -> None:
    answer = await api.request(method, url, **request)
    said = (method, url[:200], request, answer.status_code, answer.text[:500])
    assert answer.status_code < 500 or answer.status_code in {503, 510}, said
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json", said
    assert "byte sequence" not in answer.text, said


def variants(example: Any) -> Iterator[Any]:
    """Yield a body with one value after the other replaced."""
    yield from VALUES
    inner = example.items() if isinstance(example, dict) else enumerate(example) if isinstance(example, list) else ()
    for key, value in inner:
        for one in variants(value):
            changed = example.copy()
            changed[key] = one
            yield changed


async def test_no_field_of_any_body_brings_the_program_down(
    api: httpx.AsyncClient, document: dict[str, Any], ids: dict[str, str]
) -> None:
    bodies = 0
    for method, path, operation in operations(document):
        if "requestBody" not in operation:
            continue
        content = operation["requestBody"]["content"]["application/json"]
        example = content["example"] if "example" in content else next(iter(content["examples"].values()))["value"]
        if path.startswith("/api/schedules/") and "workflow_name" in example:
            example = example | api_flows.SCHEDULE
        bodies += 1
        for body in (json.dumps(one).encode() for one in variants(example)):
            headers = {"content-type": "application/json"}
            await check(api, method, fill(path, operation, ids), content=body, headers=headers)
    assert bodies > 10
    assert (await api.get("/api/processes")).status_code == 200


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Auckland"])
async def test_a_time_means_the_same_wherever_the_servers_are(database: Database, zone: str) -> None:
    """Without an offset, or with a + that an address turns into a blank, it is refused rather than guessed."""
    rows = Rows(database.pool)
    one = await rows.process(await rows.workflow("check", "SYSTEM"), "failed")
    await database.pool.execute("UPDATE processes SET started_at = '2026-01-01T00:30:00+02:00'")
    name = await database.pool.fetchval("SELECT quote_ident(current_database())")
    await database.pool.execute(f"ALTER DATABASE {name} SET timezone TO '{zone}'")
    url = database.engine.url.render_as_string(hide_password=False)
    elsewhere = Database(url, pool_size=2, connect_timeout=30, application_name="elsewhere")
    await elsewhere.open()
    async with open_api(elsewhere) as api:
        assert await elsewhere.pool.fetchval("SHOW timezone") == zone
        for written, count in (
            (">=2026-01-01T00:00:00%2B02:00", 1),
            (">=2025-12-31T22:30:00Z", 1),
            (">2026-01-01T00:30:00%2B02:00", 0),
            ("<2025-12-31T17:30:01-05:00", 1),
        ):
            answer = await api.get(f"/api/processes?filter=started_at,{written}")
            assert answer.status_code == 200, answer.text
            assert [item["process_id"] for item in answer.json()] == [str(one)] * count
        for written in (">=2026-01-01T00:00:00+02:00", ">=2026-01-01T00:00:00", ">=2026-01-01", "1", ">1767222000"):
            answer = await api.get(f"/api/processes?filter=started_at,{written}")
            assert answer.status_code == 422
            assert "%2B" in answer.json()["detail"]
        (item,) = (await api.get("/api/processes")).json()
        assert datetime.fromisoformat(item["started_at"]) == datetime(2025, 12, 31, 22, 30, tzinfo=UTC)
    await elsewhere.close()
