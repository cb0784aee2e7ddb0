"""What operators do over HTTP: pause, retry and abort many, correct, rewind, note, delete."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import httpx
import pytest

from orchestrator.authorization import Role
from orchestrator.db.session import Database
from orchestrator.forms import FormGenerator, SubmitFormPage
from orchestrator.services.api_keys import create_key
from orchestrator.workflow import StepList, conditional, done, init, inputstep, step, workflow
from tests.integration import api_flows
from tests.integration.api_client import open_api
from tests.integration.subscription_rows import Rows
from tests.integration.test_api_requests import problem


@inputstep("Approve", assignee="NOC")
def approve() -> FormGenerator:
    class Approval(SubmitFormPage):
        approved: bool

    page = yield Approval
    return page.model_dump()


@step("Greet")
async def greet() -> None: ...


def asks_too_early(state: dict[str, Any]) -> bool:
    return bool(state["greets"])


@workflow("Fails after its input")
def failing() -> StepList:
    return init >> approve >> conditional(asks_too_early)(greet) >> done


@workflow("Fails at once", is_task=True)
def tasking() -> StepList:
    return init >> conditional(asks_too_early)(greet) >> done


@pytest.fixture
async def api(database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    await api_flows.register(database, monkeypatch, (failing, tasking), __name__)
    async with open_api(database) as client:
        yield client


async def start(api: httpx.AsyncClient, name: str = "failing") -> str:
    """Start a process that fails: ``failing`` after its input."""
    answer = await api.post(f"/api/processes/{name}", json=[])
    assert answer.status_code == 201, answer.text
    path = f"/api/processes/{answer.json()['id']}"
    if name == "failing":
        assert (await api.put(f"{path}/resume", json=[{"approved": True}])).status_code == 204
    return path


async def log(database: Database, *names: str) -> list[tuple[str, str, str | None]]:
    rows = await database.pool.fetch(
        "SELECT name, author, note FROM process_steps WHERE name = ANY($1) ORDER BY finished_at, sequence", names
    )
    return [(row["name"], row["author"], row["note"]) for row in rows]


async def value(database: Database, query: str) -> Any:
    return await database.pool.fetchval(query)


STATUS = "/api/settings/status"


async def test_the_engine_is_paused_with_a_reason_that_everybody_sees(
    api: httpx.AsyncClient, database: Database
) -> None:
    never = (await api.get(STATUS)).json()
    assert never == {
        "global_lock": False,
        "global_status": "RUNNING",
        "running_processes": 0,
        "changed_by": None,
        "changed_at": None,
        "reason": None,
    }
    paused = await api.put(STATUS, json={"global_lock": True, "reason": "the IMS is upgraded"})
    assert paused.status_code == 200
    document = paused.json()
    assert (document["global_status"], document["changed_by"], document["reason"]) == (
        "PAUSED",
        "anonymous",
        "the IMS is upgraded",
    )
    assert "+" in document["changed_at"] or document["changed_at"].endswith("Z")
    assert (await api.get(STATUS)).json() == document
    detail = problem(await api.post("/api/processes/failing", json=[]), 503)["detail"]
    assert detail.startswith("the engine is paused")
    assert "status says who has paused it" in detail
    problem(await api.put("/api/processes/resume-all"), 503)
    assert (await api.put(STATUS, json={"global_lock": False})).json()["global_status"] == "RUNNING"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"global_lock": "yes"},
        {"global_lock": 1},
        {"global_lock": True, "reason": "x" * 2001},
        {"global_lock": True, "changed_by": "eve"},
        [],
        None,
    ],
)
async def test_a_switch_that_is_not_clear_changes_nothing(
    api: httpx.AsyncClient, database: Database, body: Any
) -> None:
    problem(await api.put(STATUS, json=body), 422)
    assert not await value(database, "SELECT global_lock FROM engine_settings")


async def test_all_failed_tasks_are_resumed_and_nothing_else(api: httpx.AsyncClient, database: Database) -> None:
    await start(api)
    tasks = [await start(api, "tasking") for _ in range(3)]
    answer = await api.put("/api/processes/resume-all")
    assert (answer.status_code, answer.json()) == (200, {"count": 3})
    assert len(await log(database, "retried")) == len(tasks)


async def test_many_are_aborted_by_a_filter_after_counting_them(api: httpx.AsyncClient, database: Database) -> None:
    for _ in range(3):
        await start(api)
    await start(api, "tasking")
    body = {"action": "abort", "workflow": "failing", "statuses": ["failed"], "reason": "ordered again"}
    counted = (await api.put("/api/processes/bulk", json={**body, "dry_run": True})).json()
    assert counted == {"matched": 3, "done": 0, "refused": 0, "refusals": [], "left": 3}
    first = (await api.put("/api/processes/bulk", json={**body, "limit": 2})).json()
    assert first == {"matched": 3, "done": 2, "refused": 0, "refusals": [], "left": 1}
    assert (await api.put("/api/processes/bulk", json=body)).json()["done"] == 1
    assert await log(database, "aborted") == [("aborted", "anonymous", "ordered again")] * 3


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"action": "abort"}, 400),
        ({"action": "delete", "workflow": "failing"}, 422),
        ({"action": "retry", "statuses": ["completed"]}, 400),
        ({"action": "retry", "statuses": ["lost"]}, 422),
        ({"action": "retry", "since": "2026-01-01T00:00:00"}, 422),
        ({"action": "retry", "since": 1}, 422),
        ({"action": "retry", "since": "1"}, 422),
        ({"action": "retry", "since": "2026-01-01T00:00:00 02:00"}, 422),
        ({"action": "retry", "workflow": "failing", "limit": 0}, 422),
        ({"action": "retry", "workflow": "failing", "limit": 99999999999999999999}, 422),
        ({"action": "retry", "workflow": "failing", "user": "eve"}, 422),
        ({"action": "retry", "workflow": "a\u0000b"}, 400),
        ({"action": "retry", "customer_id": "a\u0000b"}, 400),
        ({"action": "retry", "subscription_id": "abc"}, 422),
    ],
)
async def test_a_bulk_request_that_is_not_clear_does_nothing(
    api: httpx.AsyncClient, database: Database, body: dict[str, Any], status: int
) -> None:
    await start(api)
    problem(await api.put("/api/processes/bulk", json=body), status)
    assert await log(database, "retried", "aborted") == []


async def test_many_are_found_by_what_they_have_touched_and_by_who_is_to_act(
    api: httpx.AsyncClient, database: Database
) -> None:
    paths = [await start(api) for _ in range(2)]
    rows = Rows(database.pool)
    subscription = await rows.subscription(await rows.product("Port"), customer="Acme")
    touching = UUID(paths[0].rpartition("/")[2])
    await database.pool.execute(
        "INSERT INTO processes_subscriptions (process_id, subscription_id) VALUES ($1, $2)", touching, subscription
    )
    await database.pool.execute("UPDATE processes SET assignee = 'NOC' WHERE process_id <> $1", touching)
    for condition, matched in (
        ({"subscription_id": str(subscription)}, 1),
        ({"customer_id": "Acme"}, 1),
        ({"customer_id": "Beta"}, 0),
        ({"assignee": "NOC"}, 1),
        ({"assignee": "NOC", "customer_id": "Acme"}, 0),
    ):
        answer = await api.put("/api/processes/bulk", json={"action": "retry", "dry_run": True, **condition})
        assert answer.json()["matched"] == matched, (condition, answer.text)


async def test_a_state_is_corrected_and_a_step_skipped(api: httpx.AsyncClient, database: Database) -> None:
    path = await start(api)
    answer = await api.patch(f"{path}/state", json={"set": {"vlan": 1}, "remove": ["approved"], "reason": "typo"})
    assert answer.status_code == 200
    assert answer.json()["status"] == "failed"
    stale = await api.put(f"{path}/skip", json={"reason": "by hand", "seen": answer.json()["sequence"] - 1})
    assert problem(stale, 409)["reasons"][0]["sequence"] == answer.json()["sequence"]
    skipped = await api.put(f"{path}/skip", json={"reason": "by hand", "seen": answer.json()["sequence"]})
    assert skipped.json()["status"] == "completed"
    assert await value(database, "SELECT state::text FROM processes") == '{"vlan": 1}'
    assert await log(database, "patched", "Greet") == [
        ("Greet", "anonymous", None),
        ("patched", "anonymous", "typo"),
        ("Greet", "anonymous", "by hand"),
    ]


async def test_an_abort_and_a_retry_can_say_what_a_command_can(api: httpx.AsyncClient, database: Database) -> None:
    path = await start(api)
    newest = await value(database, "SELECT sequence FROM processes")
    assert problem(await api.put(f"{path}/resume?seen={newest - 1}", json={}), 409)["reasons"][0]["seen"] == newest - 1
    assert (await api.put(f"{path}/resume?seen={newest}", json={})).status_code == 204
    problem(await api.put(f"{path}/abort", json={"reason": "x", "user": "eve"}), 422)
    assert (await api.put(f"{path}/abort", json={"reason": "ordered again"})).status_code == 204
    assert await log(database, "aborted") == [("aborted", "anonymous", "ordered again")]


OPERATOR_PATHS = [
    ("PUT", "/api/settings/status", {"global_lock": False}),
    ("PUT", "/api/processes/resume-all", None),
    ("PUT", "/api/processes/bulk", {"action": "abort", "workflow": "failing", "dry_run": True}),
    ("PATCH", "{path}/state", {"set": {"vlan": 1}, "reason": "typo"}),
    ("PUT", "{path}/rewind", {"step": "Approve", "reason": "wrong order"}),
    ("PATCH", "{path}", {"note": "ticket 4711"}),
    ("PUT", "{path}/skip", {"reason": "by hand"}),
    ("DELETE", "{path}", None),
]


async def test_operators_need_their_role_and_their_names_stand_in_the_log(
    api: httpx.AsyncClient, database: Database
) -> None:
    path = await start(api)
    async with database.transaction() as session:
        starts = await create_key(session, "crm", Role.START, "root", None)
        operates = await create_key(session, "noc", Role.OPERATE, "root", None)
    async with open_api(database, auth="api-keys") as closed:
        for method, template, body in OPERATOR_PATHS:
            url = template.format(path=path)
            assert (await closed.request(method, url, json=body)).status_code == 401
            bearer = {"authorization": f"Bearer {starts.secret}"}
            assert problem(await closed.request(method, url, json=body, headers=bearer), 403)
        assert await log(database, "patched", "rewound") == []
        bearer = {"authorization": f"Bearer {operates.secret}"}
        answers = [
            (await closed.request(method, template.format(path=path), json=body, headers=bearer)).status_code
            for method, template, body in OPERATOR_PATHS
        ]
    assert answers == [200, 200, 200, 200, 200, 200, 409, 400], "it waits for input by then, and is no task"
    assert {author for _, author, _ in await log(database, "patched", "rewound")} == {"noc"}
    assert await value(database, "SELECT noted_by FROM processes") == "noc"


async def test_a_process_is_taken_back_to_a_step(api: httpx.AsyncClient, database: Database) -> None:
    path = await start(api)
    answer = await api.put(f"{path}/rewind", json={"step": "Approve", "reason": "the NOC had the wrong order"})
    assert answer.status_code == 200
    assert answer.json()["status"] == "suspended"
    assert await value(database, "SELECT state::text FROM processes") == "{}"
    ((_, author, note),) = await log(database, "rewound")
    assert author == "anonymous"
    assert str(note).endswith("the NOC had the wrong order")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"step": "Approve"}, 422),
        ({"step": "Approve", "reason": ""}, 422),
        ({"step": "Approve", "reason": "  "}, 400),
        ({"step": "Nowhere", "reason": "why not"}, 400),
        ({"step": "Done", "reason": "why not"}, 409),
        ({"step": "Approve", "reason": "why not", "user": "eve"}, 422),
        ({"step": "Approve", "reason": "why not", "seen": -1}, 422),
        ({"step": "Approve", "reason": "why not", "seen": 10**30}, 409),
    ],
)
async def test_a_rewind_that_cannot_be_done_changes_nothing(
    api: httpx.AsyncClient, database: Database, body: dict[str, Any], status: int
) -> None:
    path = await start(api)
    before = await database.pool.fetchrow("SELECT * FROM processes")
    problem(await api.put(f"{path}/rewind", json=body), status)
    assert await database.pool.fetchrow("SELECT * FROM processes") == before


async def test_of_twenty_requests_at_once_one_is_accepted(api: httpx.AsyncClient, database: Database) -> None:
    """One is accepted, nineteen are conflicts, and the log has one entry."""
    path = await start(api)
    rewinds = await asyncio.gather(
        *(api.put(f"{path}/rewind", json={"step": "Approve", "reason": str(number)}) for number in range(20))
    )
    assert Counter(one.status_code for one in rewinds) == Counter({409: 19, 200: 1})
    assert len(await log(database, "rewound")) == 1
    resumes = await asyncio.gather(*(api.put(f"{path}/resume", json=[{"approved": True}]) for _ in range(20)))
    assert Counter(one.status_code for one in resumes) == Counter({409: 19, 204: 1})
    bodies = [{"action": "retry", "workflow": "failing"}] * 20
    retries = await asyncio.gather(*(api.put("/api/processes/bulk", json=body) for body in bodies))
    assert {one.status_code for one in retries} == {200}
    assert sum(one.json()["done"] for one in retries) == len(await log(database, "retried"))


async def test_a_note_is_kept_and_removed(api: httpx.AsyncClient, database: Database) -> None:
    path = await start(api)
    answer = await api.patch(path, json={"note": "ticket 4711"})
    assert answer.json()["note"] == "ticket 4711"
    assert tuple(await database.pool.fetchrow("SELECT note, noted_by FROM processes") or ()) == (
        "ticket 4711",
        "anonymous",
    )
    assert (await api.patch(path, json={"note": None})).json()["note"] is None
    for body, status in (
        ({}, 422),
        ({"note": 1}, 422),
        ({"note": "x" * 10_001}, 422),
        ({"note": "a\0b"}, 400),
        ({"note": "x", "noted_by": "eve"}, 422),
    ):
        problem(await api.patch(path, json=body), status)
    problem(await api.patch("/api/processes/00000000-0000-4000-8000-000000000000", json={"note": "x"}), 404)


async def test_a_finished_task_is_deleted_and_nothing_else(api: httpx.AsyncClient, database: Database) -> None:
    path, other = await start(api, "tasking"), await start(api)
    assert "only one that is completed or aborted" in problem(await api.delete(path), 400)["detail"]
    assert "is no task" in problem(await api.delete(other), 400)["detail"]
    assert (await api.put(f"{path}/abort")).status_code == 204
    problem(await api.delete(path), 409)  # no coordinator runs here that could publish its events
    await database.pool.execute("UPDATE processes SET announced = sequence")
    assert (await api.delete(path)).status_code == 204
    problem(await api.delete(path), 404)
    assert await value(database, "SELECT deleted_by FROM deleted_processes") == "anonymous"


async def test_what_does_not_exist_is_not_changed(api: httpx.AsyncClient) -> None:
    unknown = "/api/processes/00000000-0000-4000-8000-000000000000"
    problem(await api.put(f"{unknown}/rewind", json={"step": "a", "reason": "b"}), 404)
    problem(await api.put(f"{unknown}/skip", json={"reason": "b"}), 404)
    problem(await api.patch(f"{unknown}/state", json={"set": {"a": 1}, "reason": "b"}), 404)
    problem(await api.delete(unknown), 404)
    problem(await api.delete("/api/processes/abc"), 422)
