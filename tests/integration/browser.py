"""A real browser for the tests of /ui: Debian's Chromium, driven by Playwright, and accessibility judged by axe.

``open_browser`` starts one for a module; ``watched_page`` opens a page whose every console error, violation of the policy, and
failed script is a failure of the test.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, async_playwright, expect

ARTEFACTS = Path(__file__).parents[2] / ".artefacts" / "screenshots"
"""Where pictures are kept; git ignores it."""

PATIENCE = 60_000
"""Milliseconds that a browser may take for anything: the machine may be busy."""

expect.set_options(timeout=PATIENCE)


def find_chromium() -> str:
    """Return the program of the browser."""
    found = shutil.which("chromium")
    assert found, "there is no Chromium: 'apt-get install chromium', or 'scripts/services for-tests' as root"
    return found


@asynccontextmanager
async def open_browser() -> AsyncIterator[Browser]:
    """Run the browser until the block ends."""
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=find_chromium(), args=arguments, timeout=PATIENCE)
        try:
            yield browser
        finally:
            await browser.close()


class Complaints(list[str]):
    """What the browser has complained of."""

    def watch(self, page: Page) -> None:
        """Collect what the browser says about a page."""

        def on_console(message: ConsoleMessage) -> None:
            if message.type in {"error", "warning"}:
                self.append(f"{message.type}: {message.text}")

        page.on("console", on_console)
        page.on("pageerror", lambda error: self.append(f"script: {error}"))


@asynccontextmanager
async def new_context(browser: Browser, *, dark: bool = False) -> AsyncIterator[BrowserContext]:
    """Open a browser's profile without cookies."""
    context = await browser.new_context(color_scheme="dark" if dark else "light", locale="en-GB", timezone_id="UTC")
    context.set_default_timeout(PATIENCE)
    try:
        yield context
    finally:
        await context.close()


@asynccontextmanager
async def watched_page(context: BrowserContext, *, expected: Sequence[str] = ()) -> AsyncIterator[Page]:
    """Open a tab; at the end, the browser must not have complained of anything.

    Args:
        expected: parts of complaints that the test causes on purpose.
    """
    complaints = Complaints()
    page = await context.new_page()
    complaints.watch(page)
    yield page
    unexpected = [one for one in complaints if not any(part in one for part in expected)]
    assert not unexpected, unexpected
    await page.close()


async def check_accessibility(page: Page) -> None:
    """Check a page by the rules of WCAG 2.2, levels A and AA."""
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
    found = await Axe().run(page, options={"runOnly": {"type": "tag", "values": tags}})
    assert not found.violations_count, found.generate_report()


async def keep_picture(page: Page, name: str) -> None:
    """Keep a picture of a page, for people."""
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    await page.screenshot(path=ARTEFACTS / f"{name}.png", full_page=True)
