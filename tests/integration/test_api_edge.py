"""What surrounds every answer: headers for browsers, origins that may read it, and the prefix of a proxy."""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from orchestrator.authorization import Role
from orchestrator.db.session import Database
from tests.integration import api_flows
from tests.integration.api_client import open_api

UI = "https://ui.example"
START = "/api/processes/greeting"
PAGES = [{"name": "ana"}, {"tone": "kind"}]


@pytest.fixture
async def api(database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    await api_flows.register(database, monkeypatch)
    async with open_api(
        database, auth="api-keys", cors_origins=f"{UI}, http://localhost:3000", max_message_bytes=100_000
    ) as client:
        yield client


REQUESTS = {
    "served": ("GET", "/api/health/live", b"", 200),
    "unknown path": ("GET", "/nope", b"", 404),
    "wrong method": ("DELETE", "/api/health/live", b"", 405),
    "unauthenticated": ("POST", START, b"[]", 401),
    "too large": ("POST", START, b" " * 200_000, 413),
    "not JSON": ("POST", "/api/processes/17/callback/x", b"{", 422),
    "document": ("GET", "/api/openapi.json", b"", 200),
    "page": ("GET", "/api/docs", b"", 200),
}


async def test_every_answer_has_the_headers_that_browsers_need(api: httpx.AsyncClient) -> None:
    """Answers to errors as well, or the page cannot read why."""
    for case, (method, path, body, status) in REQUESTS.items():
        for origin in (UI, "https://evil.example", None):
            headers = {"content-type": "application/json", **({} if origin is None else {"origin": origin})}
            answer = await api.request(method, path, content=body, headers=headers)
            assert (case, answer.status_code) == (case, status)
            check_headers(answer, origin)


def check_headers(answer: httpx.Response, origin: str | None) -> None:
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-store"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-request-id"]
    assert answer.headers.get("access-control-allow-origin") == (UI if origin == UI else None)
    assert "access-control-allow-credentials" not in answer.headers
    assert "set-cookie" not in answer.headers
    assert "strict-transport-security" not in answer.headers
    assert "origin" in answer.headers["vary"].lower()
    if origin == UI:
        exposed = answer.headers["access-control-expose-headers"].lower()
        assert {"content-range", "etag", "location", "retry-after", "x-request-id"} <= set(exposed.split(", "))


