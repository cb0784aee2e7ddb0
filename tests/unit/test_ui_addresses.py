"""Addresses of the pages: which ones are shown after signing in, and how links are written."""

from __future__ import annotations

import pytest

from orchestrator.api.ui.addresses import make_link, safe_return

OWN = ("/ui", "/ui/", "/ui/processes", "/ui/processes?status=failed&q=ams%2A", "/ui/processes/1f0e-2#step-3")
FOREIGN = (
    *("//e", "/\\e", "/%5Ce", "/%09/e", "https:e", "https://e/ui", "/ok%0d%0aX: y", "/ui\r\nX: y", "/ui/%0d%0aX"),
    *("/ui?a=%0d%0aX:y", "/ui/%250d", "/ui/../x", "/ui/%2e%2e/x", "/ui/%252e%252e/x", "/ui//e", "/ui/%5Ce", "/uix"),
    *("/ui/login", "/ui/logout", "/ui/oidc/start", "/ui/" + 3000 * "x", "", "ui", "/ui/é", "/ui/a b"),
)


@pytest.mark.parametrize("address", OWN)
def test_a_page_of_ours_is_shown_after_signing_in(address: str) -> None:
    assert safe_return(address) == address


@pytest.mark.parametrize("address", FOREIGN)
def test_instead_of_anything_else_the_first_page_is(address: str) -> None:
    assert safe_return(address) == "/ui"


def test_links_leave_out_what_is_not_said() -> None:
    query = {"status": ["failed", "waiting"], "q": "a&b", "first": None, "step": ""}
    assert make_link("/orch", "/processes", query) == "/orch/ui/processes?status=failed&status=waiting&q=a%26b"
