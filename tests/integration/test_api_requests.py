"""Requests that are wrong in every way: each gets a problem document, nothing is written, and the next request works."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from orchestrator.db.session import Database
from orchestrator.services.pause import set_paused
from tests.forwarder import Forwarder, place_of, through
from tests.integration import api_flows
from tests.integration.api_client import open_api

PAGES = [{"name": "ana"}, {"tone": "kind"}]
START = "/api/processes/greeting"


@pytest.fixture
async def api(database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    await api_flows.register(database, monkeypatch)
    async with open_api(database, max_message_bytes=100_000) as client:
        yield client


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    """Return the problem document of an answer."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    document: dict[str, Any] = answer.json()
    assert document["status"] == status
    assert {"type", "title", "detail"} <= document.keys()
    return document


async def count(database: Database) -> int:
    found: int = await database.pool.fetchval("SELECT count(*) FROM processes")
    return found


JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'[{"name": "\\ud800"}]', "the body is not JSON"),
        (b'[{"name": NaN}]', "the body is not JSON"),
        (b'[{"count": -Infinity}]', "the body is not JSON"),
        (b'[{"name": "a\\u0000b"}]', "null character"),
        (b'[{"a\\u0000": 1}]', "null character"),
        (b'[{"name": "ana", "name": "ben"}]', "the same key twice"),
        (b'[{"name": ', "the body is not JSON"),
        (b"\xff\xfe", "the body is not JSON"),
        (b'\xef\xbb\xbf[{"name": "ana"}]', "the body is not JSON"),
        (b"[" * 110 + b"]" * 110, "nested"),
        (b"[" * 40_000 + b"]" * 40_000, "nested"),
        (b'[{"a":' * 5_000, "nested"),
    ],
)
async def test_a_body_that_cannot_be_kept_is_refused_in_words(
    api: httpx.AsyncClient, database: Database, body: bytes, says: str
) -> None:
    answer = await api.post(START, content=body, headers=JSON)
    assert says in problem(answer, 400)["detail"]
    assert await count(database) == 0
    assert (await api.post(START, json=PAGES)).status_code == 201


@pytest.mark.parametrize("body", [{"name": "ana"}, "ana", 1, [1], ["x"], [[{}]]])
async def test_pages_that_are_no_list_of_pages_are_named(
    api: httpx.AsyncClient, database: Database, body: object
) -> None:
    answer = await api.post(START, json=body)
    assert problem(answer, 422)["validation_errors"][0]["loc"][0] == "body"
    assert await count(database) == 0


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", None])
async def test_a_body_that_is_not_named_as_json_is_refused(api: httpx.AsyncClient, kind: str | None) -> None:
    """A page of somebody else's can send these to any address without asking."""
    headers = {} if kind is None else {"content-type": kind}
    answer = await api.post(START, content=b"[]", headers=headers)
    assert "Content-Type: application/json" in problem(answer, 415)["detail"]


async def test_a_body_above_the_limit_is_refused_before_it_is_read(api: httpx.AsyncClient) -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 1
            yield b" " * 10_000

    answer = await api.post(START, content=endless(), headers=JSON)
    assert "ORCHESTRATOR_MAX_MESSAGE_BYTES" in problem(answer, 413)["detail"]
    assert read < 20
    told = await api.post(START, content=b"[]", headers={**JSON, "content-length": "10000000"})
    problem(told, 413)


@pytest.mark.parametrize("path", ["/nope", "/api/nope", "/api/processes/greeting/", "/api/processes/not-an-id/x"])
async def test_a_path_that_there_is_not_is_a_problem_document_and_no_redirect(
    api: httpx.AsyncClient, path: str
) -> None:
    detail = problem(await api.post(path, json=[]), 404)["detail"]
    assert "/api/docs" in detail
    assert path not in detail


async def test_a_method_that_a_path_does_not_have_names_those_that_it_has(api: httpx.AsyncClient) -> None:
    answer = await api.request("DELETE", "/api/processes/greeting/resume")
    assert problem(answer, 405)["detail"] == "this path takes PUT"
    assert answer.headers["allow"] == "PUT"


