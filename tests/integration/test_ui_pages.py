"""The pages of /ui in a real browser: no complaint of the browser, accessible, and live."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import pytest
from playwright.async_api import Page, expect

import orchestrator.api.ui
from orchestrator.authorization import Role
from orchestrator.db.session import Database
from tests.integration import api_flows
from tests.integration.browser import check_accessibility, keep_picture, new_context, open_browser, watched_page
from tests.integration.live_api import LiveApi, live_api
from tests.integration.ui_client import make_key
from tests.integration.ui_data import add_entries, add_process
from tests.integration.waiting import until

KEYS: dict[str, Any] = {"auth": "api-keys"}

PAGES = ("", "/processes", "/processes?status=failed", "/nothing")
"""Every page that needs no row of its own."""

HOSTILE = '<img src=x onerror=alert(1) hx-get="/ui/nothing" hx-trigger="load">'


@pytest.fixture
async def live(database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LiveApi]:
    await api_flows.register(database, monkeypatch)
    async with live_api(database, **KEYS) as found:
        yield found


def address(live: LiveApi, path: str) -> str:
    return f"http://127.0.0.1:{live.port}/ui{path}"


async def sign_in(live: LiveApi, page: Page, key: str, path: str = "") -> None:
    await page.goto(address(live, path))
    await page.get_by_label("API key").fill(key)
    await page.get_by_role("button", name="Sign in").click()
    await expect(page).to_have_url(address(live, path))


@pytest.mark.parametrize("dark", [False, True])
async def test_every_page_is_accessible_and_the_browser_complains_of_nothing(
    live: LiveApi, database: Database, dark: bool
) -> None:
    failed = await add_process(database, note=HOSTILE)
    asking = await add_process(database, "asking", "suspended", step="Approve")
    own = (
        f"/processes/{failed}",
        f"/processes/{asking}",
        f"/processes/{failed}/state",
        f"/processes/{failed}/entries/2",
    )
    bulk = ("/processes/bulk?action=abort&status=failed", "/processes/bulk?action=retry&q=words")
    async with (
        open_browser() as browser,
        new_context(browser, dark=dark) as context,
        watched_page(context, expected=["404", "422"]) as page,
    ):
        await page.goto(address(live, ""))
        await check_accessibility(page)
        await sign_in(live, page, await make_key(database))
        for number, path in enumerate((*PAGES, *own, *bulk)):
            await page.goto(address(live, path))
            for one in await page.locator("details > summary").all():
                await one.click()
            await page.wait_for_load_state("load")
            await check_accessibility(page)
            await keep_picture(page, f"page-{number}-{'dark' if dark else 'light'}")


async def test_what_people_have_written_is_inert(live: LiveApi, database: Database) -> None:
    process_id = await add_process(database, note=HOSTILE)
    async with open_browser() as browser, new_context(browser) as context, watched_page(context) as page:
        requests: list[str] = []
        await sign_in(live, page, await make_key(database))
        page.on("request", lambda one: requests.append(one.url))
        await page.goto(address(live, f"/processes/{process_id}"))
        await expect(page.locator("#note-text")).to_contain_text("<img src=x")
        await page.goto(address(live, "/processes"))
        await expect(page.locator("#rows")).to_contain_text("<img src=x")
    assert not [one for one in requests if one.endswith("/nothing")]


async def test_several_writes_from_one_open_page_and_from_two_tabs(live: LiveApi, database: Database) -> None:
    process_id = await add_process(database)
    async with (
        open_browser() as browser,
        new_context(browser) as context,
        watched_page(context, expected=["403"]) as page,
    ):
        await sign_in(live, page, await make_key(database), f"/processes/{process_id}")
        async with watched_page(context) as other:
            await other.goto(address(live, f"/processes/{process_id}"))
            for number, tab in enumerate((page, page, page, other)):
                if not await tab.get_by_label("Note", exact=True).last.is_visible():
                    await tab.get_by_text("Change the note…").click()
                await tab.locator("textarea[name=note]").fill(f"note {number}")
                await tab.get_by_role("button", name="Keep").click()
                await expect(tab.locator("#note-text")).to_contain_text(f"note {number}")
        await page.evaluate("document.querySelector('meta[name=csrf-token]').content = 'x'")
        await page.locator("textarea[name=note]").fill("forged")
        await page.get_by_role("button", name="Keep").click()
        await expect(page.locator("#banner")).to_contain_text("reload the page")
    note = await database.pool.fetchval("SELECT note FROM processes WHERE process_id = $1", process_id)
    assert note == "note 3"


async def test_a_refusal_appears_in_its_form_and_a_defect_never_replaces_the_page(
    live: LiveApi, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    process_id = await add_process(database)
    expected = ["422", "500", "401", "Response Status Error"]
    async with (
        open_browser() as browser,
        new_context(browser) as context,
        watched_page(context, expected=expected) as page,
    ):
        await sign_in(live, page, await make_key(database), f"/processes/{process_id}")
        await page.get_by_text("Correct the state…").click()
        await page.get_by_label("Keys to set, as JSON").fill("{")
        await page.locator("#patch-reason").fill("typo")
        await page.get_by_role("button", name="Correct the state").click()
        await expect(page.locator("#actions .refusal .words")).to_contain_text("not JSON")
        await expect(page.get_by_label("Keys to set, as JSON")).to_have_value("{")
        await page.goto(address(live, "/processes"))
        with monkeypatch.context() as patched:
            patched.setattr(
                "orchestrator.api.ui.processes.page_processes", AsyncMock(side_effect=RuntimeError("a defect"))
            )
            await page.get_by_label("Assignee").fill("NOC")
            await page.get_by_label("Assignee").press("Enter")
            await expect(page.locator("#banner")).to_contain_text("the program's log says why")
            await expect(page.locator("#rows table")).to_contain_text("greeting")
        await database.pool.execute("DELETE FROM browser_sessions")
        await page.get_by_label("Assignee").fill("NOC2")
        await page.get_by_label("Assignee").press("Enter")
        await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        assert "return_to=%2Fui%2Fprocesses" in page.url


async def test_a_process_with_a_thousand_steps_is_shown_at_once_and_stays_live(
    live: LiveApi, database: Database
) -> None:
    process_id = await add_process(database, status="running", entries=1000)
    async with (
        open_browser() as browser,
        new_context(browser) as context,
        watched_page(context, expected=["401", "Response Status Error"]) as page,
    ):
        await sign_in(live, page, await make_key(database))
        began = time.perf_counter()
        await page.goto(address(live, f"/processes/{process_id}"))
        await expect(page.locator("#entry-1000")).to_be_attached()
        print(f"shown after {time.perf_counter() - began:.2f} s")
        await expect(page.locator("#liveness")).to_have_text("live")
        await page.get_by_text("Abort…").click()
        await page.locator("#abort-reason").fill("half a rea")
        first = await page.locator("#entry-1").element_handle()
        for number in range(1001, 1011):
            await add_entries(database, process_id, number, number)
            await expect(page.locator(f"#entry-{number}")).to_be_attached()
        assert await page.locator("#log tr").count() == 1010
        assert first is not None
        assert await first.evaluate("one => one.isConnected"), "what has not changed is not replaced"
        await expect(page.locator("#abort-reason")).to_have_value("half a rea")
        await database.pool.execute("DELETE FROM browser_sessions")
        await add_entries(database, process_id, 1011, 1011)
        # What comes first says so: the answer to the page's next request, or the end of its stream.
        await expect(page.get_by_label("API key").or_(page.get_by_text("You are signed out"))).to_be_visible()


async def test_a_stream_that_ends_with_the_session_says_so(
    live: LiveApi, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.api.routes.events.PING_EVERY", 0.5)
    process_id = await add_process(database, status="running")
    async with open_browser() as browser, new_context(browser) as context, watched_page(context) as page:
        await sign_in(live, page, await make_key(database), f"/processes/{process_id}")
        await expect(page.locator("#liveness")).to_have_text("live")
        await database.pool.execute("DELETE FROM browser_sessions")
        await expect(page.locator("#banner")).to_contain_text("You are signed out")
        await expect(page.locator("#liveness")).to_have_text("not live")


async def test_the_keyboard_reaches_everything(live: LiveApi, database: Database) -> None:
    process_id = await add_process(database)
    async with open_browser() as browser, new_context(browser) as context, watched_page(context) as page:
        await sign_in(live, page, await make_key(database, Role.OPERATE), f"/processes/{process_id}")
        await page.keyboard.press("Tab")
        await expect(page.get_by_text("Skip to the content")).to_be_focused()
        await page.keyboard.press("Enter")
        await page.keyboard.press("Tab")
        reached = set[str]()
        for _ in range(40):
            reached.add(await page.evaluate("document.activeElement.textContent.trim()"))
            await page.keyboard.press("Tab")
        assert {"Retry", "Abort…", "Skip this step…", "Correct the state…", "Change the note…"} <= reached
        await page.get_by_role("button", name="Retry", exact=True).focus()
        await page.keyboard.press("Enter")
        await until(
            lambda: database.pool.fetchval(
                "SELECT status = 'running' FROM processes WHERE process_id = $1", process_id
            ),
            "it is retried",
        )


def test_the_templates_have_nothing_that_the_policy_forbids() -> None:
    folder = Path(orchestrator.api.ui.__file__).parent / "templates"
    forbidden = re.compile(
        r"\bstyle=|<style|\bon[a-z]+=|hx-on|hx-vals='js:|js:|javascript:|<script(?![^>]*\bsrc=)|(?<!')\|\s*safe\b"
        r"|hx-trigger=\"[^\"]*\["
    )
    texts = {one.name: one.read_text() for one in folder.rglob("*.html")}
    assert texts
    assert {name: forbidden.findall(text) for name, text in texts.items() if forbidden.search(text)} == {}


def test_the_files_hold_no_address_of_another_machine() -> None:
    folder = Path(orchestrator.api.ui.__file__).parent
    for one in (*folder.rglob("*.html"), folder / "assets/ui.css", folder / "assets/ui.js"):
        assert "//" not in re.sub(r"^\s*//.*$", "", one.read_text(), flags=re.MULTILINE).replace(
            "http://www.w3.org", ""
        )
