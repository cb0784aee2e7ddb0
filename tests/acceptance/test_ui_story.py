"""The second story of the demo by clicking: the real programs, a real browser, and nothing but the pages of /ui."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest
from playwright.async_api import Page, expect

from tests.acceptance.client import COMMANDS
from tests.acceptance.conftest import make_installations
from tests.acceptance.installation import Installation
from tests.acceptance.programs import Api, OtherProgram, Program
from tests.acceptance.waiting import until
from tests.databases import Databases
from tests.integration.browser import check_accessibility, keep_picture, new_context, open_browser, watched_page

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PROJECT = {
    "ORCHESTRATOR_WORKFLOWS": "examples.network",
    "ORCHESTRATOR_MIGRATIONS": str(EXAMPLES / "network" / "migrations"),
}


@dataclass
class Network:
    """The example at work, with its API."""

    engine: Installation
    controller: OtherProgram
    api: Api
    consumer: Program
    variables: dict[str, str]


@pytest.fixture(scope="module")
def network(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """Provide the example, running."""
    with make_installations(databases, tmp_path_factory.mktemp) as make:
        engine = make(**PROJECT)
        logs = engine.folder / "logs"
        others = [
            OtherProgram(EXAMPLES / "network/controller_program.py", logs / "controller.log"),
            OtherProgram(EXAMPLES / "demo/field_worker.py", logs / "field-worker.log", FIELD_AMQP_URL=engine.amqp_url),
        ]
        try:
            url, _ = [other.first_line() for other in others]
            variables = {"NETWORK_CONTROLLER_URL": url, "NETWORK_AMQP_URL": engine.amqp_url}
            engine.coordinator().ready()
            consumer = engine.consumer(**variables)
            consumer.ready()
            engine.client.listen()
            yield Network(engine, others[0], engine.api(**variables).serving(), consumer, variables)
        finally:
            for other in others:
                other.close()


async def test_an_operator_does_everything_by_clicking(network: Network) -> None:
    home = f"{network.api.url}/ui"
    complaints = ["422"]  # a form that is wrong is answered with it
    async with (
        open_browser() as browser,
        new_context(browser) as context,
        watched_page(context, expected=complaints) as page,
    ):
        await page.goto(home)
        await expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        process_id = await create_node(page)
        node = await approve(page, network, process_id)
        await validate(page, network, node)
        await find_out_why_it_waits(page, network, node)
        await pause_and_unpause(page, home)
        await replay_a_dead_letter(page, network, home)
        await page.goto(home)
        await keep_picture(page, "story-overview")


async def create_node(page: Page) -> UUID:
    """Start a node, with a form that is wrong at first."""
    await page.get_by_role("link", name="Start", exact=True).click()
    await page.get_by_role("link", name="Node Nokia").first.click()
    await page.get_by_label("Customer Id").fill("NREN")
    await page.get_by_label("Name, for example ams-1").fill("Amsterdam")
    await page.get_by_label("Role").select_option("PE")
    await page.get_by_label("Management Address").fill("2001:db8::1")
    await page.locator(".actions").get_by_role("button").first.click()
    await expect(page.locator("#problems")).to_contain_text("ams-1")
    await expect(page.get_by_label("Customer Id")).to_have_value("NREN")
    await check_accessibility(page)
    await keep_picture(page, "story-form-wrong")
    await page.get_by_label("Name, for example ams-1").fill("ams-1")
    await page.locator(".actions").get_by_role("button").first.click()
    await expect(page).to_have_url(re.compile("/ui/processes/[0-9a-f-]{36}$"))
    return UUID(page.url.rpartition("/")[2])


async def approve(page: Page, network: Network, process_id: UUID) -> str:
    """Watch the callback of the field engineers come in, without a reload; then accept what they have installed."""
    opened = await page.evaluate("performance.timeOrigin")
    await expect(page.locator("#log")).to_contain_text("awaiting callback")
    await expect(page.locator("#actions").get_by_role("link", name="Give input…")).to_be_visible()
    await expect(page.locator("#standing")).to_contain_text("waits for input")
    assert await page.evaluate("performance.timeOrigin") == opened, "the page was not loaded again"
    await check_accessibility(page)
    await keep_picture(page, "story-callback")
    await page.get_by_role("link", name="Give input…").click()
    await page.get_by_role("textbox").first.fill("Noor")
    await page.locator(".actions").get_by_role("button").first.click()
    await expect(page.locator("#standing")).to_contain_text("completed")
    found = await asyncio.to_thread(
        network.engine.value, "SELECT subscription_id FROM processes_subscriptions WHERE process_id = $1", process_id
    )
    return str(found)


async def validate(page: Page, network: Network, node: str) -> None:
    """See a validation fail because the router was changed by hand; put it right, and retry."""
    right = (await asyncio.to_thread(network.controller.ask, f"/services/{node}"))["configuration"]
    await asyncio.to_thread(network.controller.ask, f"/services/{node}", "PATCH", {"role": "P"})
    await start_on_subscription(page, node, "validate_node")
    await expect(page.locator("#standing")).to_contain_text("inconsistent data")
    await expect(page.locator("#standing .words")).to_be_visible()
    await page.get_by_text("Traceback").first.click()
    await expect(page.locator("#standing pre").first).to_contain_text("Traceback (most recent call last)")
    await check_accessibility(page)
    await keep_picture(page, "story-failure")
    await asyncio.to_thread(network.controller.ask, f"/services/{node}", "PATCH", {"role": right["role"]})
    await page.get_by_role("button", name="Retry", exact=True).click()
    await expect(page.locator("#standing")).to_contain_text("completed")
    await expect(page.locator("#log")).to_contain_text("try 2")


async def start_on_subscription(page: Page, node: str, workflow: str) -> None:
    """Start a workflow from the page of a subscription."""
    await page.get_by_role("link", name="Subscriptions", exact=True).click()
    await page.locator(f"a[href$='/subscriptions/{node}']").first.click()
    await page.locator(f"a[href*='/start/{workflow}']").click()
    button = page.locator(".actions").get_by_role("button").first
    await button.click()
    await expect(page).to_have_url(re.compile("/ui/processes/"))


async def find_out_why_it_waits(page: Page, network: Network, node: str) -> None:
    """Without a consumer, read why a process does not go on; see it go on when there is one again."""
    await asyncio.to_thread(network.consumer.stop)
    await start_on_subscription(page, node, "validate_node")
    await expect(page.locator("#standing .notice")).to_contain_text("consumer")
    await keep_picture(page, "story-waits")
    consumer = await asyncio.to_thread(lambda: network.engine.consumer(**network.variables))
    await asyncio.to_thread(consumer.ready)
    await expect(page.locator("#standing")).to_contain_text("completed")


async def pause_and_unpause(page: Page, home: str) -> None:
    """Pause the engine with a reason that everybody sees, and let it go on."""
    await page.goto(home)
    await page.get_by_text("Pause the engine…").click()
    await page.get_by_label("Reason").fill("the IMS is upgraded")
    await page.get_by_role("button", name="Pause").click()
    await expect(page.locator("#counts .notice")).to_contain_text("the IMS is upgraded")
    await page.get_by_text("Let the engine go on…").click()
    await page.get_by_role("button", name="Go on").click()
    await expect(page.get_by_text("Pause the engine…")).to_be_visible()
    await expect(page.locator("#counts")).not_to_contain_text("paused")


async def replay_a_dead_letter(page: Page, network: Network, home: str) -> None:
    """Read why a message could not be used, and send it again."""
    await asyncio.to_thread(network.engine.client.send, COMMANDS, "workflow.start", b"not json")
    await page.goto(home)
    await expect(page.locator("#counts")).to_contain_text(re.compile(r"[1-9]\d* dead letter"))
    await page.locator("#counts a[href$='/dead-letters']").click()
    await page.locator("main a[href*='/dead-letters/']").first.click()
    await expect(page.locator("main .notice")).to_contain_text("not JSON")
    await page.get_by_text("Replay", exact=True).first.click()
    await page.get_by_role("button", name="Replay").click()
    # The answer leads to the letter again; to go elsewhere before it has come would cut it off.
    await expect(page.get_by_text("replayed by")).to_be_visible()
    replayed = "SELECT count(*) FROM dead_letters WHERE outcome = 'replayed'"
    await asyncio.to_thread(until, lambda: network.engine.value(replayed) == 1, "the letter is replayed")