@pytest.mark.parametrize("key", ["x" * 256, ""])
async def test_an_idempotency_key_has_1_to_255_characters(api: httpx.AsyncClient, key: str) -> None:
    answer = await api.post(START, json=PAGES, headers={"idempotency-key": key})
    assert "Idempotency-Key" in problem(answer, 422)["detail"]


async def test_what_a_caller_has_sent_is_not_repeated(api: httpx.AsyncClient) -> None:
    """It may be a password in the wrong field."""
    for body in ([{"nmae": "CANARY"}], [{"name": "ana", "count": "CANARY"}], {"CANARY": 1}, [["CANARY"]]):
        answer = await api.post(START, json=body)
        assert answer.status_code in {400, 422}
        assert "CANARY" not in answer.text
        abort = await api.put("/api/processes/17/abort", json={"reason": body})
        assert problem(abort, 422)["validation_errors"]
        assert "CANARY" not in abort.text


async def test_a_defect_of_the_engine_leaves_no_trace_in_the_answer(
    api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: object) -> None:
        raise RuntimeError("CANARY")

    monkeypatch.setattr("orchestrator.services.starter.Starter.start", breaks)
    with capture_logs() as log:  # without the values of all variables, which the default format shows
        answer = await api.post(START, json=PAGES)
    assert [one["log_level"] for one in log if one["event"] == "a request has failed"] == ["error"]
    assert "CANARY" not in answer.text
    assert "Traceback" not in answer.text
    problem(answer, 500)


async def test_a_form_is_walked_page_by_page(api: httpx.AsyncClient, database: Database) -> None:
    """B18: 510 with the next page; wrong pages and too many are refused; nothing is stored until it is complete."""
    first = problem(await api.post(START, json=[]), 510)
    assert list(first["form"]["properties"]) == ["name", "count"]
    assert first["meta"] == {"hasNext": True}
    last = await api.post(START, json=PAGES[:1])
    assert last.headers["cache-control"] == "no-store"
    assert problem(last, 510)["meta"] == {"hasNext": False}
    assert problem(await api.post(START), 510)["form"] == first["form"]
    wrong = problem(await api.post(START, json=[PAGES[0], {"tune": 1}]), 400)
    assert {tuple(one["loc"]) for one in wrong["validation_errors"]} == {("tone",), ("tune",)}
    problem(await api.post(START, json=[PAGES[0], {"tune": 1}, {}]), 400)
    problem(await api.post(START, json=[*PAGES, {}]), 400)
    assert await count(database) == 0
    started = await api.post(START, json=PAGES)
    assert started.status_code == 201
    assert started.headers["location"] == f"/api/processes/{started.json()['id']}"
    assert await count(database) == 1


async def test_a_start_that_is_repeated_with_its_key_is_one_process(api: httpx.AsyncClient, database: Database) -> None:
    """B31."""
    headers = {"idempotency-key": "order 7"}
    first = (await api.post(START, json=PAGES, headers=headers)).json()
    again = (await api.post(START, json=PAGES, headers=headers)).json()
    assert (first["id"], first["created"], again["created"]) == (again["id"], True, False)
    problem(await api.post(START, json=[{"name": "ben"}, PAGES[1]], headers=headers), 409)
    assert await count(database) == 1


async def test_each_refusal_has_its_status_and_its_reasons(api: httpx.AsyncClient, database: Database) -> None:
    """B11, B34, B38."""
    unknown = problem(await api.post("/api/processes/no_such", json=[]), 404)
    assert unknown["reasons"] == [{"key": "not_found"}]
    refused = problem(await api.post("/api/processes/refusing", json=[]), 412)
    assert refused["detail"] == "the workflow 'refusing' may not run now: not on Fridays"
    problem(await api.post("/api/processes/forbidden", json=[]), 403)
    async with database.transaction() as session:
        await set_paused(session, True, "ana")
    paused = await api.post(START, json=PAGES)
    assert problem(paused, 503)["type"] == "urn:orchestrator:problem:engine.paused"
    assert paused.headers["retry-after"]