async def test_a_defect_has_the_headers_as_well(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    await api_flows.register(database, monkeypatch)

    def breaks(*_: object) -> None:
        raise RuntimeError("CANARY")

    monkeypatch.setattr("orchestrator.services.starter.Starter.start", breaks)
    async with open_api(database, cors_origins=UI) as api:
        with capture_logs():  # or structlog spends minutes on a coloured traceback
            answer = await api.post(START, json=PAGES, headers={"origin": UI})
    assert answer.status_code == 500
    assert answer.headers["access-control-allow-origin"] == UI
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_a_page_of_an_allowed_origin_may_send_what_the_paths_take(api: httpx.AsyncClient) -> None:
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        headers = {
            "origin": UI,
            "access-control-request-method": method,
            "access-control-request-headers": "authorization,content-type,idempotency-key,if-none-match,last-event-id",
        }
        answer = await api.options(START, headers=headers)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == UI
        assert method in answer.headers["access-control-allow-methods"]
        assert answer.headers["x-content-type-options"] == "nosniff"
    unread = {"origin": UI, "access-control-request-method": "PATCH", "access-control-request-headers": "if-match"}
    assert (await api.options(START, headers=unread)).status_code == 400


async def test_a_page_of_another_origin_may_send_nothing(api: httpx.AsyncClient) -> None:
    for origin in ("https://evil.example", "https://ui.example.evil.example", "http://ui.example", "null"):
        answer = await api.options(START, headers={"origin": origin, "access-control-request-method": "PUT"})
        assert answer.status_code == 400
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("sent", ["", "/noc"], ids=["stripped by the proxy", "not stripped"])
async def test_a_prefix_is_served_whether_the_proxy_strips_it_or_not(
    database: Database, monkeypatch: pytest.MonkeyPatch, sent: str
) -> None:
    """Nothing that is sent back comes from the Host header, or has another scheme."""
    await api_flows.register(database, monkeypatch)
    async with open_api(database, public_url="https://orch.example/noc") as api:
        evil = {"host": "evil.example", "x-forwarded-host": "evil.example", "x-forwarded-proto": "http"}
        started = await api.post(f"{sent}{START}", json=PAGES, headers=evil)
        assert started.status_code == 201
        assert started.headers["location"] == f"/noc/api/processes/{started.json()['id']}"
        document = await api.get(f"{sent}/api/openapi.json", headers=evil)
        assert document.json()["servers"] == [{"url": "/noc"}]
        page = await api.get(f"{sent}/api/docs", headers=evil)
        assert "url: '/noc/api/openapi.json'" in page.text
        assert (await api.get(f"{sent}/api/health/live/", headers=evil)).status_code == 404
        assert (await api.get("/nocturnal/api/health/live", headers=evil)).status_code == 404
        assert page.headers["strict-transport-security"].startswith("max-age=")
        for answer in (started, document, page):
            assert "evil.example" not in answer.text + str(answer.headers)
            assert "http://" not in str(answer.headers)


async def test_a_strange_host_opens_nothing(api: httpx.AsyncClient) -> None:
    """Paths are compared by what was sent as the path."""
    for host in ("x/api/health/live?x=", "x?", "x#/api/health", "[", "a b", "", "x" * 5000):
        answer = await api.post(START, json=PAGES, headers={"host": host})
        assert answer.status_code == 401


@pytest.mark.parametrize("prefix", ["", "/noc"])
async def test_the_page_of_the_documentation_loads_nothing_from_elsewhere(database: Database, prefix: str) -> None:
    """It works where there is no internet, and nobody else's server can put a script into it."""
    async with open_api(database, public_url=f"https://orch.example{prefix}") as api:
        page = await api.get("/api/docs")
        policy = page.headers["content-security-policy"]
        (script,) = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
        digest = base64.b64encode(sha256(script.encode()).digest()).decode()
        assert f"script-src 'self' 'sha256-{digest}'; style-src 'self';" in policy
        assert "http" not in policy
        assert "unsafe" not in policy
        loaded = re.findall(r'(?:src|href)="([^"]*)"', page.text)
        assert loaded == [f"{prefix}/api/docs/swagger-ui.css", "data:,", f"{prefix}/api/docs/swagger-ui-bundle.js"]
        for path, kind in zip(loaded[::2], ("text/css", "text/javascript"), strict=True):
            found = await api.get(path)
            assert found.status_code == 200
            assert found.headers["content-type"].startswith(kind)
            assert len(found.content) > 100_000
            again = await api.get(path, headers={"if-none-match": found.headers["etag"]})
            assert again.headers["etag"] == found.headers["etag"]
        other = await api.get("/api/health/live")
        assert "script-src" not in other.headers["content-security-policy"]


async def test_the_document_says_which_paths_need_credentials(api: httpx.AsyncClient) -> None:
    document = (await api.get("/api/openapi.json")).json()
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    open_paths = {
        path
        for path, methods in document["paths"].items()
        for operation in methods.values()
        if "security" not in operation
    }
    assert all("/health/" in path or "/callback/" in path for path in open_paths), open_paths
    for methods in document["paths"].values():
        for operation in methods.values():
            assert ("401" in operation["responses"]) == ("security" in operation)
            assert "security" not in operation or "403" in operation["responses"]
            for (role,) in (one["bearer"] for one in operation.get("security", ())):
                assert role in set(Role)


async def test_no_body_has_a_field_for_the_user(api: httpx.AsyncClient) -> None:
    """Who did it is found by the credentials alone, on every path that there is."""
    document = (await api.get("/api/openapi.json")).json()
    schemas = document["components"]["schemas"]

    seen: set[str] = set()

    def names(found: Any) -> set[str]:
        if isinstance(found, list):
            return set().union(*map(names, found))
        if not isinstance(found, dict):
            return set()
        inner = set().union(*map(names, found.values()))
        if "$ref" in found and found["$ref"] not in seen:
            seen.add(found["$ref"])
            inner |= names(schemas[found["$ref"].rpartition("/")[2]])
        return inner | set(found.get("properties", {}))

    for path, methods in document["paths"].items():
        for operation in methods.values():
            seen.clear()
            sent = names(operation.get("requestBody")) | {one["name"] for one in operation.get("parameters", [])}
            assert not sent & {"user", "author", "by", "created_by", "started_by"}, path
