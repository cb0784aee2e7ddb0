"""The pages of /ui about subscriptions, products, workflows, schedules and dead letters, in this process on a real database."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from orchestrator.authorization import Role
from orchestrator.db.session import Database
from tests.integration.ui_client import Browser, make_key, open_ui, text_of
from tests.integration.ui_data import add_process
from tests.integration.ui_forms import fill, see
from tests.integration.ui_rows import World, make_world, require_inert

KEYS: dict[str, Any] = {"auth": "api-keys"}


@pytest.fixture
async def world(database: Database, monkeypatch: pytest.MonkeyPatch) -> World:
    return await make_world(database, monkeypatch)


@pytest.fixture
async def browser(database: Database) -> AsyncIterator[Browser]:
    async with open_ui(database) as found:
        yield found


def list_paths(world: World) -> list[str]:
    """Return every page."""
    return [
        "/subscriptions",
        f"/subscriptions/{world.node}",
        f"/subscriptions/{world.port}",
        f"/subscriptions/{world.node}/history",
        "/products",
        f"/products/{world.product}",
        "/workflows",
        "/workflows/asking",
        "/workflows/modify_node",
        "/schedules",
        "/schedules/new",
        f"/schedules/{world.schedule}",
        f"/schedules/{world.schedule}/change",
        "/dead-letters",
        f"/dead-letters/{world.letter}",
        "/start",
    ]


async def test_every_page_is_sound_and_texts_in_it_are_inert(browser: Browser, world: World) -> None:
    for path in list_paths(world):
        answer = await browser.get(f"/ui{path}")
        assert answer.status_code == 200, (path, text_of(answer))
        require_inert(answer)


async def test_a_visitor_sees_what_the_role_allows(database: Database, world: World) -> None:
    async with open_ui(database, **KEYS) as browser:
        await browser.sign_in(await make_key(database, Role.READ))
        for path in list_paths(world):
            is_open = not path.startswith(("/dead-letters", "/start", "/schedules/new")) and not path.endswith(
                "/change"
            )
            assert (await browser.get(f"/ui{path}")).status_code == (200 if is_open else 403), path
        start = await browser.get("/ui")
        assert "/ui/dead-letters" not in start.text
        subscription = await browser.get(f"/ui/subscriptions/{world.port}")
        assert "set-in-sync" not in subscription.text
        assert "you need the role operate" in text_of(subscription)
        assert "/ui/start/" not in (await browser.get(f"/ui/subscriptions/{world.node}")).text
        schedule = await browser.get(f"/ui/schedules/{world.schedule}")
        assert f"{world.schedule}/run" not in schedule.text
        for path in (
            f"/subscriptions/{world.port}/set-in-sync",
            f"/schedules/{world.schedule}/pause",
            f"/schedules/{world.schedule}/run",
            f"/dead-letters/{world.letter}/discard",
        ):
            assert (await browser.post(f"/ui{path}", {"sure": "yes", "reason": "x"})).status_code == 403
        await browser.sign_in(await make_key(database, Role.OPERATE))
        for path in (f"/schedules/{world.schedule}/pause", f"/dead-letters/{world.letter}/discard"):
            assert (await browser.post(f"/ui{path}", {"sure": "yes"}, csrf="")).status_code == 403
    assert await database.pool.fetchval("SELECT count(*) FROM dead_letters WHERE closed_at IS NULL") == 1


async def test_subscriptions_are_searched_and_filtered(browser: Browser, world: World) -> None:
    found = text_of(await browser.get("/ui/subscriptions?q=port"))
    assert "1–1 of 1" in found
    by_block = text_of(await browser.get("/ui/subscriptions?q=ge-0/0/0"))
    assert "1–1 of 1" in by_block
    assert "1–1 of 1" in text_of(await browser.get("/ui/subscriptions?insync=false&status=active"))
    assert "nothing" in text_of(await browser.get("/ui/subscriptions?status=terminated"))
    wrong = await browser.get("/ui/subscriptions?status=sideways&q=x")
    assert "has none of its values" in text_of(wrong)
    assert 'value="x"' in wrong.text
    assert (await browser.get(f"/ui/subscriptions/{uuid4()}")).status_code == 404


async def test_a_null_character_in_an_address_is_named_and_is_no_failure(browser: Browser, world: World) -> None:
    for path in ("processes?q", "subscriptions?q", "subscriptions?product", "schedules?q", "schedules?workflow"):
        assert "may contain a null character" in text_of(await browser.get(f"/ui/{path}=a%00")), path
    for path in ("dead-letters?workflow", "dead-letters?queue"):
        assert "may contain a null character" in text_of(await browser.get(f"/ui/{path}=a%00")), path
    for path in ("dead-letters?process_id", "products?q", "workflows?q", "workflows?target", "start?q"):
        assert (await browser.get(f"/ui/{path}=a%00")).status_code < 500, path


async def test_a_subscription_shows_its_blocks_neighbours_workflows_and_processes(
    browser: Browser, world: World
) -> None:
    node = await browser.get(f"/ui/subscriptions/{world.node}")
    text = text_of(node)
    assert "[ 1, 2 ]" in text
    assert f"/ui/subscriptions/{world.port}" in node.text, "who uses it"
    assert "not now:" in text
    assert "failed" in text
    port = await browser.get(f"/ui/subscriptions/{world.port}")
    assert "of another subscription" in text_of(port)
    assert f"/ui/subscriptions/{world.node}" in port.text
    history = text_of(await browser.get(f"/ui/subscriptions/{world.node}/history"))
    assert "Version 2" in history
    assert (await browser.get(f"/ui/subscriptions/{world.node}/history?before=x")).status_code == 422


async def test_a_process_shows_which_try_of_its_step_each_entry_is(
    browser: Browser, database: Database, world: World
) -> None:
    """Each claim has a new number over the whole process: the second step's first try is not a second one."""
    process_id = await add_process(database, entries=0)
    await database.pool.execute(
        "INSERT INTO process_steps (process_id, sequence, kind, name, position, attempt, status, delta, author, started_at,"
        " finished_at) SELECT $1, n, 'step', CASE n WHEN 1 THEN 'Choose' ELSE 'Greet' END, 0, n, 'failed', '{}', 'ana',"
        " now(), now() FROM generate_series(1, 4) n",
        process_id,
    )
    await database.pool.execute("UPDATE processes SET attempt = 4, sequence = 4 WHERE process_id = $1", process_id)
    log = "1 Choose failed .* 2 Greet failed .* 3 Greet try 2 failed .* 4 Greet try 3 failed"
    page = text_of(await browser.get(f"/ui/processes/{process_id}"))
    news = text_of(await browser.fragment(f"/ui/processes/{process_id}/news?after=3"))
    assert re.search(log, page)
    assert "4 Greet try 3 failed" in news
    assert "try 4" not in page + news


