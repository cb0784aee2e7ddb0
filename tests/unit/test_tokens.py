"""Tokens of an OIDC issuer: what is forged, foreign, late, early or no access token opens nothing, and never breaks anything."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.api.signing_keys import SigningKeys
from orchestrator.api.tokens import Rules, Tokens, WrongTokenError, check_claims
from orchestrator.authorization import Role
from tests.oidc_issuer import (
    AUDIENCE,
    EC_KEY,
    ED_KEY,
    ISSUER,
    OTHER_RSA_KEY,
    RSA_KEY,
    Issuer,
    claims_of,
    jwk_of,
    pem_of,
    sign,
)

RULES = Rules(
    issuer=ISSUER,
    audiences=[AUDIENCE, "second"],
    user_claim="sub",
    roles_claim="roles",
    roles={role.value: role for role in Role},
)
NOW = 1_800_000_000.0


def encode(part: Any) -> str:
    text = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def unsigned(header: Any, claims: Any, signature: str = "") -> str:
    return f"{encode(header)}.{encode(claims)}.{signature}"


def hmac_with(secret: bytes) -> str:
    """A token whose signature is an HMAC with something public, which PyJWT refuses to make."""
    start = f"{encode({'alg': 'HS256', 'kid': 'rsa', 'typ': 'JWT'})}.{encode(claims_of())}"
    return f"{start}.{encode(hmac.digest(secret, start.encode(), 'sha256'))}"


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
def tokens(issuer: Issuer) -> Tokens:
    return Tokens(RULES, SigningKeys(ISSUER, issuer.transport))


@pytest.mark.parametrize(
    ("token", "kind"),
    [
        (sign(), "RSA"),
        (sign(algorithm="PS384"), "RSA"),
        (sign(key=EC_KEY, algorithm="ES256", headers={"kid": "ec"}), "EC"),
        (sign(headers={"typ": "at+jwt"}), "RFC 9068"),
        (sign(headers={"typ": "application/AT+JWT"}), "RFC 9068"),
        (sign(headers={"x5t": "c2hh", "x5c": ["MII"]}), "certificates are not read"),
    ],
    ids=lambda one: one if len(one) < 40 else "token",
)
async def test_a_token_that_the_issuer_has_signed_names_its_user(tokens: Tokens, token: str, kind: str) -> None:
    holder = await tokens.check(token)
    assert (holder.name, set(holder.roles)) == ("ann", {Role.OPERATE})


FORGED: dict[str, Callable[[], str]] = {
    "alg none": lambda: unsigned({"alg": "none", "kid": "rsa"}, claims_of()),
    "alg None": lambda: unsigned({"alg": "None", "kid": "rsa"}, claims_of()),
    "alg null": lambda: unsigned({"alg": None, "kid": "rsa"}, claims_of()),
    "alg list": lambda: unsigned({"alg": ["RS256"], "kid": "rsa"}, claims_of()),
    "no alg": lambda: unsigned({"kid": "rsa"}, claims_of()),
    "no signature": lambda: ".".join([*sign().split(".")[:2], ""]),
    "signature of another token": lambda: ".".join([*sign(claims_of(sub="eve")).split(".")[:2], sign().split(".")[2]]),
    "other key under a known id": lambda: sign(key=OTHER_RSA_KEY),
    "unknown id": lambda: sign(key=OTHER_RSA_KEY, headers={"kid": "other"}),
    "no id among several keys": lambda: jwt.PyJWS().encode(json.dumps(claims_of()).encode(), RSA_KEY, "RS256"),
    "id of a wrong type": lambda: unsigned({"alg": "RS256", "kid": 7}, claims_of(), "AAAA"),
    "long id": lambda: sign(headers={"kid": "k" * 10_000}),
    "HMAC with the PEM": lambda: hmac_with(pem_of(RSA_KEY)),
    "HMAC with the JWK": lambda: hmac_with(json.dumps(jwk_of(RSA_KEY, kid="rsa", use="sig")).encode()),
    "EC token with the id of an RSA key": lambda: sign(key=EC_KEY, algorithm="ES256"),
    "RSA token with the id of an EC key": lambda: sign(headers={"kid": "ec"}),
    "algorithm that the key excludes": lambda: sign(algorithm="RS512", headers={"kid": "rs256"}),
    "embedded jwk": lambda: sign(key=OTHER_RSA_KEY, headers={"jwk": jwk_of(OTHER_RSA_KEY)}),
    "embedded jwk of the issuer": lambda: sign(headers={"jwk": jwk_of(RSA_KEY)}),
    "jku": lambda: sign(headers={"jku": "https://evil.example/keys"}),
    "x5u": lambda: sign(headers={"x5u": "https://evil.example/cert"}),
    "crit": lambda: sign(headers={"crit": ["x"], "x": 1}),
    "crit b64": lambda: unsigned({"alg": "RS256", "kid": "rsa", "crit": ["b64"], "b64": False}, claims_of(), "AAAA"),
    "b64": lambda: unsigned({"alg": "RS256", "kid": "rsa", "b64": False}, claims_of(), "AAAA"),
    "id token by type": lambda: sign(headers={"typ": "id+jwt"}),
    "type of a wrong type": lambda: unsigned({"alg": "RS256", "kid": "rsa", "typ": 7}, claims_of(), "AAAA"),
    "logout token": lambda: sign(headers={"typ": "logout+jwt"}),
    "claims that are a list": lambda: sign([1]),
    "claims that are not JSON": lambda: jwt.PyJWS().encode(b"{", RSA_KEY, "RS256", {"kid": "rsa"}),
    "claims with NaN": lambda: jwt.PyJWS().encode(b'{"exp": NaN}', RSA_KEY, "RS256", {"kid": "rsa"}),
    "claims nested deeply": lambda: jwt.PyJWS().encode(b"[" * 100_000, RSA_KEY, "RS256", {"kid": "rsa"}),
    "claims with a surrogate": lambda: sign(claims_of(sub="\ud800")),
    "header nested deeply": lambda: f"{encode(b'[' * 100_000)}.e30.AAAA",
    "header that is a list": lambda: unsigned([], {}),
    "header that is not JSON": lambda: unsigned(b"{", {}),
    "encrypted": lambda: "a.b.c.d.e",
    "two parts": lambda: "a.b",
    "empty": lambda: "",
    "dots": lambda: "..",
    "not base64": lambda: "ä.ö.ü",
}


@pytest.mark.parametrize("case", FORGED)
async def test_a_forged_token_opens_nothing_and_is_not_repeated(tokens: Tokens, issuer: Issuer, case: str) -> None:
    token = FORGED[case]()
    with pytest.raises(WrongTokenError) as refused:
        await tokens.check(token)
    assert not any(part in str(refused.value) for part in token.split(".") if len(part) > 4)
    assert not any("evil" in path for path in issuer.asked)


async def test_keys_for_secrets_and_encryption_in_the_set_sign_nothing(issuer: Issuer, tokens: Tokens) -> None:
    issuer.keys = {
        "keys": [
            {"kty": "oct", "kid": "secret", "k": encode(b"s" * 32), "alg": "HS256"},
            jwk_of(OTHER_RSA_KEY, kid="enc", use="enc"),
            jwk_of(RSA_KEY, kid="rsa"),
        ]
    }
    for token in (
        sign(key=b"s" * 32, algorithm="HS256", headers={"kid": "secret"}),
        sign(key=OTHER_RSA_KEY, headers={"kid": "enc"}),
    ):
        with pytest.raises(WrongTokenError):
            await tokens.check(token)
    # The set has one key that signs, so that a token need not name it.
    holder = await tokens.check(jwt.PyJWS().encode(json.dumps(claims_of()).encode(), RSA_KEY, "RS256"))
    assert holder.name == "ann"


async def test_a_key_that_the_issuer_adds_is_known_at_once(issuer: Issuer, tokens: Tokens) -> None:
    await tokens.check(sign())
    issuer.keys["keys"].append(jwk_of(ED_KEY, kid="ed"))
    holder = await tokens.check(sign(key=ED_KEY, algorithm="EdDSA", headers={"kid": "ed"}))
    assert holder.name == "ann"


REFUSED_CLAIMS: dict[str, dict[str, Any]] = {
    "no issuer": {"iss": None},
    "another issuer": {"iss": "https://evil.example"},
    "beginning of the issuer": {"iss": "https"},
    "issuer with a slash": {"iss": ISSUER + "/"},
    "issuers": {"iss": [ISSUER]},
    "no audience": {"aud": None},
    "audience of every client": {"aud": "account"},
    "other audiences": {"aud": ["account", "orchestrator2", "orch"]},
    "no audiences": {"aud": []},
    "audience of a wrong type": {"aud": {"orchestrator": True}},
    "audiences of wrong types": {"aud": [["orchestrator"], 7]},
    "no end": {"exp": None},
    "end as a text": {"exp": str(int(NOW) + 60)},
    "end as a truth value": {"exp": True},
    "end as a list": {"exp": [NOW + 60]},
    "end at infinity": {"exp": float("inf")},
    "end beyond numbers": {"exp": 10**400},
    "expired": {"exp": NOW - 31},
    "expired at the end of the skew": {"exp": NOW - 30},
    "issued in the future": {"iat": NOW + 31},
    "issued at a text": {"iat": "now"},
    "valid later": {"nbf": NOW + 31},
    "no subject": {"sub": None},
    "empty subject": {"sub": ""},
    "number as subject": {"sub": 7},
    "subject that no log takes": {"sub": "a\0b"},
    "subject with a line break": {"sub": "a\nb"},
    "long subject": {"sub": "a" * 201},
    "id token: nonce": {"nonce": "n"},
    "id token: hash of the access token": {"at_hash": "h"},
    "id token: hash of the code": {"c_hash": "h"},
    "id token: type": {"typ": "ID"},
    "refresh token": {"typ": "Refresh"},
}


@pytest.mark.parametrize("case", REFUSED_CLAIMS)
def test_a_claim_that_is_missing_or_wrong_is_refused(case: str) -> None:
    with pytest.raises(WrongTokenError):
        check_claims(claims_of(NOW, **REFUSED_CLAIMS[case]), RULES, NOW)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"aud": ["account", "orchestrator"]},
        {"aud": "second"},
        {"exp": NOW - 5},
        {"exp": NOW - 29.9},
        {"exp": 1e300},
        {"iat": NOW + 5},
        {"iat": NOW + 30},
        {"iat": None},
        {"nbf": NOW + 30},
        {"typ": "Bearer"},
        {"typ": ["ID"]},
        {"azp": "some-client"},
    ],
)
def test_clocks_may_differ_by_30_seconds_and_other_claims_may_be_anything(changes: dict[str, Any]) -> None:
    holder = check_claims(claims_of(NOW, **changes), RULES, NOW)
    assert holder.name == "ann"
    assert holder.claims["iss"] == ISSUER


@pytest.mark.parametrize(
    ("claims", "user_claim", "roles_claim", "name", "roles"),
    [
        ({"roles": ["start"]}, "sub", "roles", "ann", {Role.START}),
        ({"roles": "read start unknown"}, "sub", "roles", "ann", {Role.READ, Role.START}),
        ({"roles": ["unknown", 7, None, ["admin"]]}, "sub", "roles", "ann", set()),
        ({"roles": {"admin": True}}, "sub", "roles", "ann", set()),
        ({"roles": None}, "sub", "roles", "ann", set()),
        ({"realm_access": {"roles": ["noc"]}}, "sub", "realm_access.roles", "ann", {Role.OPERATE}),
        ({"realm_access": ["noc"]}, "sub", "realm_access.roles", "ann", set()),
        ({"https://x.example/roles": ["noc"]}, "sub", "https://x.example/roles", "ann", {Role.OPERATE}),
        ({"preferred_username": "Ann"}, "preferred_username", "roles", "Ann", {Role.OPERATE}),
        ({"person": {"id": "a1"}}, "person.id", "roles", "a1", {Role.OPERATE}),
    ],
)
def test_name_and_roles_come_from_the_claims_that_the_settings_name(
    claims: dict[str, Any], user_claim: str, roles_claim: str, name: str, roles: set[Role]
) -> None:
    rules = Rules(
        issuer=ISSUER,
        audiences=[AUDIENCE],
        user_claim=user_claim,
        roles_claim=roles_claim,
        roles={**RULES.roles, "noc": Role.OPERATE},
    )
    holder = check_claims(claims_of(NOW, **claims), rules, NOW)
    assert (holder.name, set(holder.roles)) == (name, roles)


def test_a_token_without_the_claim_of_the_user_is_refused() -> None:
    rules = Rules(issuer=ISSUER, audiences=[AUDIENCE], user_claim="email", roles_claim="roles", roles={})
    with pytest.raises(WrongTokenError, match="does not name its user"):
        check_claims(claims_of(NOW), rules, NOW)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)


@settings(max_examples=200, deadline=None)
@given(
    changed=st.dictionaries(
        st.sampled_from(["iss", "aud", "exp", "iat", "nbf", "sub", "roles", "typ", "nonce"]) | st.text(max_size=5),
        VALUES | st.just(ISSUER) | st.just([AUDIENCE]),
        max_size=4,
    )
)
def test_whatever_claims_say_there_is_a_holder_or_a_refusal(changed: dict[str, Any]) -> None:
    try:
        holder = check_claims({**claims_of(NOW), **changed}, RULES, NOW)
    except WrongTokenError:
        return
    assert holder.name.isprintable()
    assert holder.roles <= set(Role)
    assert holder.expires_at > NOW - 31


@settings(max_examples=100, deadline=None)
@given(
    header=st.dictionaries(
        st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk"]),
        VALUES | st.sampled_from(["RS256", "rsa", "JWT", "none", "HS256"]),
    )
    | VALUES,
    payload=VALUES,
    signature=st.binary(max_size=40),
)
def test_whatever_is_sent_as_a_token_is_refused_and_breaks_nothing(header: Any, payload: Any, signature: bytes) -> None:
    tokens = Tokens(RULES, SigningKeys(ISSUER, Issuer().transport))
    with pytest.raises(WrongTokenError):
        asyncio.run(tokens.check(unsigned(header, payload, encode(signature))))
