"""The start wizard and the input forms of /ui, by plain posts."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.api.ui import starting
from orchestrator.authorization import Role
from orchestrator.db.session import Database
from tests.integration import api_flows
from tests.integration.ui_client import Browser, make_key, open_ui, text_of
from tests.integration.ui_forms import fill, see

KEYS: dict[str, Any] = {"auth": "api-keys"}
START = "/ui/start/greeting"


@pytest.fixture
async def browser(database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Browser]:
    await api_flows.register(database, monkeypatch)
    async with open_ui(database) as found:
        yield found


async def count_processes(database: Database) -> int:
    return int(await database.pool.fetchval("SELECT count(*) FROM processes"))


async def test_a_workflow_is_started_page_by_page(browser: Browser, database: Database) -> None:
    first = await browser.get(START)
    assert "Greets" in text_of(first)
    second = await fill(browser, first, START, name="ana", count="2")
    assert (second.status_code, "Page 2" in text_of(second)) == (200, True)
    assert await count_processes(database) == 0
    started = await fill(browser, second, START, tone="kind")
    assert started.status_code == 303
    process_id = started.headers["location"].removeprefix("/ui/processes/")
    state = await database.pool.fetchval("SELECT state::text FROM processes WHERE process_id = $1", process_id)
    assert json.loads(state) == {"name": "ana", "count": 2, "tone": "kind"}


async def test_the_last_page_sent_twice_starts_one_process(browser: Browser, database: Database) -> None:
    second = await fill(browser, await browser.get(START), START, name="ana")
    once = await fill(browser, second, START, tone="kind")
    again = await fill(browser, second, START, tone="kind")
    assert (once.status_code, once.headers["location"]) == (again.status_code, again.headers["location"])
    assert await count_processes(database) == 1


async def test_what_does_not_fit_is_shown_as_it_was_written_with_the_problem_at_its_field(browser: Browser) -> None:
    wrong = await fill(browser, await browser.get(START), START, name="<b>ana</b>", count="many")
    assert wrong.status_code == 422
    page = see(wrong)
    assert page.sent["f.name"] == ["<b>ana</b>"]
    assert page.sent["f.count"] == ["many"]
    link = next(found["href"] for tag, found in page.tags if tag == "a" and found["href"].startswith("#f"))
    control = next(found for tag, found in page.tags if found.get("name") == "f.count")
    assert link == f"#{control['id']}"
    assert control["aria-invalid"] == "true"
    assert control["aria-describedby"] in page.ids
    right = await fill(browser, wrong, START, count="3")
    assert "Page 2" in text_of(right)


async def test_the_way_back_shows_and_keeps_what_was_filled_in(browser: Browser) -> None:
    second = await fill(browser, await browser.get(START), START, name="ana", count="2")
    first = await fill(browser, second, START, "_back=yes", tone="half written")
    assert see(first).sent["f.name"] == ["ana"]
    again = await fill(browser, first, START, name="ben")
    assert see(again).sent["f.tone"] == ["half written"]


async def test_a_page_before_that_does_not_fit_any_more_is_shown_again(browser: Browser, database: Database) -> None:
    second = await fill(browser, await browser.get(START), START, name="ana")
    sent = see(second).sent
    sent["_pages"] = ['[{"name": "ana", "count": "many"}]']
    answer = await browser.post(START, sent)
    assert answer.status_code == 422
    assert see(answer).sent["f.count"] == ["many"]
    for broken in ("{", "[1]", '"x"', "[" * 100_000):
        assert (await browser.post(START, {**sent, "_pages": [broken]})).status_code == 400
    assert await count_processes(database) == 0


async def test_a_refusal_stands_above_the_form(browser: Browser, database: Database) -> None:
    for name, status, words in (
        ("refusing", 412, "not on Fridays"),
        ("forbidden", 403, "may not start"),
        ("nothing", 404, "there is no workflow"),
    ):
        answer = await browser.get(f"/ui/start/{name}")
        assert (answer.status_code, words in text_of(answer)) == (status, True), text_of(answer)
    second = await fill(browser, await browser.get(START), START, name="ana")
    await database.pool.execute("UPDATE engine_settings SET global_lock = true")
    answer = await fill(browser, second, START, tone="kind")
    assert answer.status_code == 503
    assert "paused" in text_of(answer)


async def test_an_input_is_given_and_one_for_an_older_entry_refused(browser: Browser, database: Database) -> None:
    started = await fill(browser, await browser.get("/ui/start/asking"), "/ui/start/asking")
    path = started.headers["location"] + "/input"
    process_id = path.split("/")[3]
    page = await browser.get(path)
    assert page.status_code == 200, text_of(page)
    assert "Approve" in text_of(page)
    sent = see(page).sent
    sent["_seen"] = ["99"]
    stale = await browser.post(path, {**sent, "f.approved": ["true"]})
    assert (stale.status_code, "look at it again" in text_of(stale)) == (409, True)
    assert see(stale).sent["f.approved"] == ["true"]
    given = await fill(browser, page, path, approved="true")
    assert given.status_code == 303, text_of(given)
    assert await database.pool.fetchval("SELECT status FROM processes WHERE process_id = $1", process_id) == "running"
    answer = await browser.get(path)
    assert (answer.status_code, "waits for no input" in text_of(answer)) == (409, True)
    assert f'href="/ui/processes/{process_id}"' in answer.text, "from there it is one step to what there is to do"


async def test_only_who_may_start_sees_the_forms_and_only_a_form_of_the_session_is_taken(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await api_flows.register(database, monkeypatch)
    async with open_ui(database, **KEYS) as browser:
        assert (await browser.get(START)).status_code == 302
        await browser.sign_in(await make_key(database, Role.READ))
        for path in ("/ui/start", START):
            assert (await browser.get(path)).status_code == 403
        assert 'href="/ui/start"' not in (await browser.get("/ui")).text
        assert (await browser.post(START)).status_code == 403
        await browser.sign_in(await make_key(database, Role.START))
        assert (await browser.get(START)).status_code == 200
        assert (await browser.post(START, csrf="")).status_code == 403
    assert await count_processes(database) == 0


async def test_what_may_be_started_is_listed(browser: Browser, database: Database) -> None:
    await database.pool.execute(
        "UPDATE workflows SET description = '<img src=x onerror=alert(1)>' WHERE name = 'greeting'"
    )
    await database.pool.execute("INSERT INTO workflows (name, target) VALUES ('of_other_code', 'SYSTEM')")
    page = await browser.get("/ui/start")
    assert page.status_code == 200
    assert 'href="/ui/start/greeting"' in page.text
    assert "<img" not in page.text
    assert "more are registered that this program" in text_of(page)


async def test_when_the_form_cannot_be_made_what_was_sent_is_kept_and_sent_again(
    browser: Browser, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await browser.get(START)

    async def refuse(*_: object) -> None:
        raise ConnectionRefusedError("down")

    with monkeypatch.context() as broken:
        broken.setattr(starting, "prepare_start", refuse)
        away = await fill(browser, first, START, name="<b>ana</b>", count="2")
    assert away.status_code == 500, text_of(away)
    assert see(away).sent["f.name"] == ["<b>ana</b>"]
    second = await fill(browser, away, START)
    assert (second.status_code, "Page 2" in text_of(second)) == (200, True)
    broken_pages = await browser.post(START, {**see(second).sent, "_pages": ["{"]})
    assert "has lost its earlier pages" in text_of(broken_pages)


async def test_labels_are_in_the_language_of_the_visitor(
    database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    await api_flows.register(database, monkeypatch)
    texts = {"forms": {"fields": {"name": "Naam", "name_info": "Van wie <b>ook</b>"}}}
    (tmp_path / "nl.json").write_text(json.dumps(texts))
    async with open_ui(database, translations=str(tmp_path)) as browser:
        dutch = await browser.get(START, **{"accept-language": "de;q=0.3, nl-NL, ../../etc;q=0.1"})
        assert "Naam (required) Van wie <b>ook</b>" in text_of(dutch)
        assert "Name (required)" in text_of(await browser.get(START))


async def test_a_form_with_a_null_character_which_no_browser_sends_is_refused_whichever_field_has_it(
    browser: Browser, database: Database
) -> None:
    sent = see(await browser.get(START)).sent
    for name in ("f.name", "_key", "_pages", "unknown"):
        refused = await browser.post(START, {**sent, name: ["a\0"]})
        assert (refused.status_code, "has a null character" in text_of(refused)) == (400, True), name
    assert await database.pool.fetchval("SELECT count(*) FROM processes") == 0


async def test_a_form_may_have_many_rows(browser: Browser) -> None:
    first = await browser.get(START)
    rows = {f"x{number}": str(number) for number in range(3000)}
    answer = await browser.post(START, {**see(first).sent, **rows, "f.name": ["ana"]})
    assert "Page 2" in text_of(answer)
