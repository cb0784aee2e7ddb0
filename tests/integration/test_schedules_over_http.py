"""Schedules over HTTP: as the field's user interface writes them, and as programs do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from orchestrator.authorization import Role
from orchestrator.db.session import Database
from orchestrator.services.api_keys import create_key
from tests.integration import api_flows
from tests.integration.api_answers import take_fingerprint
from tests.integration.api_client import open_api

URL = "/api/schedules/"
GREETING: list[dict[str, Any]] = [{"name": "ana", "count": 2}, {"tone": "kind"}]
CRON = {"trigger": "cron", "trigger_kwargs": {"minute": "30", "hour": "2"}, "zone": "Europe/Amsterdam"}
NIGHTLY = {"name": "nightly", "workflow_name": "greeting", "user_inputs": GREETING, **CRON}


@pytest.fixture
async def api(database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    await api_flows.register(database, monkeypatch)
    async with open_api(database) as client:
        yield client


async def add(api: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    answer = await api.post(URL, json=NIGHTLY | fields)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def show(api: httpx.AsyncClient, schedule_id: str) -> dict[str, Any]:
    answer = await api.get(f"{URL}{schedule_id}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize("url", ["/api/schedules/", "/api/schedules"])
async def test_the_bodies_of_the_fields_user_interface_are_understood(
    api: httpx.AsyncClient, database: Database, url: str
) -> None:
    workflow_id = str(await database.pool.fetchval("SELECT workflow_id FROM workflows WHERE name = 'asking'"))
    body = {
        "scheduled_type": "create",
        "name": "ask every six hours",
        "workflow_name": "asking",
        "workflow_id": workflow_id,
        "trigger": "interval",
        "trigger_kwargs": {"start_date": "2026-11-25T01:00:00.000Z", "hours": 6, "weeks": None},
    }
    made = await api.post(url, json=body)
    assert made.status_code == 201, made.text
    assert made.headers["content-type"] == "application/json"
    schedule_id = made.json()["id"]
    assert made.headers["location"] == f"/api/schedules/{schedule_id}"
    (listed,) = (await api.get(url)).json()
    assert listed["trigger_kwargs"] == {"start_date": "2026-11-25T01:00:00+00:00", "hours": 6}
    assert (listed["workflow_id"], listed["workflow_name"]) == (workflow_id, "asking")
    assert datetime.fromisoformat(listed["next_run_time"]).hour % 6 == 1
    change = {"scheduled_type": "update", "schedule_id": schedule_id, **CRON}
    changed = await api.put(url, json=change)
    assert changed.status_code == 200, changed.text
    assert changed.json()["trigger"] == "cron"
    removal = {"scheduled_type": "delete", "schedule_id": schedule_id}
    elsewhere = await api.request("DELETE", url, json={**removal, "workflow_id": str(uuid4())})
    assert elsewhere.status_code == 404
    removed = await api.request("DELETE", url, json={**removal, "workflow_id": workflow_id})
    assert (removed.status_code, removed.json()) == (200, {"id": schedule_id})
    assert (await api.request("DELETE", url, json=removal)).status_code == 404
    assert (await api.get(url)).json() == []


async def test_what_the_form_ends_with_makes_the_schedule(api: httpx.AsyncClient, database: Database) -> None:
    await database.pool.execute("UPDATE workflows SET is_task = true WHERE name = 'greeting'")
    task = {"task": str(await database.pool.fetchval("SELECT workflow_id FROM workflows WHERE name = 'greeting'"))}
    pages = [task, *GREETING, {"name": "by form", "kind": "cron"}, {"cron": "*/5 * * * *"}, {"overlap": "queue"}]
    body = await api.post("/api/forms/configure_schedule", json=pages)
    assert body.status_code == 200, body.text
    made = await api.post(URL, json=body.json())
    assert made.status_code == 201, made.text
    assert (made.json()["user_inputs"], made.json()["overlap"]) == (GREETING, "queue")
    again = await api.post("/api/forms/configure_schedule", json=pages[:4])
    assert again.status_code == 400
    assert again.json()["validation_errors"][0]["loc"] == ["name"]


async def test_a_schedule_shows_its_next_slots_and_what_clock_changes_do_to_them(api: httpx.AsyncClient) -> None:
    made = await add(api)
    assert (made["state"], made["why"], made["broken"], made["last"]) == ("enabled", None, None, None)
    assert (made["missed"], made["overlap"], made["jitter"], made["origin"]) == ("once", "skip", 0, "person")
    assert len(made["next"]) == 5
    assert made["next"][0]["at"] == made["next_run_time"]
    assert {one["local"][11:16] for one in made["next"]} == {"02:30"}
    many = (await api.get(f"{URL}{made['id']}?count=370")).json()["next"]
    moved = [one for one in many if one["remarks"]]
    assert any("does not exist that day" in one["remarks"][0] and one["local"][11:16] == "03:00" for one in moved)
    assert (made["created_by"], [one["action"] for one in made["changes"]]) == ("anonymous", ["added"])


async def test_a_schedule_is_answered_only_when_it_has_changed(api: httpx.AsyncClient) -> None:
    url = f"{URL}{(await add(api))['id']}"
    first = await api.get(url)
    assert (await api.get(url, headers={"if-none-match": first.headers["etag"]})).status_code == 304
    assert (await api.patch(url, json={"note": "ask the NOC"})).status_code == 200
    assert (await api.get(url, headers={"if-none-match": first.headers["etag"]})).status_code == 200


async def test_fields_are_changed_one_by_one_or_all_at_once(api: httpx.AsyncClient) -> None:
    made = await add(api, note="by night")
    url = f"{URL}{made['id']}"
    changed = await api.patch(url, json={"zone": "Europe/Berlin", "jitter": 30, "overlap": "allow"})
    assert changed.status_code == 200, changed.text
    expected = {"zone": "Europe/Berlin", "jitter": 30, "overlap": "allow", "note": "by night"}
    assert {name: changed.json()[name] for name in expected} == expected
    assert changed.json()["trigger_kwargs"]["hour"] == "2"
    assert changed.json()["changes"][0]["changes"]["overlap"] == ["skip", "allow"]
    interval = {"trigger": "interval", "trigger_kwargs": {"hours": 6, "start_date": "2026-11-25T01:00:00Z"}}
    assert (await api.patch(url, json=interval)).status_code == 200
    # Its slots are counted from where they were counted from.
    changed = await api.patch(url, json={"trigger_kwargs": {"hours": 12}})
    assert changed.json()["trigger_kwargs"] == {"hours": 12, "start_date": "2026-11-25T01:00:00+00:00"}
    replaced = await api.put(url, json=NIGHTLY)
    assert replaced.status_code == 200, replaced.text
    expected = {"zone": "Europe/Amsterdam", "jitter": 0, "overlap": "skip", "note": None, "trigger": "cron"}
    assert {name: replaced.json()[name] for name in expected} == expected
    for other in ({"name": "daily"}, {"workflow_name": "asking"}):
        assert (await api.put(url, json=NIGHTLY | other)).status_code == 409
    assert (await api.patch(url, json={"name": "daily"})).status_code == 422


async def test_pausing_and_resuming_can_be_repeated(api: httpx.AsyncClient) -> None:
    """What was due while it was paused is not made up for."""
    url = f"{URL}{(await add(api))['id']}"
    for _ in range(2):
        paused = await api.post(f"{url}/pause", json={"reason": "maintenance"})
        assert paused.status_code == 200, paused.text
        found = paused.json()
        assert (found["enabled"], found["state"], found["next"]) == (False, "disabled", [])
        assert "maintenance" in found["why"]
    for _ in range(2):
        resumed = await api.post(f"{url}/resume")
        assert resumed.status_code == 200, resumed.text
        assert (resumed.json()["state"], resumed.json()["why"]) == ("enabled", None)
    assert datetime.fromisoformat(resumed.json()["next_run_time"]) > datetime.now(UTC) - timedelta(minutes=1)
    assert (await api.patch(url, json={"enabled": False})).json()["state"] == "disabled"
    assert (await api.patch(url, json={"enabled": True})).json()["state"] == "enabled"
    assert (await api.post(f"{url}/reset")).status_code == 409


async def test_a_schedule_can_be_run_at_once_and_keeps_its_slots(api: httpx.AsyncClient) -> None:
    made = await add(api)
    url = f"{URL}{made['id']}/run"
    started = await api.post(url, headers={"idempotency-key": "one"})
    assert started.status_code == 201, started.text
    process_id = started.json()["id"]
    assert started.headers["location"] == f"/api/processes/{process_id}"
    again = await api.post(url, headers={"idempotency-key": "one"})
    assert again.json() == {"id": process_id, "created": False}
    assert (await api.get(f"/api/processes/{process_id}")).json()["workflow_name"] == "greeting"
    shown = await show(api, made["id"])
    assert (shown["last"]["result"], shown["last"]["process_id"]) == ("started", process_id)
    assert shown["next_run_time"] == made["next_run_time"]
    running = await api.post(url)
    assert (running.status_code, running.json()["reasons"][0]["process_id"]) == (409, process_id)


async def test_lists_have_pages_and_filters(api: httpx.AsyncClient) -> None:
    for name in ("a", "b", "b2"):
        await add(api, name=name)
    await add(api, name="ask", workflow_name="asking", user_inputs=[], enabled=False)

    async def names(query: str) -> tuple[list[str], str]:
        answer = await api.get(f"{URL}?{query}")
        assert answer.status_code == 200, answer.text
        return [one["name"] for one in answer.json()], answer.headers["content-range"]

    assert await names("") == (["a", "ask", "b", "b2"], "schedules 0-3/4")
    assert await names("range=1,2") == (["ask", "b"], "schedules 1-2/4")
    assert await names("range=9,10") == ([], "schedules */4")
    assert await names("filter=workflow_name,asking") == (["ask"], "schedules 0-0/1")
    assert await names("filter=name,B*&sort=name,desc") == (["b2", "b"], "schedules 0-1/2")
    assert await names("filter=enabled,true,name,a*") == (["a"], "schedules 0-0/1")
    assert await names("filter=state,disabled|over|broken") == (["ask"], "schedules 0-0/1")
    assert await names("filter=origin,code") == ([], "schedules */0")
    assert await names("sort=workflow,asc,name,desc&range=0,1") == (["ask", "b2"], "schedules 0-1/4")
    assert await names("sort=nextRunTime,asc&filter=nextRunTime,<2000-01-01T00:00:00Z") == ([], "schedules */0")
    for query in ("range=2,1", "filter=origin,me", "filter=enabled,perhaps", "query=%00", "sort=name"):
        assert (await api.get(f"{URL}?{query}")).status_code == 422, query
    for query in ("filter=inputs,x", "sort=inputs,asc"):
        refused = await api.get(f"{URL}?{query}")
        assert refused.status_code == 422
        assert "next_run_time" in str(refused.json()["reasons"])


async def test_lists_are_searched_by_the_words_of_name_workflow_and_note(api: httpx.AsyncClient) -> None:
    first = (await add(api, name="check ports-at night", note="asked for by the NOC, 100 %"))["id"]
    await add(api, name="other")
    await add(api, name="ask", workflow_name="asking", user_inputs=[], enabled=False)

    async def names(query: str) -> list[str]:
        answer = await api.get(URL, params={"query": query})
        assert answer.status_code == 200, answer.text
        return [one["name"] for one in answer.json()]

    found = ["check ports-at night"]
    for query in ("night PORTS", "por*", '"ports at"', "noc", "%", first[:8], "note:noc", "name:check* -asking"):
        assert await names(query) == found, query
    assert await names("asking") == ["ask"]
    assert await names("disabled") == ["ask"]
    assert await names("-disabled -noc") == ["other"]
    assert await names("nothing") == []


@pytest.mark.parametrize("path", [URL, "/api/processes", "/api/subscriptions"])
async def test_a_list_is_answered_with_304_while_nothing_in_it_has_changed(api: httpx.AsyncClient, path: str) -> None:
    schedule_id = (await add(api))["id"]
    known = await api.get(path)
    same = await api.get(path, headers={"if-none-match": known.headers["etag"]})
    assert (known.status_code, same.status_code, same.content) == (200, 304, b"")
    assert same.headers["content-range"] == known.headers["content-range"]
    if path == "/api/subscriptions":
        return
    await api.post(f"{URL}{schedule_id}/run")
    changed = await api.get(path, headers={"if-none-match": known.headers["etag"]})
    assert changed.status_code == 200


REFUSED: list[tuple[dict[str, Any], str]] = [
    *(
        ({"trigger_kwargs": {"minute": text}}, "minute")
        for text in ("61", "5/15", "50-10", "*/90", "?", "٣", "R", "0 0")
    ),
    ({"trigger_kwargs": {"hour": "24"}}, "hour"),
    ({"trigger_kwargs": {"day": "30", "month": "2"}}, "day"),
    ({"trigger_kwargs": {"day": "31", "month": "4,6"}}, "day"),
    ({"trigger_kwargs": {"month": "13"}}, "month"),
    ({"trigger_kwargs": {"day_of_week": "SAT-MON"}}, "day_of_week"),
    ({"trigger_kwargs": {"second": "30", "minute": "1"}}, "second"),
    ({"trigger_kwargs": {"minute": ",".join(["1"] * 1_000)}}, "cron"),
    ({"trigger_kwargs": {}}, "cron"),
    ({"trigger_kwargs": {"timezone": "UTC"}}, "timezone"),
    *(({"zone": zone}, "zone") for zone in ("", "../UTC", "zone.tab", "localtime", "europe/amsterdam", "UTC+2")),
    ({"trigger_kwargs": {"hour": "1", "end_date": "2020-01-01T00:00:00Z"}}, "end_date"),
    ({"trigger_kwargs": {"hour": "1", "start_date": "2027-01-01T00:00:00"}}, "start_date"),
    ({"trigger": "interval", "trigger_kwargs": {"hours": 0}}, "interval"),
    ({"trigger": "interval", "trigger_kwargs": {"hours": -1}}, "hours"),
    ({"trigger": "interval", "trigger_kwargs": {"hours": 1.5}}, "hours"),
    ({"trigger": "interval", "trigger_kwargs": {}}, "interval"),
    ({"trigger": "interval", "trigger_kwargs": {"hours": 1}, "jitter": 3600}, "jitter"),
    ({"trigger": "date", "trigger_kwargs": {"run_date": "2020-01-01T00:00:00Z"}}, "run_date"),
    ({"trigger": "date", "trigger_kwargs": {"run_date": "tomorrow"}}, "run_date"),
    ({"trigger": "date", "trigger_kwargs": {}}, "run_date"),
    ({"trigger": "moon"}, "body/trigger"),
    ({"name": " nightly"}, "name"),
    ({"missed": "all"}, "missed"),
    ({"missed_limit": 0}, "body/missed_limit"),
    ({"jitter": -1}, "body/jitter"),
    ({"jitter": 1e308}, "body/jitter"),
    ({"user_inputs": [{"name": "ana", "count": "many"}]}, "count"),
    ({"user_inputs": [*GREETING, {}]}, "__root__"),
    ({"workflow_name": None}, "workflow_id"),
    ({"timezone": "UTC"}, "body/timezone"),
]
"""What is wrong, and the place at which the answer says so."""


async def test_what_cannot_be_is_refused_with_the_field_and_nothing_is_stored(
    api: httpx.AsyncClient, database: Database
) -> None:
    """When it is made, and when it is changed."""
    schedule_id = (await add(api, name="before"))["id"]
    before = await take_fingerprint(database)
    for fields, place in REFUSED:
        answers = [await api.post(URL, json=NIGHTLY | fields)]
        if not fields.keys() & {"name", "workflow_name"}:
            answers.append(await api.patch(f"{URL}{schedule_id}", json=fields))
        for answer in answers:
            assert answer.status_code == 422, (fields, answer.text)
            assert answer.headers["content-type"] == "application/problem+json"
            problem = answer.json()["validation_errors"][0]
            assert "/".join(map(str, problem["loc"])) == place, (fields, problem)
            assert problem["msg"]
    assert await take_fingerprint(database) == before


async def test_seven_and_zero_are_sunday_and_either_day_field_is_enough(api: httpx.AsyncClient) -> None:
    """With their dates."""
    start = {"minute": "0", "hour": "0", "start_date": "2030-11-25T00:00:00Z"}
    for number, (fields, weekdays) in enumerate(
        [({"day_of_week": "0"}, {6}), ({"day_of_week": "7"}, {6}), ({"day_of_week": "5-7"}, {4, 5, 6})]
    ):
        made = await add(api, name=f"days {number}", zone="UTC", trigger_kwargs={**start, **fields})
        assert {datetime.fromisoformat(one["at"]).weekday() for one in made["next"]} == weekdays
    either = await add(api, name="either", zone="UTC", trigger_kwargs={**start, "day": "13", "day_of_week": "5"})
    found = [datetime.fromisoformat(one["at"]) for one in either["next"]]
    assert all(one.weekday() == 4 or one.day == 13 for one in found)
    assert (found[0].weekday(), found[0].day) == (4, 29)


async def test_a_name_is_taken_once_and_free_again_after_a_removal(api: httpx.AsyncClient) -> None:
    made = await add(api)
    assert (await api.post(URL, json=NIGHTLY)).status_code == 409
    assert (await api.delete(f"{URL}{made['id']}")).status_code == 204
    assert (await api.delete(f"{URL}{made['id']}")).status_code == 404
    assert (await api.get(f"{URL}{made['id']}")).status_code == 404
    removed = (await api.get(f"{URL}{made['id']}?removed=true")).json()
    assert (removed["state"], removed["why"], removed["next"]) == ("removed", "removed by anonymous", [])
    for method, path in (("PATCH", ""), ("POST", "/run"), ("POST", "/pause"), ("POST", "/resume")):
        body = {"note": "x"} if method == "PATCH" else None
        assert (await api.request(method, f"{URL}{made['id']}{path}", json=body)).status_code == 404
    await add(api)


async def test_a_workflow_that_is_not_there_cannot_be_scheduled(api: httpx.AsyncClient, database: Database) -> None:
    before = await take_fingerprint(database)
    unknown = {"workflow_name": None, "workflow_id": str(uuid4())}
    for fields, status in (({"workflow_name": "none"}, 404), (unknown, 404), ({"workflow_name": "forbidden"}, 403)):
        assert (await api.post(URL, json=NIGHTLY | fields)).status_code == status
    workflow_id = str(await database.pool.fetchval("SELECT workflow_id FROM workflows WHERE name = 'asking'"))
    assert (await api.post(URL, json=NIGHTLY | {"workflow_id": workflow_id})).status_code == 422
    incomplete = await api.post(URL, json=NIGHTLY | {"user_inputs": GREETING[:1]})
    assert (incomplete.status_code, list(incomplete.json()["form"]["properties"])) == (510, ["tone"])
    assert await take_fingerprint(database) == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ('UPDATE schedules SET trigger = \'{"kind": "cron", "expression": "61 * * * *", "zone": "UTC"}\'', "minute"),
        ("UPDATE schedules SET trigger = jsonb_set(trigger, '{zone}', '\"Europe/Kyiw\"')", "zone"),
        ('UPDATE schedules SET trigger = \'{"kind": "moon"}\'', "trigger"),
        ("UPDATE workflows SET deleted_at = now() WHERE name = 'greeting'", "greeting"),
    ],
)
async def test_one_that_no_longer_fits_is_shown_as_broken_and_can_be_put_right(
    api: httpx.AsyncClient, database: Database, change: str, words: str
) -> None:
    """And the others are shown as ever."""
    made, _ = await add(api), await add(api, name="other", workflow_name="asking", user_inputs=[])
    await database.pool.execute(f"{change}{' AND' if 'WHERE' in change else ' WHERE'} name <> 'other'")
    found = {one["name"]: one for one in (await api.get(URL)).json()}
    assert (found["other"]["state"], found["nightly"]["state"]) == ("enabled", "broken")
    shown = await show(api, made["id"])
    assert words in shown["broken"]
    assert shown["broken"] == shown["why"]
    if "workflows" not in change:
        right = await api.patch(f"{URL}{made['id']}", json=CRON)
        assert (right.status_code, right.json()["state"]) == (200, "enabled")
    assert (await api.delete(f"{URL}{made['id']}")).status_code == 204


@pytest.mark.parametrize(
    ("role", "allowed"),
    [
        (Role.READ, {"GET"}),
        (Role.START, {"GET", "POST", "run", "form"}),
        (Role.OPERATE, {"GET", "POST", "run", "form", "PATCH", "pause", "resume", "PUT", "DELETE"}),
    ],
)
async def test_each_role_does_what_it_may(
    database: Database, monkeypatch: pytest.MonkeyPatch, role: Role, allowed: set[str]
) -> None:
    await api_flows.register(database, monkeypatch)
    async with open_api(database) as anonymous:
        made = await add(anonymous)
    async with database.transaction() as session:
        secret = (await create_key(session, "tests", role, "tests", None)).secret
    requests: dict[str, tuple[str, str, Any]] = {
        "GET": ("GET", URL, None),
        "POST": ("POST", URL, NIGHTLY | {"name": "another"}),
        "form": ("POST", "/api/forms/configure_schedule", []),
        "run": ("POST", f"{URL}{made['id']}/run", None),
        "PATCH": ("PATCH", f"{URL}{made['id']}", {"note": "x"}),
        "PUT": ("PUT", URL, {"schedule_id": made["id"], "note": "y"}),
        "pause": ("POST", f"{URL}{made['id']}/pause", None),
        "resume": ("POST", f"{URL}{made['id']}/resume", None),
        "DELETE": ("DELETE", URL, {"schedule_id": made["id"]}),
    }
    async with open_api(database, auth=("api-keys",)) as api:
        assert (await api.get(URL)).status_code == 401
        answers = {}
        for name, (method, url, body) in requests.items():
            answer = await api.request(method, url, json=body, headers={"authorization": f"Bearer {secret}"})
            answers[name] = answer.status_code
    assert {name for name, status in answers.items() if status != 403} == allowed, answers
    changed_by = await database.pool.fetchval(
        "SELECT changed_by FROM schedules WHERE schedule_id = $1", UUID(made["id"])
    )
    assert changed_by == ("anonymous" if role in {Role.READ, Role.START} else "tests")
