"""The form by which a person makes a schedule, over HTTP: page by page, with the words of a refusal at its field."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from orchestrator.db.session import Database
from tests.integration import api_flows
from tests.integration.api_client import open_api

URL = "/api/forms/configure_schedule"
GREETING: list[dict[str, Any]] = [{"name": "ana", "count": 2}, {"tone": "kind"}]


@pytest.fixture
async def api(database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    await api_flows.register(database, monkeypatch)
    await database.pool.execute("UPDATE workflows SET is_task = true WHERE name IN ('greeting', 'forbidden', 'asking')")
    async with open_api(database) as client:
        yield client


async def task_of(database: Database, name: str) -> dict[str, str]:
    return {"task": str(await database.pool.fetchval("SELECT workflow_id FROM workflows WHERE name = $1", name))}


async def ask(api: httpx.AsyncClient, *pages: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """Return the properties of the next page, and whether another one follows it."""
    answer = await api.post(URL, json=pages)
    assert answer.status_code == 510, answer.text
    found: dict[str, Any] = answer.json()
    return found["form"]["properties"], found["meta"]["hasNext"]


async def refuse(api: httpx.AsyncClient, *pages: dict[str, Any]) -> tuple[list[str], str]:
    """Return the places of a refusal, and the words at the first one."""
    answer = await api.post(URL, json=pages)
    assert answer.status_code == 400, answer.text
    problems = answer.json()["validation_errors"]
    return ["/".join(map(str, one["loc"])) for one in problems], problems[0]["msg"]


async def test_the_form_ends_with_the_body_that_makes_the_schedule(api: httpx.AsyncClient, database: Database) -> None:
    """It shows the coming runs, from the code that fires: either field of a day is enough."""
    task = await task_of(database, "greeting")
    first, has_next = await ask(api)
    assert (list(first), has_next) == (["task"], True)
    assert [list(page) for page, _ in [await ask(api, task), await ask(api, task, GREETING[0])]] == [
        ["name", "count"],
        ["tone"],
    ]
    kind, has_next = await ask(api, task, *GREETING)
    assert (list(kind), has_next) == (["name", "kind"], True)
    named = {"name": "greet at night", "kind": "cron"}
    time, has_next = await ask(api, task, *GREETING, named)
    assert (time["cron"]["title"], has_next) == ("Cron", True)
    assert list(time) == ["cron", "zone", "start_date", "end_date"]
    timed = {"cron": "0 0 13 * FRI", "zone": "Europe/Amsterdam"}
    last, has_next = await ask(api, task, *GREETING, named, timed)
    assert not has_next
    assert set(last) == {"overlap", "missed", "next_runs"}
    shown = last["next_runs"]["uniforms"]["data"]
    assert shown["headers"] == ["Europe/Amsterdam", "UTC", "Remark"]
    local, utc, _ = shown["columns"]
    assert len(local) == 5
    assert all(one.startswith("Fri") or "-13 00:00:00" in one for one in local)
    assert datetime.fromisoformat(f"{utc[0]}+00:00") > datetime.now(UTC)
    answer = await api.post(URL, json=[task, *GREETING, named, timed, {"overlap": "queue"}])
    assert answer.status_code == 200, answer.text
    assert answer.json() == {
        "scheduled_type": "create",
        "name": "greet at night",
        "workflow_id": task["task"],
        "workflow_name": "greeting",
        "trigger": "cron",
        "trigger_kwargs": {"minute": "0", "hour": "0", "day": "13", "month": "*", "day_of_week": "FRI"},
        "zone": "Europe/Amsterdam",
        "user_inputs": GREETING,
        "overlap": "queue",
        "missed": "once",
    }


async def test_an_interval_and_a_date_are_offered_as_well(api: httpx.AsyncClient, database: Database) -> None:
    task = await task_of(database, "asking")
    start = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    interval = {"every": 6, "unit": "hours", "start_date": int(start.timestamp())}
    for kind, page, kwargs in (
        ("interval", interval, {"hours": 6, "start_date": start.isoformat()}),
        ("date", {"run_date": int(start.timestamp())}, {"run_date": start.isoformat()}),
    ):
        answer = await api.post(URL, json=[task, {"name": "ask", "kind": kind}, page, {}])
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert (body["trigger"], body["trigger_kwargs"], body["user_inputs"]) == (kind, kwargs, [])


REFUSED: list[tuple[str, dict[str, Any], str, str]] = [
    ("cron", {"cron": "0 0 12 * * 1"}, "cron", "five fields"),
    ("cron", {"cron": "61 * * * *"}, "cron", "minute"),
    ("cron", {"cron": "0 0 30 2 *"}, "cron", "fits no date"),
    ("cron", {"cron": "5/15 * * * *"}, "cron", "minute"),
    ("cron", {"zone": "Europe/Kyiw"}, "zone", "no time zone"),
    ("cron", {"zone": "localtime"}, "zone", "no time zone"),
    ("cron", {"end_date": 1}, "end_date", "leaves no slot"),
    ("cron", {"start_date": 10**18}, "start_date", "not a time"),
    ("interval", {"every": 0}, "every", "greater than or equal to 1"),
    ("interval", {"every": 10**9}, "every", "must be from 0 to"),
    ("interval", {"unit": "fortnights"}, "unit", "weeks"),
    ("date", {"run_date": 1}, "run_date", "in the past"),
    ("date", {}, "run_date", "required"),
    ("cron", {"hour": 3}, "hour", "not permitted"),
]


async def test_a_time_that_cannot_be_is_refused_at_its_field(api: httpx.AsyncClient, database: Database) -> None:
    task = await task_of(database, "asking")
    for kind, page, place, words in REFUSED:
        places, said = await refuse(api, task, {"name": "ask", "kind": kind}, page)
        assert places == [place], page
        assert words in said.lower(), page
    page = {"cron": "0 3 * * *"}
    places, said = await refuse(api, task, {"name": "ask", "kind": "cron"}, page, {"missed": "all", "overlap": "skip"})
    assert places == ["missed"]
    assert "overlap" in said


async def test_what_may_not_be_started_cannot_be_scheduled(api: httpx.AsyncClient, database: Database) -> None:
    task = await task_of(database, "forbidden")
    answer = await api.post(URL, json=[task])
    assert answer.status_code == 403, answer.text
    assert (await api.post(URL, json=[task], headers={"origin": "http://localhost:3000"})).status_code == 400


async def test_only_tasks_that_code_and_database_know_are_offered(api: httpx.AsyncClient, database: Database) -> None:
    await database.pool.execute("INSERT INTO workflows (name, target, is_task) VALUES ('elsewhere', 'SYSTEM', true)")
    for name in ("refusing", "elsewhere"):
        places, _ = await refuse(api, await task_of(database, name))
        assert places == ["task"]
    assert (await refuse(api, {"task": "greeting"}))[0] == ["task"]
    await database.pool.execute("UPDATE workflows SET is_task = false")
    assert "no task to schedule" in (await refuse(api))[1]


async def test_pages_that_do_not_fit_the_task_are_refused_before_the_time_is_asked(
    api: httpx.AsyncClient, database: Database
) -> None:
    task = await task_of(database, "greeting")
    assert (await refuse(api, task, {"name": "ana", "count": "many"}))[0] == ["count"]
    too_many = [task, *GREETING, {"name": "x", "kind": "cron"}, {}, {}, {}]
    assert (await api.post(URL, json=too_many)).status_code == 400
