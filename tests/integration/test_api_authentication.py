"""Who sends a request, and what they may do: credentials of every kind, good and bad, each with one documented answer."""

from __future__ import annotations

import base64
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.requests import HTTPConnection

from orchestrator.api.authentication import MAX_CREDENTIAL, Authenticator, Caller
from orchestrator.authorization import Role, User
from orchestrator.db.session import Database
from orchestrator.errors import UnauthenticatedError
from orchestrator.services.api_keys import MadeKey, create_key, revoke_key
from orchestrator.workflow import StepList, begin, done, workflow
from tests.integration import api_flows
from tests.integration.api_client import open_api, settings_of
from tests.integration.api_flows import greeting
from tests.oidc_issuer import AUDIENCE, ISSUER, OTHER_RSA_KEY, Issuer, claims_of, sign

START = "/api/processes/greeting"
PAGES = [{"name": "ana"}, {"tone": "kind"}]
OIDC: dict[str, Any] = {"oidc_issuer": ISSUER, "oidc_audience": AUDIENCE}
BOTH: dict[str, Any] = {"auth": "api-keys,oidc", **OIDC}


@workflow("Is for the NOC", authorize_callback=lambda claims: "noc" in claims.get("groups", ()))
def for_the_noc() -> StepList:
    return begin >> api_flows.greet >> done


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
async def flows(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    await api_flows.register(database, monkeypatch, [greeting, for_the_noc], __name__)


@pytest.fixture
async def api(database: Database, flows: None, issuer: Issuer) -> AsyncIterator[httpx.AsyncClient]:
    async with open_api(database, issuer=issuer.transport, **BOTH) as client:
        yield client


async def make_key(database: Database, role: Role = Role.START, name: str = "crm", days: int | None = None) -> MadeKey:
    async with database.transaction() as session:
        return await create_key(session, name, role, "tests", days)


def bearer(credential: str) -> dict[str, str]:
    return {"authorization": f"Bearer {credential}"}


def refused(answer: httpx.Response, status: int, challenge: str) -> dict[str, Any]:
    """Return the problem document of a refusal."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"] == challenge
    document: dict[str, Any] = answer.json()
    return document


INVALID = 'Bearer error="invalid_token"'

CREDENTIALS: dict[str, tuple[list[tuple[str, str]], int, str]] = {
    "none": ([], 401, "Bearer"),
    "another scheme": ([("authorization", "Basic YTpi")], 401, "Bearer"),
    "no scheme": ([("authorization", sign())], 401, "Bearer"),
    "empty": ([("authorization", "")], 401, "Bearer"),
    "a key under another name": ([("x-api-key", "orch_0123456789ab_" + "5" * 64)], 401, "Bearer"),
    "a token in the address": ([("cookie", f"token={sign()}")], 401, "Bearer"),
    "the scheme alone": ([("authorization", "Bearer")], 401, INVALID),
    "the scheme and blanks": ([("authorization", "Bearer   ")], 401, INVALID),
    "an unknown key": ([("authorization", "Bearer orch_0123456789ab_" + "5" * 64)], 401, INVALID),
    "half a key": ([("authorization", "Bearer orch_")], 401, INVALID),
    "no token": ([("authorization", "Bearer abc")], 401, INVALID),
    "two words": ([("authorization", "Bearer abc def")], 401, INVALID),
    "not ASCII": ([("authorization", "Bearer ä.ö.ü")], 401, INVALID),
    "expired": ([("authorization", f"Bearer {sign(claims_of(exp=time.time() - 60))}")], 401, INVALID),
    "forged": ([("authorization", f"Bearer {sign(key=OTHER_RSA_KEY)}")], 401, INVALID),
    "64 KiB": ([("authorization", f"Bearer {'a' * 65_536}")], 401, INVALID),
    "64 KiB of a token": ([("authorization", f"Bearer {sign(claims_of(more='x' * 49_152))}")], 401, INVALID),
    "two headers": ([("authorization", f"Bearer {sign()}")] * 2, 400, 'Bearer error="invalid_request"'),
    "a key and a token": (
        [("authorization", f"Bearer {sign()}"), ("authorization", "Bearer orch_0123456789ab_" + "5" * 64)],
        400,
        'Bearer error="invalid_request"',
    ),
}


async def test_credentials_that_open_nothing_have_one_answer_each(api: httpx.AsyncClient, database: Database) -> None:
    for case, (headers, status, challenge) in CREDENTIALS.items():
        raw = [(name, value.encode("latin-1")) for name, value in headers]
        answer = await api.post(f"{START}?access_token={sign()}", json=PAGES, headers=raw)  # type: ignore[arg-type]
        assert (case, answer.status_code) == (case, status)
        refused(answer, status, challenge)
        for _, value in headers:
            credential = value.rpartition(" ")[2]
            assert len(credential) < 8 or credential not in answer.text
    assert await database.pool.fetchval("SELECT count(*) FROM processes") == 0


async def test_a_token_opens_what_its_roles_say(api: httpx.AsyncClient, database: Database) -> None:
    """B38: the token's user stands in every entry of the log."""
    for scheme in ("Bearer", "bearer", "BEARER"):
        answer = await api.post(START, json=PAGES, headers={"authorization": f"{scheme} {sign()}"})
        assert answer.status_code == 201, answer.text
    assert await database.pool.fetchval("SELECT DISTINCT started_by FROM processes") == "ann"
    path = f"/api/processes/{answer.json()['id']}/abort"
    assert (await api.put(path, headers=bearer(sign(claims_of(sub="ben"))))).status_code == 204
    authors = await database.pool.fetch("SELECT author FROM process_steps ORDER BY sequence DESC LIMIT 1")
    assert [row["author"] for row in authors] == ["ben"]


async def test_a_key_opens_what_its_role_says_until_it_is_revoked(api: httpx.AsyncClient, database: Database) -> None:
    key = await make_key(database)
    assert (await api.post(START, json=PAGES, headers=bearer(key.secret))).status_code == 201
    assert await database.pool.fetchval("SELECT started_by FROM processes") == "crm"
    async with database.transaction() as session:
        await revoke_key(session, key.key_id, "tests")
    refused(await api.post(START, json=PAGES, headers=bearer(key.secret)), 401, INVALID)


async def test_unknown_revoked_and_expired_keys_have_the_same_answer(
    api: httpx.AsyncClient, database: Database
) -> None:
    revoked, expired = await make_key(database), await make_key(database)
    await database.pool.execute("UPDATE api_keys SET revoked_at = now() WHERE key_id = $1", revoked.key_id)
    await database.pool.execute("UPDATE api_keys SET expires_at = now() WHERE key_id = $1", expired.key_id)
    unknown = f"{revoked.secret[:-6]}012345"
    answers = [await api.post(START, json=[], headers=bearer(one)) for one in (revoked.secret, expired.secret, unknown)]
    assert len({(one.status_code, one.text, one.headers["www-authenticate"]) for one in answers}) == 1


async def test_a_path_needs_its_role_and_each_role_includes_those_before_it(
    api: httpx.AsyncClient, database: Database
) -> None:
    order = list(Role)
    unknown = "00000000-0000-4000-8000-000000000000"
    for role in Role:
        key = await make_key(database, role)
        for method, path, needed, status in (
            ("POST", START, Role.START, 510),
            ("PUT", f"/api/processes/{unknown}/resume", Role.START, 404),
            ("PUT", f"/api/processes/{unknown}/abort", Role.OPERATE, 404),
        ):
            body: Any = [] if method == "POST" else {}
            answer = await api.request(method, path, json=body, headers=bearer(key.secret))
            if order.index(role) >= order.index(needed):
                assert answer.status_code == status, answer.text
            else:
                document = refused(answer, 403, f'Bearer error="insufficient_scope", scope="{needed.value}"')
                assert document["detail"] == f"'crm' may not do this: it needs the role {needed.value}"


async def test_a_token_without_roles_opens_nothing(api: httpx.AsyncClient) -> None:
    answer = await api.post(START, json=[], headers=bearer(sign(claims_of(roles=None))))
    refused(answer, 403, 'Bearer error="insufficient_scope", scope="start"')


async def test_a_page_in_a_browser_is_told_why_instead_of_losing_its_session(api: httpx.AsyncClient) -> None:
    """The field's user interface signs its user out on 401 and 403."""
    headers = {**bearer(sign(claims_of(roles=["read"]))), "origin": "https://ui.example"}
    answer = await api.post(START, json=[], headers=headers)
    assert answer.status_code == 400
    assert answer.json()["validation_errors"][0]["loc"] == ["__root__"]
    headers = {**bearer("abc"), "origin": "https://ui.example"}
    assert (await api.post(START, json=[], headers=headers)).status_code == 401


async def test_authorization_callbacks_see_the_claims(api: httpx.AsyncClient, database: Database) -> None:
    key = await make_key(database, Role.ADMIN)
    allowed = sign(claims_of(groups=["noc"]))
    for credential, status in ((allowed, 201), (sign(claims_of(groups=["sales"])), 403), (key.secret, 403)):
        answer = await api.post("/api/processes/for_the_noc", json=[{}], headers=bearer(credential))
        assert answer.status_code in {status, 510 if status == 201 else status}, answer.text
    assert (await api.post("/api/processes/for_the_noc", json=[], headers=bearer(allowed))).status_code == 201


async def test_no_request_can_say_who_its_user_is(api: httpx.AsyncClient, database: Database) -> None:
    headers = {**bearer(sign()), "x-user": "root", "x-forwarded-user": "root", "from": "root", "user": "root"}
    assert (await api.post(f"{START}?user=root", json=PAGES, headers=headers)).status_code == 422
    assert (await api.post(START, json=PAGES, headers=headers)).status_code == 201
    assert await database.pool.fetchval("SELECT DISTINCT author FROM process_steps") == "ann"
    pages = [{"name": "ana", "user": "root"}, {"tone": "kind"}]
    answer = await api.post(START, json=pages, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["validation_errors"][0]["loc"] == ["user"]


async def test_an_issuer_that_is_away_is_an_outage_and_not_a_wrong_token(
    api: httpx.AsyncClient, database: Database, issuer: Issuer
) -> None:
    """With 401 every user of a user interface would be signed out."""
    issuer.is_away = True
    answer = await api.post(START, json=[], headers=bearer(sign()))
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    assert ISSUER in answer.json()["detail"]
    key = await make_key(database)
    assert (await api.post(START, json=[], headers=bearer(key.secret))).status_code == 510


@pytest.mark.parametrize(
    ("auth", "key_status", "token_status"),
    [("api-keys", 510, 401), ("oidc", 401, 510), ("none", 510, 510), ("", 510, 510)],
)
async def test_only_the_ways_that_the_setting_names_are_open(
    database: Database, flows: None, issuer: Issuer, auth: str, key_status: int, token_status: int
) -> None:
    key = await make_key(database)
    settings = OIDC if auth == "oidc" else {}
    async with open_api(database, issuer=issuer.transport, auth=auth, **settings) as api:
        assert (await api.post(START, json=[], headers=bearer(key.secret))).status_code == key_status
        assert (await api.post(START, json=[], headers=bearer(sign()))).status_code == token_status
        assert (await api.get("/api/health/live")).status_code == 200


async def test_neither_key_nor_token_is_in_the_log(
    api: httpx.AsyncClient, database: Database, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    key, token = await make_key(database), sign()
    wrong = [f"{key.secret[:-60]}{'c' * 60}", sign(key=OTHER_RSA_KEY), "CANARY-CANARY"]
    for credential in (key.secret, token, *wrong):
        await api.post(START, json=[], headers=bearer(credential))
    written = "".join((*capfd.readouterr(), caplog.text))
    for credential in (key.secret, token, *wrong):
        assert credential[-12:] not in written


async def test_a_stream_can_ask_whether_its_caller_still_may(database: Database, issuer: Issuer) -> None:
    authenticator = Authenticator(settings_of(database, **BOTH), database, issuer.transport)
    key = await make_key(database, days=1)
    for credential in (key.secret, sign()):
        caller = await authenticator.find_caller(websocket(("authorization", f"Bearer {credential}")).headers)
        assert caller.expires_at is not None
        assert await authenticator.is_current(caller)
        assert not await authenticator.is_current(Caller(caller.user, time.time() - 1, caller.key_id))
    async with database.transaction() as session:
        await revoke_key(session, key.key_id, "tests")
    assert not await authenticator.is_current(Caller(User("crm"), None, key.key_id))


def websocket(*headers: tuple[str, str]) -> HTTPConnection:
    """Return what a server makes of the opening of a WebSocket."""
    sent = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    return HTTPConnection({"type": "websocket", "headers": sent})


def encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


PROTOCOL = "base64.bearer.token"


async def test_a_browser_sends_its_token_as_a_subprotocol(database: Database, issuer: Issuer) -> None:
    """The answer names the protocol, and never the token. It may be in base64."""
    authenticator = Authenticator(settings_of(database, **BOTH), database, issuer.transport)
    for credential, name in (((await make_key(database)).secret, "crm"), (sign(), "ann")):
        for sent in (credential, encoded(credential), encoded(credential).rstrip("=")):
            connection = websocket(("sec-websocket-protocol", f"{PROTOCOL}, {sent}"))
            caller, protocol = await authenticator.find_websocket_caller(connection)
            assert (caller.name, protocol) == (name, PROTOCOL)


async def test_a_websocket_without_one_good_token_is_refused(database: Database, issuer: Issuer) -> None:
    authenticator = Authenticator(settings_of(database, **BOTH), database, issuer.transport)
    for sent in (
        None,
        PROTOCOL,
        f"{PROTOCOL}, ",
        f"{PROTOCOL}, abc",
        f"{PROTOCOL}, ====",
        f"{PROTOCOL}, {encoded(chr(233) * 9)}",
        f"{PROTOCOL}, {'a' * (MAX_CREDENTIAL * 2)}",
        sign(),
        f"{PROTOCOL}, {sign()}, {sign()}",
        f"graphql-ws, {sign()}",
    ):
        with pytest.raises(UnauthenticatedError):
            await authenticator.find_websocket_caller(
                websocket(*([("sec-websocket-protocol", sent)] if sent is not None else []))
            )
    both = websocket(("sec-websocket-protocol", f"{PROTOCOL}, {sign()}"), ("authorization", f"Bearer {sign()}"))
    with pytest.raises(UnauthenticatedError, match="several"):
        await authenticator.find_websocket_caller(both)


async def test_a_program_may_open_a_websocket_with_the_header(database: Database, issuer: Issuer) -> None:
    authenticator = Authenticator(settings_of(database, **BOTH), database, issuer.transport)
    connection = websocket(("authorization", f"Bearer {sign()}"))
    caller, protocol = await authenticator.find_websocket_caller(connection)
    assert (caller.name, protocol) == ("ann", None)


async def test_without_authentication_no_foreign_page_opens_a_websocket(database: Database) -> None:
    """CORS does not apply to it, so that any page could listen at an API which authenticates nobody."""
    settings = settings_of(database, cors_origins="https://ui.example", public_url="https://orch.example/orch")
    authenticator = Authenticator(settings, database)
    own = ("host", "127.0.0.1:8000")
    assert (await authenticator.find_websocket_caller(websocket(own)))[0].name == "anonymous"
    for origin in ("http://127.0.0.1:8000", "https://ui.example", "https://orch.example"):
        caller, _ = await authenticator.find_websocket_caller(websocket(own, ("origin", origin)))
        assert caller.name == "anonymous"
    for origin in ("https://evil.example", "http://[", "null", "", "http://127.0.0.1:8000.evil.example"):
        with pytest.raises(UnauthenticatedError, match="ORCHESTRATOR_CORS_ORIGINS"):
            await authenticator.find_websocket_caller(websocket(own, ("origin", origin)))