async def test_a_subscription_is_set_in_sync_with_a_reason(browser: Browser, database: Database, world: World) -> None:
    path = f"/ui/subscriptions/{world.port}/set-in-sync"
    held = await browser.post(path, {"reason": "checked"})
    assert (held.status_code, "is held by process" in text_of(held)) == (409, True)
    part = await browser.post(path, {"reason": "checked"}, **{"hx-request": "true"})
    assert (part.status_code, "<html" in part.text, "is held by process" in part.text) == (422, False, True)
    await database.pool.execute("UPDATE processes SET status = 'aborted'")
    assert (await browser.post(path, {"reason": " "})).status_code == 400
    done = await browser.post(path, {"reason": "checked"})
    assert (done.status_code, done.headers["location"]) == (303, f"/ui/subscriptions/{world.port}")
    assert await database.pool.fetchval("SELECT insync FROM subscriptions WHERE subscription_id = $1", world.port)


async def test_a_workflow_shows_its_steps_and_who_stands_at_them(browser: Browser, world: World) -> None:
    text = text_of(await browser.get("/ui/workflows/asking"))
    assert "Approve input NOC" in text
    assert "1 suspended" in text
    elsewhere = text_of(await browser.get("/ui/workflows/modify_node"))
    assert "does not have" in elsewhere or "not registered" in elsewhere
    assert "1 failed" in elsewhere
    assert (await browser.get("/ui/workflows/nothing")).status_code == 404
    assert "asking" not in text_of(await browser.get("/ui/workflows?q=greet")).split("Processes", 2)[2]


