"""An issuer's keys: its outages and its pace are not those of requests, and a new key counts at once."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from orchestrator.api import signing_keys
from orchestrator.api.signing_keys import SigningKeys, is_safe_url, read_keys
from orchestrator.errors import ServerUnavailableError
from tests.oidc_issuer import EC_KEY, ED_KEY, ISSUER, OTHER_RSA_KEY, RSA_KEY, Issuer, jwk_of


class Clock:
    """A clock that moves when it is told to."""

    now = 10_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(issuer: Issuer, clock: Clock) -> SigningKeys:
    return SigningKeys(ISSUER, issuer.transport, clock)


async def fetched(keys: SigningKeys) -> None:
    """Wait for a fetch that runs in the background."""
    if keys._fetching is not None:
        await keys._fetching


async def test_a_key_is_fetched_once_for_all_requests_that_wait_for_it(issuer: Issuer, keys: SigningKeys) -> None:
    found = await asyncio.gather(*(keys.find("rsa") for _ in range(50)))
    assert all(one[0].key == RSA_KEY.public_key() for one in found)
    assert issuer.fetches == 1


async def test_a_thousand_unknown_keys_cause_one_more_fetch_in_30_seconds(
    issuer: Issuer, keys: SigningKeys, clock: Clock
) -> None:
    await keys.find("rsa")
    for round_ in range(3):
        for one in await asyncio.gather(*(keys.find(str(uuid4())) for _ in range(1000))):
            assert one == ()
        assert issuer.fetches == 2 + round_
        clock.now += signing_keys.COOLDOWN + 0.1


async def test_a_key_that_the_issuer_did_not_have_is_not_searched_for_again_for_a_minute(
    issuer: Issuer, keys: SigningKeys, clock: Clock
) -> None:
    await keys.find("gone")
    assert issuer.fetches == 2  # the first one, and one in search of it
    clock.now += signing_keys.COOLDOWN + 1
    await keys.find("gone")
    assert issuer.fetches == 2
    clock.now += signing_keys.UNKNOWN_FOR
    await keys.find("gone")
    assert issuer.fetches == 3


async def test_a_key_that_is_rotated_right_after_a_fetch_counts_at_once(issuer: Issuer, keys: SigningKeys) -> None:
    await keys.find("rsa")
    issuer.keys = {"keys": [jwk_of(OTHER_RSA_KEY, kid="new")]}
    found = await asyncio.gather(*(keys.find("new") for _ in range(20)))
    assert all(one[0].key == OTHER_RSA_KEY.public_key() for one in found)
    assert issuer.fetches == 2
    assert await keys.find("rsa") == ()


async def test_known_keys_count_for_an_hour_while_the_issuer_is_away_and_unknown_ones_are_refused(
    issuer: Issuer, keys: SigningKeys, clock: Clock
) -> None:
    await keys.find("rsa")
    issuer.is_away = True
    for _ in range(60):
        clock.now += 59
        assert await keys.find("rsa")
        assert await keys.find("unknown") == ()
        await fetched(keys)
    clock.now += 120
    with pytest.raises(ServerUnavailableError, match=r"the OIDC issuer .* cannot be reached"):
        await keys.find("rsa")
    issuer.is_away = False
    clock.now += signing_keys.RETRY_AFTER + 1
    assert await keys.find("rsa")


async def test_an_issuer_that_is_away_is_asked_again_after_seconds_and_not_for_each_request(
    issuer: Issuer, keys: SigningKeys, clock: Clock
) -> None:
    issuer.is_away = True
    for _ in range(10):
        with pytest.raises(ServerUnavailableError):
            await keys.find("rsa")
    assert len(issuer.asked) == 1
    issuer.is_away = False
    clock.now += signing_keys.RETRY_AFTER + 0.1
    assert await keys.find("rsa")


async def test_a_removed_key_is_refused_once_the_keys_were_fetched_again(
    issuer: Issuer, keys: SigningKeys, clock: Clock
) -> None:
    await keys.find("rsa")
    issuer.keys = {"keys": [jwk_of(EC_KEY, kid="ec")]}
    clock.now += signing_keys.FRESH_FOR + 1
    assert await keys.find("rsa"), "this request does not wait"
    await fetched(keys)
    assert await keys.find("rsa") == ()


async def test_requests_with_a_known_key_do_not_wait_for_a_slow_issuer(
    issuer: Issuer, keys: SigningKeys, clock: Clock
) -> None:
    await keys.find("rsa")
    issuer.open.clear()
    issuer.is_asked.clear()
    clock.now += signing_keys.FRESH_FOR + 1
    waiting = asyncio.create_task(keys.find("new"))
    await issuer.is_asked.wait()
    assert await keys.find("rsa")
    assert not waiting.done()
    issuer.keys["keys"].append(jwk_of(OTHER_RSA_KEY, kid="new"))
    issuer.open.set()
    assert await waiting


async def test_an_issuer_that_never_answers_is_given_up(
    issuer: Issuer, keys: SigningKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signing_keys, "TIMEOUT", 0.05)
    issuer.open.clear()
    with pytest.raises(ServerUnavailableError):
        await keys.find("rsa")


async def test_a_request_that_is_given_up_does_not_stop_the_fetch_for_others(issuer: Issuer, keys: SigningKeys) -> None:
    issuer.open.clear()
    first, second = asyncio.create_task(keys.find("rsa")), asyncio.create_task(keys.find("ec"))
    await issuer.is_asked.wait()
    first.cancel()
    issuer.open.set()
    assert await second
    assert issuer.fetches == 1


@pytest.mark.parametrize(
    ("about", "keys_document"),
    [
        ({"issuer": "https://evil.example", "jwks_uri": f"{ISSUER}/keys"}, None),
        ({"issuer": ISSUER + "/", "jwks_uri": f"{ISSUER}/keys"}, None),
        ({"issuer": ISSUER, "jwks_uri": "http://sso.example/keys"}, None),
        ({"issuer": ISSUER, "jwks_uri": "file:///etc/passwd"}, None),
        ({"issuer": ISSUER, "jwks_uri": "http://[::1"}, None),
        ({"issuer": ISSUER}, None),
        ([], None),
        (b"<html>", None),
        (b"[" * 100_000, None),
        (None, {"keys": []}),
        (None, {"keys": "none"}),
        (None, {"keys": [7, None, "x", {}, {"kty": "RSA"}, {"kty": "RSA", "n": 3, "e": []}]}),
        (None, b"x" * (signing_keys.MAX_BYTES + 1)),
    ],
)
async def test_an_issuer_that_answers_something_else_opens_nothing_and_breaks_nothing(
    issuer: Issuer, keys: SigningKeys, about: Any, keys_document: Any
) -> None:
    issuer.about = issuer.about if about is None else about
    issuer.keys = issuer.keys if keys_document is None else keys_document
    with pytest.raises(ServerUnavailableError):
        await keys.find("rsa")


@pytest.mark.parametrize(
    ("jwk", "algorithms"),
    [
        (jwk_of(RSA_KEY, kid="k"), {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
        (jwk_of(RSA_KEY, kid="k", alg="RS512", use="sig", key_ops=["verify"]), {"RS512"}),
        (jwk_of(RSA_KEY, alg="PS256"), {"PS256"}),
        (jwk_of(EC_KEY, kid="k"), {"ES256"}),
        (jwk_of(ec.generate_private_key(ec.SECP384R1()), kid="k"), {"ES384"}),
        (jwk_of(ec.generate_private_key(ec.SECP521R1()), kid="k"), {"ES512"}),
        (jwk_of(ED_KEY, kid="k"), {"EdDSA"}),
        (jwk_of(RSA_KEY, kid="k", use="enc"), None),
        (jwk_of(RSA_KEY, kid="k", key_ops=["encrypt"]), None),
        (jwk_of(RSA_KEY, kid="k", key_ops="verify"), None),
        (jwk_of(RSA_KEY, kid="k", alg="HS256"), None),
        (jwk_of(RSA_KEY, kid="k", alg="ES256"), None),
        (jwk_of(RSA_KEY, kid="k", alg=["RS256"]), None),
        (jwk_of(RSA_KEY, kid=["k"]), None),
        (jwk_of(EC_KEY, kid="k", alg="RS256"), None),
        (jwk_of(ec.generate_private_key(ec.SECP256K1()), kid="k"), None),
        (jwk_of(rsa.generate_private_key(65537, 1024), kid="k"), None),  # noqa: S505 - refused for it
        ({"kty": "oct", "k": "c2VjcmV0", "kid": "k", "alg": "HS256"}, None),
        ({**jwk_of(EC_KEY, kid="k"), "d": "AAAA"}, None),
    ],
)
def test_a_key_is_used_with_algorithms_of_its_own_kind_only(jwk: dict[str, Any], algorithms: set[str] | None) -> None:
    found = [key.algorithms for key in read_keys([jwk])]
    assert found == ([] if algorithms is None else [algorithms])


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("https://sso.example/keys", True),
        ("http://127.0.0.1:8080/keys", True),
        ("http://localhost/keys", True),
        ("http://[::1]:1/keys", True),
        ("http://sso.example/keys", False),
        ("http://localhost.evil.example/keys", False),
        ("ftp://localhost/keys", False),
        ("/keys", False),
        ("", False),
    ],
)
def test_keys_are_fetched_over_tls_or_from_this_machine_only(url: str, safe: bool) -> None:
    assert is_safe_url(url) is safe
