"""The forms and lists of /ui in a real browser: accessible, without a complaint, by keyboard, and without JavaScript."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from playwright.async_api import Page, expect

from orchestrator.db.session import Database
from orchestrator.forms import FormGenerator
from orchestrator.workflow import StepList, begin, done, workflow
from tests.integration.api_flows import FLOWS, greet, register
from tests.integration.browser import check_accessibility, keep_picture, new_context, open_browser, watched_page
from tests.integration.live_api import LiveApi, live_api
from tests.integration.test_ui_lists import list_paths
from tests.integration.ui_rows import World, make_world
from tests.unit.form_pages import EVERYTHING, form_of


def form_with_everything() -> FormGenerator:
    page = yield form_of(**EVERYTHING)[0]
    return page.model_dump(mode="json")


@workflow("Asks for everything", initial_input_form=form_with_everything)
def everything() -> StepList:
    return begin >> greet >> done


@pytest.fixture
async def world(database: Database, monkeypatch: pytest.MonkeyPatch) -> World:
    found = await make_world(database, monkeypatch)
    await database.pool.execute("DELETE FROM workflows WHERE name = 'forbidden'")
    await register(database, monkeypatch, [everything], __name__)
    return found


@pytest.fixture
async def live(database: Database) -> AsyncIterator[LiveApi]:
    async with live_api(database) as found:
        yield found


def address(live: LiveApi, path: str) -> str:
    return f"http://127.0.0.1:{live.port}/ui{path}"


async def check_both(page: Page, name: str) -> None:
    """Check a page in light and dark, and keep a picture of each."""
    for scheme in ("light", "dark"):
        await page.emulate_media(color_scheme=cast("Any", scheme))
        await check_accessibility(page)
        await keep_picture(page, f"ui-{name}-{scheme}")


async def test_the_lists_are_accessible_and_the_browser_complains_of_nothing(live: LiveApi, world: World) -> None:
    async with open_browser() as browser, new_context(browser) as context, watched_page(context) as page:
        for path in list_paths(world):
            if path == "/schedules/new":
                continue  # only the workflow with every field is known here
            await page.goto(address(live, path))
            for one in await page.locator("details > summary").all():
                await one.click()
            await check_both(page, re.sub(r"[^a-z]+", "-", re.sub(r"[0-9a-f-]{36}", "one", path)).strip("-"))


async def test_a_form_with_every_kind_of_field_is_accessible_rightly_and_wrongly_filled_in(
    live: LiveApi, world: World
) -> None:
    del world
    async with (
        open_browser() as browser,
        new_context(browser) as context,
        watched_page(context, expected=["422"]) as page,
    ):
        await page.goto(address(live, "/start/everything"))
        await check_both(page, "form")
        number = page.locator('[name="f.number"]')
        await number.fill("many")
        await page.get_by_role("button", name="Add a row to Ports").first.click()
        await expect(number).to_have_value("many")
        await page.get_by_role("button", name="Next").last.click()
        await expect(page.get_by_role("alert").first).to_contain_text("not fit")
        assert await page.evaluate("document.activeElement.id") == "problems"
        await check_both(page, "form-with-problems")
        await page.get_by_role("link", name=re.compile("^Number:")).click()
        await expect(number).to_be_focused()
        await expect(number).to_have_value("many")


async def test_a_workflow_is_started_by_keyboard_with_and_without_scripts(
    database: Database, live: LiveApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    await register(database, monkeypatch, FLOWS)
    async with open_browser() as browser:
        for scripts in (True, False):
            context = await browser.new_context(java_script_enabled=scripts)
            async with watched_page(context, expected=["422", "404"]) as page:
                await start_greeting(page, live)
            await context.close()
    assert await database.pool.fetchval("SELECT count(*) FROM processes") == 2


async def start_greeting(page: Page, live: LiveApi) -> None:
    """Start the workflow by keyboard, with a mistake on the way."""
    await page.goto(address(live, "/start"))
    await page.get_by_role("link", name="Start greeting").focus()
    await page.keyboard.press("Enter")
    await page.get_by_label("Name").fill("ana")
    await page.get_by_label("Count").fill("many")
    # Enter presses the button that goes on.
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("alert").first).to_contain_text("Count")
    await expect(page.get_by_label("Count")).to_have_value("many")
    await page.get_by_label("Count").fill("2")
    await page.keyboard.press("Enter")
    await page.get_by_label("Tone").fill("kind")
    await page.keyboard.press("Enter")
    await page.wait_for_url(re.compile("/ui/processes/[0-9a-f-]{36}$"))