async def test_a_schedule_is_paused_run_removed_and_brought_back(
    browser: Browser, database: Database, world: World
) -> None:
    path = f"/ui/schedules/{world.schedule}"
    assert "cron 30 2 * * *, Europe/Amsterdam" in text_of(await browser.get(path))
    assert (await browser.post(f"{path}/pause", {"reason": "the supplier sleeps"})).status_code == 303
    assert "the supplier sleeps" in text_of(await browser.get(path))
    assert "disabled" in text_of(await browser.get("/ui/schedules?state=disabled"))
    assert (await browser.post(f"{path}/resume")).status_code == 303
    page = await browser.get(path)
    key = see(page).sent["key"][0]
    runs = [await browser.post(f"{path}/run", {"key": key}) for _ in range(2)]
    assert {one.status_code for one in runs} == {303}
    assert len({one.headers["location"] for one in runs}) == 1
    assert (await browser.post(f"{path}/delete")).status_code == 400
    assert (await browser.post(f"{path}/delete", {"sure": "yes"})).status_code == 303
    assert "removed by anonymous" in text_of(await browser.get(path))
    assert (await browser.post(f"{path}/reset")).status_code in {404, 409}
    assert (await browser.get("/ui/schedules?state=sideways")).status_code == 200


async def test_a_schedule_is_made_page_by_page(browser: Browser, database: Database, world: World) -> None:
    del world
    path = "/ui/schedules/new"
    task = str(await database.pool.fetchval("SELECT workflow_id FROM workflows WHERE name = 'greeting'"))
    page = await fill(browser, await browser.get(path), path, task=task)
    page = await fill(browser, page, path, name="ana")
    page = await fill(browser, page, path, tone="kind")
    page = await fill(browser, page, path, name="greet often", kind="interval")
    wrong = await fill(browser, page, path, every="0")
    assert (wrong.status_code, see(wrong).sent["f.every"]) == (422, ["0"])
    page = await fill(browser, wrong, path, every="3", unit="hours")
    assert "The next runs" in text_of(page)
    made = await fill(browser, page, path)
    assert made.status_code == 303, text_of(made)
    assert "every 3h" in text_of(await browser.get(made.headers["location"]))


async def test_a_schedule_is_changed_page_by_page(browser: Browser, database: Database, world: World) -> None:
    shown = f"/ui/schedules/{world.schedule}"
    path = f"{shown}/change"
    assert path in (await browser.get(shown)).text
    before = await database.pool.fetchrow("SELECT * FROM schedules WHERE schedule_id = $1", world.schedule)
    page = await browser.get(path)
    for expected in ({"f.kind": ["cron"]}, {"f.cron": ["30 2 * * *"], "f.zone": ["Europe/Amsterdam"]}, {}):
        assert expected.items() <= see(page).sent.items()
        page = await fill(browser, page, path)
    assert (page.status_code, page.headers["location"]) == (303, shown)
    after = await database.pool.fetchrow("SELECT * FROM schedules WHERE schedule_id = $1", world.schedule)
    assert after == before, "who changes nothing changes nothing"

    page = await fill(browser, await browser.get(path), path, kind="interval")
    wrong = await fill(browser, page, path, every="0")
    assert (wrong.status_code, see(wrong).sent["f.every"]) == (422, ["0"])
    page = await fill(browser, wrong, path, every="90", unit="seconds")
    assert "The next runs" in text_of(page)
    refused = await fill(browser, page, path, missed="all")
    assert (refused.status_code, "use overlap 'allow'" in text_of(refused)) == (422, True)
    done = await fill(browser, refused, path, overlap="allow", missed_limit="7", jitter="20", note="since the move")
    assert done.status_code == 303, text_of(done)
    text = text_of(await browser.get(shown))
    for words in (
        "every 90s",
        "allow",
        "the newest 7 at most",
        "since the move",
        "edited by anonymous",
        "spread over 20 s",
    ):
        assert words in text

    start = await database.pool.fetchval(
        "UPDATE schedules SET trigger = jsonb_set(trigger, '{start}', '\"2026-11-25T01:02:03.456789+00:00\"')"
        " WHERE schedule_id = $1 RETURNING trigger->>'start'",
        world.schedule,
    )
    page = await fill(browser, await browser.get(path), path)
    page = await fill(browser, page, path, every="2", unit="minutes")
    assert (await fill(browser, page, path)).status_code == 303
    kept = await database.pool.fetchval(
        "SELECT trigger->>'start' FROM schedules WHERE schedule_id = $1", world.schedule
    )
    assert kept == start, "the slots of an interval are counted from where they were"
    assert (await browser.post(f"{shown}/delete", {"sure": "yes"})).status_code == 303
    assert (await browser.get(path)).status_code == 404
    assert path not in (await browser.get(shown)).text