@pytest.mark.parametrize(("workflow", "status"), [("no_such", 404), ("forbidden", 403), ("greeting", 503)])
async def test_a_page_in_a_browser_gets_words_that_it_shows(
    api: httpx.AsyncClient, database: Database, workflow: str, status: int
) -> None:
    """The field's user interface shows a refusal when it is 400 with a problem at ``__root__``, and 403 ends its session."""
    async with database.transaction() as session:
        await set_paused(session, workflow == "greeting", "ana")
    own = problem(await api.post(f"/api/processes/{workflow}", json=PAGES), status)
    shown = await api.post(f"/api/processes/{workflow}", json=PAGES, headers={"origin": "https://ui.example"})
    document = problem(shown, 400)
    (error,) = document["validation_errors"]
    assert error["loc"] == ["__root__"]
    assert error["msg"] == document["detail"] == own["detail"]
    assert document["reasons"] == own["reasons"]


async def test_resume_takes_pages_and_retries_with_none(api: httpx.AsyncClient, database: Database) -> None:
    """B19: input is refused with words while the process stays as it is; an id that there is not is 404."""
    process_id = (await api.post("/api/processes/asking", json=[])).json()["id"]
    path = f"/api/processes/{process_id}/resume"
    assert problem(await api.put(path, json=[]), 510)["sequence"] > 0
    problem(await api.put(path, json=[{"approved": "perhaps"}]), 400)
    problem(await api.put(path, json=[{"approved": True}, {}]), 400)
    assert await database.pool.fetchval("SELECT status FROM processes") == "suspended"
    assert (await api.put(path, json=[{"approved": True}])).status_code == 204
    problem(await api.put(path, json=[{"approved": True}]), 409)
    unknown = "/api/processes/00000000-0000-4000-8000-000000000000"
    for wrong in (f"{unknown}/resume", f"{unknown}/abort"):
        problem(await api.put(wrong, json={}), 404)
    problem(await api.put("/api/processes/17/resume", json=[]), 422)
    assert (await api.put(f"/api/processes/{process_id}/abort")).status_code == 204
    problem(await api.put(f"/api/processes/{process_id}/abort"), 409)
    authors = await database.pool.fetch("SELECT DISTINCT author FROM process_steps")
    assert {row["author"] for row in authors} <= {"anonymous", "SYSTEM"}


async def test_twenty_resumes_at_once_are_one(api: httpx.AsyncClient, database: Database) -> None:
    process_id = (await api.post("/api/processes/asking", json=[])).json()["id"]
    path = f"/api/processes/{process_id}/resume"
    answers = await asyncio.gather(*(api.put(path, json=[{"approved": True}]) for _ in range(20)))
    assert sorted(one.status_code for one in answers) == [204] + [409] * 19
    assert await database.pool.fetchval("SELECT count(*) FROM process_steps WHERE name = 'Approve'") == 2


async def test_without_the_database_it_says_so_and_stays_alive(
    database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await api_flows.register(database, monkeypatch)
    async with Forwarder(lambda: place_of(database_url)) as server:
        url = through(database_url, server.port)
        through_it = Database(url, pool_size=2, connect_timeout=1, application_name="tests")
        await through_it.open()
        async with open_api(through_it) as api:
            assert (await api.get("/api/health/ready")).status_code == 200
            await server.close()
            answer = await api.post(START, json=PAGES)
            assert problem(answer, 503)["type"] == "urn:orchestrator:problem:database.unavailable"
            assert answer.headers["retry-after"]
            assert (await api.get("/api/health/live")).status_code == 200
            ready = await api.get("/api/health/ready")
            assert (ready.status_code, ready.json()["database"]) == (503, "away")
        await through_it.close()


async def test_it_is_ready_without_the_broker_and_says_that_it_is_away(api: httpx.AsyncClient) -> None:
    answer = await api.get("/api/health/ready")
    assert answer.status_code == 200
    assert answer.json() == {
        "status": "ready",
        "database": "reachable",
        "broker": "away",
        "stopping": False,
        "schedules": "on time",
    }
