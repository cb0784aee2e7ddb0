"""The frame of /ui: who is signed in, which requests may change something, and what an error looks like."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from orchestrator.api.ui.assets import MEDIA_TYPES
from orchestrator.api.ui.page import POLICY
from orchestrator.authorization import Role
from orchestrator.db.session import Database
from tests.integration.ui_client import ORIGIN, Browser, make_key, open_ui, text_of

KEYS: dict[str, Any] = {"auth": "api-keys"}


@pytest.fixture
async def browser(database: Database) -> AsyncIterator[Browser]:
    async with open_ui(database, **KEYS) as found:
        yield found


async def test_without_authentication_the_pages_need_no_sign_in(database: Database) -> None:
    async with open_ui(database) as browser:
        page = await browser.get("/ui")
    assert page.status_code == 200
    assert page.headers["content-security-policy"] == POLICY
    assert "Sign out" not in text_of(page)


async def test_who_is_not_signed_in_is_led_to_the_sign_in_and_back(browser: Browser, database: Database) -> None:
    page = await browser.get("/ui/processes?status=failed")
    assert (page.status_code, page.headers["location"]) == (
        302,
        "/ui/login?return_to=%2Fui%2Fprocesses%3Fstatus%3Dfailed",
    )
    answer = await browser.sign_in(await make_key(database), "/ui/processes?status=failed")
    assert (answer.status_code, answer.headers["location"]) == (303, "/ui/processes?status=failed")
    assert (await browser.get("/ui")).status_code == 200


async def test_a_part_of_a_page_never_becomes_the_sign_in(browser: Browser) -> None:
    current: dict[str, Any] = {"hx-current-url": "https://ui.example/ui/processes?status=failed"}
    login = "/ui/login?return_to=%2Fui%2Fprocesses%3Fstatus%3Dfailed"
    asked = {"origin": ORIGIN, "hx-request": "true", **current}
    part = await browser.fragment("/ui", **current)
    change = await browser.http.post("/ui/logout", data={"csrf": "x"}, headers=asked)
    for answer in (part, change):
        assert (answer.status_code, answer.headers["hx-redirect"], answer.text) == (401, login, "")
    stream = await browser.get("/ui", accept="text/event-stream")
    assert (stream.status_code, stream.text) == (401, "")


async def test_the_cookie_is_of_this_host_alone_and_another_one_after_signing_in(
    browser: Browser, database: Database
) -> None:
    before = (await browser.get("/ui/login")).headers["set-cookie"]
    after = (await browser.sign_in(await make_key(database))).headers["set-cookie"]
    for cookie in (before, after):
        name, *attributes = cookie.split("; ")
        assert name.startswith("__Host-orchestrator=")
        assert sorted(attributes) == ["HttpOnly", "Path=/", "SameSite=lax", "Secure"]
    assert before.split("; ")[0] != after.split("; ")[0]


async def test_a_wrong_key_signs_nobody_in_and_stands_nowhere(browser: Browser) -> None:
    answer = await browser.sign_in("orch_0123456789ab_" + 64 * "0")
    assert answer.status_code == 403
    assert "unknown, revoked or has expired" in text_of(answer)
    assert "0123456789ab" not in answer.text
    assert (await browser.get("/ui")).status_code == 302


async def test_a_session_ends_at_sign_out_and_with_its_key(browser: Browser, database: Database) -> None:
    await browser.sign_in(await make_key(database))
    stolen = dict(browser.http.cookies)
    assert (await browser.post("/ui/logout")).headers["location"] == "/ui/login"
    browser.http.cookies.update(stolen)
    assert (await browser.get("/ui")).status_code == 302
    await browser.sign_in(await make_key(database))
    await database.pool.execute("UPDATE api_keys SET revoked_at = now(), revoked_by = 'ben'")
    assert (await browser.get("/ui")).status_code == 302


async def test_a_session_ends_after_its_time(database: Database) -> None:
    async with open_ui(database, **KEYS, ui_session=3600) as browser:
        await browser.sign_in(await make_key(database))
        await database.pool.execute("UPDATE browser_sessions SET expires_at = expires_at - interval '59 minutes'")
        assert (await browser.get("/ui")).status_code == 200
        await database.pool.execute("UPDATE browser_sessions SET expires_at = expires_at - interval '1 minute'")
        assert (await browser.get("/ui")).status_code == 302


async def test_only_a_form_of_the_own_session_changes_something(browser: Browser, database: Database) -> None:
    key = await make_key(database)
    await browser.sign_in(key)
    token = await browser.token()
    for origin in ("https://evil.example", "null"):
        assert (await browser.post("/ui/logout", csrf=token, origin=origin)).status_code == 403
    assert (await browser.post("/ui/logout", csrf="")).status_code == 403
    assert (await browser.post("/ui/logout", csrf="é")).status_code == 403
    await browser.sign_in(key)
    # The token of before is of another session now.
    assert (await browser.post("/ui/logout", csrf=token)).status_code == 403
    assert await browser.token() == await browser.token("/ui/nothing")
    assert (await browser.post("/ui/logout")).status_code == 303


async def test_a_sign_in_is_not_forged_by_another_site(browser: Browser, database: Database) -> None:
    form = {"key": await make_key(database)}
    for headers in ({"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}, {}):
        assert (await browser.http.post("/ui/login", data=form, headers=headers)).status_code == 403


async def test_every_error_below_ui_is_a_page(browser: Browser, database: Database) -> None:
    await browser.sign_in(await make_key(database, Role.READ))
    for path in ("/ui/nothing", "/ui/assets/nothing.js"):
        page = await browser.get(path)
        assert page.status_code == 404
        assert page.headers["content-type"].startswith("text/html")
        assert page.headers["content-security-policy"] == POLICY
        assert "there is no such" in text_of(page)
    part = await browser.fragment("/ui/nothing")
    assert (part.status_code, "<html" in part.text) == (404, False)


async def test_over_plain_http_from_elsewhere_nobody_signs_in(browser: Browser, database: Database) -> None:
    key = await make_key(database)
    page = await browser.http.get("http://ui.example/ui/login")
    assert "needs https" in text_of(page)
    form = {"key": key}
    answer = await browser.http.post("http://ui.example/ui/login", data=form, headers={"origin": "http://ui.example"})
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers or "__Host-" not in answer.headers["set-cookie"]


async def test_behind_a_proxy_with_a_prefix_all_links_have_it(database: Database) -> None:
    async with open_ui(database, public_url="https://ui.example/orch", **KEYS) as browser:
        page = await browser.get("/ui")
        assert page.headers["location"] == "/orch/ui/login?return_to=%2Fui"
        answer = await browser.sign_in(await make_key(database), "/ui/x")
        assert answer.headers["location"] == "/orch/ui/x"
        text = (await browser.get("/orch/ui")).text
    assert 'href="/orch/ui/processes"' in text
    assert 'href="/ui' not in text


async def test_the_files_are_small_and_kept_by_browsers(browser: Browser) -> None:
    answers = [await browser.get(f"/ui/assets/{name}") for name in MEDIA_TYPES]
    assert all(one.headers["cache-control"] == "public, max-age=31536000, immutable" for one in answers)
    assert sum(len(one.content) for one in answers) <= 80 * 1024