async def test_what_was_changed_while_the_form_was_filled_in_is_not_undone(
    browser: Browser, database: Database, world: World
) -> None:
    shown = f"/ui/schedules/{world.schedule}"
    path = f"{shown}/change"
    mine = await browser.get(path)
    theirs = await fill(browser, await browser.get(path), path)
    theirs = await fill(browser, theirs, path, cron="15 4 * * *")
    assert (await fill(browser, theirs, path)).status_code == 303
    before = await database.pool.fetchrow("SELECT * FROM schedules WHERE schedule_id = $1", world.schedule)
    page = await fill(browser, mine, path)
    page = await fill(browser, page, path, cron="30 2 * * *")
    refused = await fill(browser, page, path, note="mine")
    assert (refused.status_code, "open the form again" in text_of(refused)) == (409, True)
    assert before == await database.pool.fetchrow("SELECT * FROM schedules WHERE schedule_id = $1", world.schedule)
    page = await fill(browser, await browser.get(path), path)
    page = await fill(browser, page, path)
    lost = await browser.post(path, {name: one for name, (one, *_) in see(page).sent.items() if name != "_seen"})
    assert (lost.status_code, "open it again" in text_of(lost)) == (422, True), "nobody knows what it began with"
    assert before == await database.pool.fetchrow("SELECT * FROM schedules WHERE schedule_id = $1", world.schedule)
    assert (await fill(browser, page, path, note="mine")).status_code == 303
    text = text_of(await browser.get(shown))
    assert ("15 4 * * *" in text, "mine" in text) == (True, True)


async def test_the_note_of_a_schedule_that_is_over_is_changed(
    browser: Browser, database: Database, world: World
) -> None:
    path = f"/ui/schedules/{world.schedule}/change"
    await database.pool.execute(
        "UPDATE schedules SET trigger = jsonb_set(trigger, '{end}', '\"2026-01-01T00:00:00+00:00\"')"
        " WHERE schedule_id = $1",
        world.schedule,
    )
    page = await fill(browser, await browser.get(path), path)
    page = await fill(browser, page, path)
    assert page.status_code == 200, text_of(page)
    assert (await fill(browser, page, path, note="the site is gone")).status_code == 303
    assert "the site is gone" in text_of(await browser.get(f"/ui/schedules/{world.schedule}"))


async def test_a_dead_letter_is_read_and_discarded_once_it_is_sure(
    browser: Browser, database: Database, world: World
) -> None:
    path = f"/ui/dead-letters/{world.letter}"
    assert "order-1" in text_of(await browser.get(path))
    away = await browser.post(f"{path}/replay")
    assert (away.status_code, "the broker is away" in text_of(away)) == (409, True)
    assert (await browser.post(f"{path}/discard")).status_code == 400
    assert await database.pool.fetchval("SELECT count(*) FROM dead_letters WHERE closed_at IS NULL") == 1
    assert (await browser.post(f"{path}/discard", {"sure": "yes"})).status_code == 303
    assert "discarded by anonymous" in text_of(await browser.get(path))
    assert "nothing" in text_of(await browser.get("/ui/dead-letters"))
    assert "discarded" in text_of(await browser.get("/ui/dead-letters?closed=yes"))
    assert "given whole" in text_of(await browser.get("/ui/dead-letters?process_id=x"))
