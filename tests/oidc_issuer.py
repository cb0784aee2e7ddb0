"""An OIDC issuer: an ASGI application with RSA and EC keys that can be rotated, broken and slowed down, and that signs tokens."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from starlette.types import Receive, Scope, Send

ISSUER = "https://sso.example/realms/network"
AUDIENCE = "orchestrator"

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
RSA_KEY = rsa.generate_private_key(65537, 2048)
OTHER_RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()


def jwk_of(key: PrivateKey, **more: Any) -> dict[str, Any]:
    """Return the public part of a key."""
    match key:
        case rsa.RSAPrivateKey():
            found = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
        case ec.EllipticCurvePrivateKey():
            found = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
        case _:
            found = OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)
    found.pop("key_ops", None)
    return {**found, **more}


def pem_of(key: PrivateKey) -> bytes:
    """Return the public part of a key as text."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def claims_of(now: float | None = None, /, **changes: Any) -> dict[str, Any]:
    """Return the claims of a good token; a change to ``None`` leaves a claim out."""
    now = time.time() if now is None else now
    good = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "ann",
        "iat": int(now),
        "exp": int(now) + 3600,
        "roles": ["operate"],
    }
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def sign(
    claims: Any = None,
    key: Any = RSA_KEY,
    algorithm: str = "RS256",
    headers: Mapping[str, Any] | None = None,
) -> str:
    """Return a token; by default a good one."""
    payload = json.dumps(claims_of() if claims is None else claims).encode()
    return jwt.PyJWS().encode(payload, key, algorithm, {"kid": "rsa", "typ": "JWT", **(headers or {})})


class Issuer:
    """What answers at the issuer's address.

    Args:
        issuer: its URL.
    """

    def __init__(self, issuer: str = ISSUER) -> None:
        self.issuer = issuer
        self.about: Any = {
            "issuer": issuer,
            "jwks_uri": f"{issuer}/keys",
            "authorization_endpoint": f"{issuer}/authorize",
            "token_endpoint": f"{issuer}/token",
        }
        self.codes: dict[str, Any] = {}
        """What the token endpoint answers for each code, once."""
        self.redeemed: list[dict[str, str]] = []
        """The forms that it was sent."""
        self.keys: Any = {
            "keys": [
                jwk_of(RSA_KEY, kid="rsa", use="sig"),
                jwk_of(RSA_KEY, kid="rs256", alg="RS256"),
                jwk_of(EC_KEY, kid="ec", alg="ES256"),
            ]
        }
        self.is_away = False
        self.open = asyncio.Event()
        """While it is not set, the keys are not answered."""
        self.open.set()
        self.is_asked = asyncio.Event()
        """Set by the next request for the keys."""
        self.asked: list[str] = []

    @property
    def fetches(self) -> int:
        """How often the keys were asked for."""
        return sum(path.endswith("/keys") for path in self.asked)

    @property
    def transport(self) -> httpx.AsyncBaseTransport:
        """What httpx sends requests to, instead of the network."""
        return httpx.ASGITransport(app=self)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        self.asked.append(scope["path"])
        if scope["path"].endswith("/token"):
            await self._redeem(receive, send)
            return
        is_about = scope["path"].endswith("/.well-known/openid-configuration")
        found = self.about if is_about else self.keys
        if not is_about:
            self.is_asked.set()
            await self.open.wait()
        body = found if isinstance(found, bytes) else json.dumps(found).encode()
        status = 503 if self.is_away else 200
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": body})

    async def _redeem(self, receive: Receive, send: Send) -> None:
        form = dict(parse_qsl((await receive())["body"].decode()))
        self.redeemed.append(form)
        found = self.codes.pop(form.get("code", ""), None)
        body = json.dumps(found or {"error": "invalid_grant"}).encode()
        await send({"type": "http.response.start", "status": 200 if found else 400, "headers": []})
        await send({"type": "http.response.body", "body": body})
