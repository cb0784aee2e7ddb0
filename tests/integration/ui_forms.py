"""Fill in the forms of /ui as a browser does: what stands in the page is sent, changed by what a test writes."""

from __future__ import annotations

import httpx

from tests.integration.ui_client import ORIGIN, Browser
from tests.unit.form_pages import Browser as Seen


def see(answer: httpx.Response) -> Seen:
    """Return what a browser sees of a page."""
    return Seen(answer.text)


async def fill(
    browser: Browser, answer: httpx.Response, path: str, button: str | None = None, **written: str | list[str]
) -> httpx.Response:
    """Post the form of a page after writing into its fields.

    Args:
        button: name and value of the button that is pressed, as ``_add=f.names``.
        written: texts by the names of fields.
    """
    sent = dict(see(answer).sent)
    for name, value in written.items():
        sent[f"f.{name}"] = [value] if isinstance(value, str) else value
    if button is not None:
        name, _, value = button.partition("=")
        sent[name] = [value]
    return await browser.http.post(path, data=sent, headers={"origin": ORIGIN})
