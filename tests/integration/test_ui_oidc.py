"""Sign in to /ui through an OIDC issuer: only who has begun it in this browser, with an answer that is of this sign-in."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest

from orchestrator.db.session import Database
from tests.integration.ui_client import Browser, open_ui, text_of
from tests.oidc_issuer import AUDIENCE, ISSUER, OTHER_RSA_KEY, Issuer, claims_of, sign

CLIENT = "orchestrator-ui"
OIDC: dict[str, Any] = {
    "auth": "oidc",
    "oidc_issuer": ISSUER,
    "oidc_audience": AUDIENCE,
    "oidc_client_id": CLIENT,
    "oidc_client_secret": "s3cret",
}


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
async def browser(database: Database, issuer: Issuer) -> AsyncIterator[Browser]:
    async with open_ui(database, issuer.transport, **OIDC) as found:
        yield found


async def begin(browser: Browser, return_to: str = "/ui/processes") -> dict[str, str]:
    """Begin a sign-in; return what the issuer is sent."""
    answer = await browser.get(f"/ui/oidc/start?return_to={return_to}")
    assert answer.status_code == 302, answer.text
    address = urlsplit(answer.headers["location"])
    assert f"{address.scheme}://{address.netloc}{address.path}" == f"{ISSUER}/authorize"
    return dict(parse_qsl(address.query))


def answer_with(issuer: Issuer, sent: dict[str, str], code: str = "c0de", **changes: Any) -> None:
    """Make the issuer answer a code with good tokens for a sign-in, but for these changes."""
    key = changes.pop("key", None)
    claims = claims_of(aud=CLIENT, nonce=sent["nonce"], **changes)
    id_token = sign(claims) if key is None else sign(claims, key)
    issuer.codes[code] = {"access_token": sign(claims_of()), "id_token": id_token, "token_type": "Bearer"}


async def finish(browser: Browser, sent: dict[str, str], code: str = "c0de", **more: str) -> httpx.Response:
    """Come back from the issuer."""
    return await browser.http.get("/ui/oidc/callback", params={"code": code, "state": sent["state"], **more})


async def test_who_signs_in_at_the_issuer_is_signed_in_here(
    browser: Browser, issuer: Issuer, capfd: pytest.CaptureFixture[str]
) -> None:
    sent = await begin(browser)
    assert (sent["response_type"], sent["scope"], sent["code_challenge_method"]) == ("code", "openid", "S256")
    assert sent["redirect_uri"] == "https://ui.example/ui/oidc/callback"
    answer_with(issuer, sent)
    answer = await finish(browser, sent, iss=ISSUER)
    assert (answer.status_code, answer.headers["location"]) == (303, "/ui/processes")
    cookie = next(one for one in answer.headers.get_list("set-cookie") if one.startswith("__Host-orchestrator="))
    assert sorted(cookie.split("; ")[1:]) == ["HttpOnly", "Path=/", "SameSite=lax", "Secure"]
    assert "ann" in text_of(await browser.get("/ui"))
    (form,) = issuer.redeemed
    challenge = base64.urlsafe_b64encode(sha256(form["code_verifier"].encode()).digest()).decode().rstrip("=")
    assert challenge == sent["code_challenge"]
    assert (form["client_id"], form["client_secret"], form["code"]) == (CLIENT, "s3cret", "c0de")
    logged = "".join(capfd.readouterr())
    assert not [one for one in ("c0de", sent["state"], sent["nonce"], form["code_verifier"]) if one in logged]
    # The answer is taken once, whatever the issuer would say.
    answer_with(issuer, sent)
    await browser.post("/ui/logout")
    assert "Start again" in text_of(await finish(browser, sent))
    assert (await browser.get("/ui")).status_code == 302


WRONG: list[dict[str, Any]] = [
    {"nonce": "another"},
    {"iss": "https://other.example"},
    {"aud": "another-application"},
    {"azp": "another-application"},
    {"sub": "ben"},
    {"exp": 1_000_000},
    {"key": OTHER_RSA_KEY},
]


async def test_an_answer_that_is_not_of_this_sign_in_signs_nobody_in(browser: Browser, issuer: Issuer) -> None:
    for changes in WRONG:
        sent = await begin(browser)
        good = {"aud": CLIENT, "nonce": sent["nonce"]}
        key = changes.get("key")
        claims = claims_of(**{**good, **{name: value for name, value in changes.items() if name != "key"}})
        token = sign(claims) if key is None else sign(claims, key)
        issuer.codes["c0de"] = {"access_token": sign(claims_of()), "id_token": token}
        answer = await finish(browser, sent)
        assert (answer.status_code, "Start again" in text_of(answer)) == (403, True), changes
        assert (await browser.get("/ui")).status_code == 302
    sent = await begin(browser)
    answer_with(issuer, sent)
    assert (await finish(browser, sent, iss="https://other.example")).status_code == 403
    sent = await begin(browser)
    answer_with(issuer, sent)
    issuer.codes["c0de"]["access_token"] = sign(claims_of(aud="another-api"))
    assert "does not open this API" in text_of(await finish(browser, sent))
    sent = await begin(browser)
    assert (await browser.get(f"/ui/oidc/callback?state={sent['state']}&error=access_denied")).status_code == 403
    assert (await browser.get("/ui")).status_code == 302


async def test_an_answer_for_another_browser_signs_nobody_in(
    browser: Browser, issuer: Issuer, database: Database
) -> None:
    sent = await begin(browser)
    answer_with(issuer, sent)
    async with open_ui(database, issuer.transport, **OIDC) as other:
        answer = await finish(other, sent)
        assert (answer.status_code, "this browser has not begun it" in text_of(answer)) == (403, True)
        assert (await other.get("/ui")).status_code == 302
    assert issuer.redeemed == []


async def test_two_tabs_both_end_signed_in(browser: Browser, issuer: Issuer) -> None:
    first, second = await begin(browser, "/ui/processes"), await begin(browser, "/ui/start")
    answer_with(issuer, second, "2")
    answer_with(issuer, first, "1")
    assert (await finish(browser, second, "2")).headers["location"] == "/ui/start"
    assert (await finish(browser, first, "1")).headers["location"] == "/ui/processes"
    assert (await browser.get("/ui")).status_code == 200


async def test_a_sign_in_that_took_too_long_or_lacks_its_verifier_begins_again(
    browser: Browser, issuer: Issuer
) -> None:
    for change in ({"began_at": -660.0}, {"verifier": None}):
        sent = await begin(browser)
        answer_with(issuer, sent)
        (name,) = [one for one in browser.http.cookies if one.startswith("__Host-orchestrator-login-")]
        written = browser.http.cookies[name]
        kept = json.loads(base64.urlsafe_b64decode(written + "=" * (-len(written) % 4)))
        if "began_at" in change:
            kept["began_at"] += change["began_at"]
        else:
            del kept["verifier"]
        browser.http.cookies.delete(name)
        browser.http.cookies.set(
            name, base64.urlsafe_b64encode(json.dumps(kept).encode()).decode().rstrip("="), "ui.example"
        )
        answer = await finish(browser, sent)
        assert (answer.status_code, "Start again" in text_of(answer)) == (403, True)
        browser.http.cookies.clear()
    assert issuer.redeemed == []


async def test_a_session_ends_with_its_token(browser: Browser, issuer: Issuer, database: Database) -> None:
    sent = await begin(browser)
    answer_with(issuer, sent)
    await finish(browser, sent)
    lives = await database.pool.fetchval("SELECT extract(epoch FROM expires_at - now())::int FROM browser_sessions")
    assert 3500 < lives <= 3630


async def test_an_issuer_that_is_away_is_a_page_and_not_a_session(browser: Browser, issuer: Issuer) -> None:
    issuer.about = {}
    answer = await browser.get("/ui/oidc/start")
    assert (answer.status_code, answer.headers["content-type"]) == (503, "text/html; charset=utf-8")
    assert "does not answer as it must" in text_of(answer)
