"""Bad input on every path that the OpenAPI document has: a problem document, nothing written, and the next request works.

The paths are those of the document, so that one that is added later is covered as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import pytest

from orchestrator.api.app import create_app, create_inner_app
from orchestrator.api.context import ApiContext
from orchestrator.db.session import Database
from tests.integration import api_flows
from tests.integration.api_answers import Operation, fault_of, operations_of, take_fingerprint
from tests.integration.api_client import make_context

UNKNOWN: Final = "00000000-0000-4000-8000-000000000000"
JSON: Final = {"content-type": "application/json"}

EVERYWHERE: Final = ("%00", "a%00b", "%ff", "%ed%a0%80", "99999999999999999999")
"""In every parameter, as they are sent."""

IN_A_PATH: Final = (
    UNKNOWN,
    "%",
    "NaN",
    "1e400",
    "%0d%0aX-Evil:%201",
    "a%2Fb",
    "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "..",
    "%20",
    "-1",
    "1_000",
    "2147483648",
    "9223372036854775808",
    "2026-01-01T00:00:00",
    "1" * 5000,
    "x" * 5000,
    "%F0%9F%92%A5",
    "'%20OR%201=1%20--",
    "%7B%7D",
    "null",
    "%25",
)

IN_A_QUERY: Final = (
    "",
    "%",
    "-1",
    "1_000",
    "0,99999999999999999999",
    "2147483648",
    "9223372036854775808",
    "9223372036854775808,1",
    "5,1",
    "-5,-1",
    "1,2,3",
    "a,b",
    ",",
    "NaN",
    "1e999",
    "9" * 5000,
    "x" * 10_000,
    "a%20" * 3_000,
    "state.__callback_token,a",
    "__class__,x",
    "api_key_hash,asc",
    "id;pid",
    "id,asc,status",
    "status,%00",
    "2026-01-01T00:00:00",
    "2026-01-01T00:00:00+02:00",
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59-23:59",
    "started_at,2026-01-01T00:00:00+02:00",
    "process_id,zzz",
    "'%20OR%201=1%20--",
    "1);DROP%20TABLE%20processes;--",
    "Some::Class",
    "(",
    "a%20%26%20|%20b",
    "a:*",
    "!",
    "%5C",
    "%25",
    "_",
    "%22unclosed",
    "%F0%9F%92%A5",
    "a&again=1",
    UNKNOWN,
)
IN_A_HEADER: Final = (
    b"",
    b"\xff\xfe",
    b"9223372036854775808",
    b"9" * 30,
    b"-1",
    b"x" * 10_000,
    b"'; DROP TABLE processes; --",
    b"0,0,0",
    b"*",
)

TOO_DEEP: Final = 10_000
BODIES: Final = (
    b"",
    b"\xef\xbb\xbf{}",
    b"{",
    b"null",
    b"1",
    b'"x"',
    b"true",
    b"\xff\xfe\xfd",
    b"[NaN]",
    b'{"a": Infinity}',
    b"[1e999]",
    b"[" + b"9" * 400 + b"]",
    b"[" + b"9" * 5_000 + b"]",
    b'[{"a": "\\ud800"}]',
    b'{"a": "\\udfff"}',
    b'{"a": "x\\u0000y"}',
    b'{"a\\u0000": 1}',
    b'[{"a": 1, "a": 2}]',
    b'{"a": 1, "a": 2}',
    b"[" * TOO_DEEP + b"]" * TOO_DEEP,
    b'{"a":' * TOO_DEEP + b"1" + b"}" * TOO_DEEP,
    b"[" * 100_000,
    b"[" * 90 + b"]" * 90,
    b'[{"a":' * 50 + b"1" + b"}]" * 50,
    b'{"__class__": "x", "constructor": {"prototype": 1}}',
    b'{"note": 99999999999999999999, "reason": [], "global_lock": "perhaps", "filter": "x,y"}',
    b'{"note": "' + b"x" * 90_000 + b'"}',
)
TOO_LARGE: Final = b'"' + b"x" * 10_000_000 + b'"'

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "FOO")


@dataclass
class Api:
    """The application on a database with a few processes."""

    context: ApiContext
    client: httpx.AsyncClient
    database: Database
    operations: list[Operation]
    faults: list[str] = field(default_factory=list)
    process_id: str = ""
    schedule_id: str = ""
    _before: str = ""

    async def begin(self) -> None:
        """Start a process that waits for input, and make a schedule, for the requests that follow."""
        answer = await self.client.post("/api/processes/asking", json=[])
        assert answer.status_code == 201, answer.text
        self.process_id = answer.json()["id"]
        if not self.schedule_id or (await self.client.get(f"/api/schedules/{self.schedule_id}")).status_code != 200:
            answer = await self.client.post("/api/schedules/", json=api_flows.SCHEDULE)
            assert answer.status_code == 201, answer.text
            self.schedule_id = answer.json()["id"]
        self._before = await take_fingerprint(self.database)

    def fill(self, operation: Operation, **values: str) -> str:
        """Return the path of an operation with these values, and with good ones for the other parameters."""
        good = {one["name"]: self._good(one) for one in operation.parameters if one["in"] == "path"}
        return operation.path.format(**(good | values))

    def _good(self, parameter: dict[str, Any]) -> str:
        schema = parameter["schema"]
        if schema.get("type") == "integer":
            return "1"
        if parameter["name"] == "schedule_id":
            return self.schedule_id
        return self.process_id if schema.get("format") == "uuid" or "process" in parameter["name"] else "greeting"

    async def send(self, operation: Operation | str, method: str, url: str, **request: Any) -> httpx.Response:
        """Send a request; note what is wrong with its answer."""
        async with asyncio.timeout(120):
            answer = await self.client.request(method, url, **request)
        is_readiness = url.startswith("/api/health/ready") and answer.status_code == 503  # a document of its own
        fault = None if is_readiness else fault_of(answer)
        if fault is not None:
            content = request.get("content") or b""
            self.faults.append(
                f"{operation}: {url[:150]} {content[:60]!r} {request.get('headers', '')!r:.100}: {fault}"
            )
        if answer.status_code < 400 and method not in {"GET", "HEAD", "OPTIONS"}:
            self._before = await take_fingerprint(self.database)
        return answer

    async def end(self, operation: Operation | str) -> None:
        """Check that what was refused has written nothing, and that the next request works."""
        if await take_fingerprint(self.database) != self._before:
            self.faults.append(f"{operation}: a request that was refused, or only reads, has written something")
        assert (await self.client.get("/api/health/live")).status_code == 200

    def check(self) -> None:
        """Fail if anything was wrong."""
        assert not self.faults, f"{len(self.faults)} faults:\n" + "\n".join(self.faults[:40])


@pytest.fixture
async def api(database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Api]:
    await api_flows.register(database, monkeypatch)
    context = make_context(database, max_message_bytes=100_000)
    context.stopping.set()  # streams of events end at once
    # Errors of the application are answers, as they are for clients.
    transport = httpx.ASGITransport(create_app(context), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=60) as client:
        yield Api(context, client, database, operations_of(create_inner_app(context)))


async def test_no_value_of_a_parameter_is_more_than_a_refusal(api: Api) -> None:
    """NUL, wide integers, columns that are hidden, words that break a search."""
    for operation in api.operations:
        await api.begin()
        for url, headers in vary_parameters(api, operation):
            await api.send(
                operation, operation.method, url, headers=headers, content=b"{}" if operation.has_body else None
            )
        await api.end(operation)
    api.check()


def vary_parameters(api: Api, operation: Operation) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield URLs and headers with one bad value each: some for every parameter, of the others a third for each."""
    place = api.operations.index(operation)
    for number, name in enumerate(operation.names("path"), place):
        for value in (*EVERYWHERE, *IN_A_PATH[number % 3 :: 3]):
            yield api.fill(operation, **{name: value}), JSON
    yield f"{api.fill(operation)}?unknown=%00&%00=1", JSON
    for number, name in enumerate(operation.names("query"), place):
        for value in (*EVERYWHERE, *IN_A_QUERY[number % 3 :: 3]):
            yield f"{api.fill(operation)}?{name}={value}", JSON
    for name in operation.names("header"):
        for header in IN_A_HEADER:
            yield api.fill(operation), {**JSON, name: header}


async def test_an_id_that_there_is_not_is_never_found(api: Api) -> None:
    """Neither is one of the wrong type: 404 or 422, and never a success."""
    for operation in api.operations:
        await api.begin()
        for parameter in operation.parameters:
            if parameter["in"] == "path" and parameter["schema"].get("format") == "uuid":
                for value in ("17", "%00", UNKNOWN + "0", "99999999999999999999"):
                    url = api.fill(operation, **{parameter["name"]: value})
                    answer = await api.send(operation, operation.method, url, content=b"{}", headers=JSON)
                    if answer.status_code not in {404, 422}:
                        api.faults.append(f"{operation}: {url}: {answer.status_code}")
        await api.end(operation)
    api.check()


async def test_no_body_is_more_than_a_refusal(api: Api) -> None:
    """Lone surrogates, NaN, NUL, JSON that is too deep or too large; a third of them for each path that takes none."""
    for operation in api.operations:
        await api.begin()
        for body in BODIES if operation.has_body else BODIES[api.operations.index(operation) % 3 :: 3]:
            await api.send(operation, operation.method, api.fill(operation), content=body, headers=JSON)
        await api.end(operation)
    api.check()


async def test_a_body_that_is_too_large_is_refused_on_every_path(api: Api) -> None:
    await api.begin()
    for operation in api.operations:
        answer = await api.send(operation, operation.method, api.fill(operation), content=TOO_LARGE, headers=JSON)
        assert answer.status_code == 413, operation
    await api.end("a large body")
    api.check()


async def test_a_method_that_a_path_does_not_have_is_refused_and_those_that_it_has_are_named(api: Api) -> None:
    """Also what the router itself refuses is a problem document."""
    await api.begin()
    for url in {api.fill(operation) for operation in api.operations}:
        methods = {operation.method for operation in api.operations if operation.fits(url)}
        for method in METHODS:
            if method not in methods:
                answer = await api.send(url, method, url)
                is_named = set(answer.headers.get("allow", "").split(", ")) == methods
                if answer.status_code != 405 or not is_named:
                    api.faults.append(f"{method} {url}: {answer.status_code}, Allow: {answer.headers.get('allow')}")
    await api.end("methods")
    api.check()


FOREIGN: Final[tuple[dict[str, str], ...]] = (
    {"host": "evil.example"},
    {"host": "x/api/health/live?x="},
    {"host": "evil.example:99999"},
    {"host": ""},
    {"x-forwarded-host": "evil.example", "x-forwarded-proto": "gopher", "x-forwarded-for": "1.2.3.4, evil.example"},
    {"forwarded": "for=evil.example;host=evil.example;proto=https"},
    {"x-original-url": "/api/evil.example", "x-rewrite-url": "/evil.example", "x-http-method-override": "DELETE"},
)


async def test_no_header_of_a_proxy_or_host_changes_what_is_served(api: Api) -> None:
    """Links come from the request's path or the settings, never from a host that the client names."""
    await api.begin()
    for operation in api.operations:
        for headers in FOREIGN if operation.method == "GET" else ():
            answer = await api.send(operation, "GET", api.fill(operation), headers=headers)
            assert "evil.example" not in answer.text + str(answer.headers), (operation, headers)
    await api.end("hosts")
    api.check()
