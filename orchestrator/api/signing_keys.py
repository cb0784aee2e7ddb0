"""The public keys of an OIDC issuer: fetched without blocking, kept for a while, and replaced when the issuer changes them.

A request with a known key never waits for the issuer, whatever state it is in. One with an unknown key waits for at most one
fetch, and such requests together cause at most one fetch in :data:`COOLDOWN`.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from ssl import SSLContext
from typing import Any, Final

import httpx
import structlog
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from jwt.exceptions import PyJWTError
from pydantic_core import from_json

from orchestrator.errors import ServerUnavailableError
from orchestrator.text import format_error

logger = structlog.get_logger(__name__)

FRESH_FOR: Final = 300.0
"""Seconds after which the keys are fetched again, while requests go on with the old ones."""

KEPT_FOR: Final = 3600.0
"""Seconds after which keys that could not be fetched again open nothing any more."""

COOLDOWN: Final = 30.0
"""Seconds between two fetches for keys that are not known, counted from such a fetch: an ordinary one delays none."""

UNKNOWN_FOR: Final = 60.0
"""Seconds in which a key that the issuer did not have is not searched for again."""

RETRY_AFTER: Final = 5.0
"""Seconds after a failed fetch until the next one."""

TIMEOUT: Final = 5.0
"""Seconds that a fetch may take, of both documents together."""

MAX_BYTES: Final = 512 * 1024
"""Of one document."""

MAX_UNKNOWN: Final = 1000
LEAST_RSA_BITS: Final = 2048

_EC_ALGORITHMS: Final = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_RSA_ALGORITHMS: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A public key with the algorithms that it may be used with: never those of another kind of key."""

    key_id: str | None
    key: PublicKey
    algorithms: frozenset[str]


class SigningKeys:
    """The keys of one issuer.

    Args:
        issuer: its URL, as it stands in tokens.
        transport: for tests; default the network.
        clock: seconds, never set back.
    """

    def __init__(
        self,
        issuer: str,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._issuer = issuer
        self._transport = transport
        self._clock = clock
        self._keys: tuple[SigningKey, ...] = ()
        self._fetched_at = self._failed_at = self._searched_at = -math.inf
        self._unknown: dict[str | None, float] = {}
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, key_id: str | None) -> tuple[SigningKey, ...]:
        """Return the issuer's keys of this id; without an id its only key.

        Raises:
            ServerUnavailableError: no keys are known, and the issuer does not answer.
        """
        now = self._clock()
        if now - self._fetched_at > KEPT_FOR:
            self._keys = ()
            await self._fetch_first(now)
        elif now - self._fetched_at > FRESH_FOR and now - self._failed_at > RETRY_AFTER:
            self._start_fetch()  # nobody waits for it
        found = self._look_up(key_id)
        if not found and self._fetching is not None:
            await self._fetch()
            found = self._look_up(key_id)
        if not found and self._may_search(key_id, now):
            self._searched_at = now
            await self._fetch()
            found = self._look_up(key_id)
            if not found and self._failed_at < self._fetched_at:
                self._remember_unknown(key_id, now)
        return found

    def _look_up(self, key_id: str | None) -> tuple[SigningKey, ...]:
        if key_id is None:
            return self._keys if len(self._keys) == 1 else ()
        return tuple(key for key in self._keys if key.key_id == key_id)

    def _may_search(self, key_id: str | None, now: float) -> bool:
        return now - self._searched_at > COOLDOWN and now - self._unknown.get(key_id, -math.inf) > UNKNOWN_FOR

    def _remember_unknown(self, key_id: str | None, now: float) -> None:
        if len(self._unknown) >= MAX_UNKNOWN:
            self._unknown.clear()
        self._unknown[key_id] = now

    async def _fetch_first(self, now: float) -> None:
        if now - self._failed_at > RETRY_AFTER or self._fetching is not None:
            await self._fetch()
        if not self._keys:
            raise ServerUnavailableError(
                f"the OIDC issuer {self._issuer} cannot be reached, so that tokens cannot be checked; see the program's log"
                " (ORCHESTRATOR_OIDC_ISSUER)"
            )

    def _start_fetch(self) -> asyncio.Task[None]:
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._replace())
            self._fetching.add_done_callback(self._end_fetch)
        return self._fetching

    def _end_fetch(self, _: asyncio.Task[None]) -> None:
        self._fetching = None

    async def _fetch(self) -> None:
        """Wait for the fetch that runs, or for a new one. It goes on when the request that has started it is given up."""
        await asyncio.shield(self._start_fetch())

    async def _replace(self) -> None:
        try:
            async with asyncio.timeout(TIMEOUT):
                self._keys = await self._read_keys()
        except (httpx.HTTPError, httpx.InvalidURL, OSError, TimeoutError, ValueError) as error:
            self._failed_at = self._clock()
            logger.warning("the OIDC issuer's keys cannot be fetched", issuer=self._issuer, error=format_error(error))
        else:
            self._fetched_at = self._clock()
            logger.debug("the OIDC issuer's keys were fetched", issuer=self._issuer, keys=len(self._keys))

    async def _read_keys(self) -> tuple[SigningKey, ...]:
        async with open_client(self._transport) as client:
            about = await read_about(client, self._issuer)
            address = about.get("jwks_uri")
            if not isinstance(address, str) or not is_safe_url(address):
                raise ValueError("the issuer names no https address of its keys (jwks_uri)")
            document = await _read(client, address)
        keys = tuple(read_keys(document.get("keys")))
        if not keys:
            raise ValueError("the issuer has no keys that tokens can be signed with")
        return keys


def open_client(transport: httpx.AsyncBaseTransport | None) -> httpx.AsyncClient:
    """Return a client for requests to the issuer; it follows no redirect."""
    return httpx.AsyncClient(transport=transport, verify=_ssl_context(), timeout=TIMEOUT)


async def read_about(client: httpx.AsyncClient, issuer: str) -> dict[str, Any]:
    """Return what an issuer says of itself.

    Raises:
        ValueError: it calls itself otherwise, or answers no JSON object.
        httpx.HTTPError: it does not answer.
    """
    about = await _read(client, f"{issuer.rstrip('/')}/.well-known/openid-configuration")
    if about.get("issuer") != issuer:
        raise ValueError("the issuer calls itself otherwise than ORCHESTRATOR_OIDC_ISSUER")
    return about


def is_safe_url(url: str) -> bool:
    """Return whether nobody on the network can change what a URL answers: https, or this machine."""
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and parts.host in {"localhost", "127.0.0.1", "::1"})


def read_keys(found: object) -> Iterable[SigningKey]:
    """Return the keys of a JWK set with which tokens can be signed; leave out all others."""
    for one in found if isinstance(found, list) else ():
        key = _read_key(one) if isinstance(one, Mapping) else None
        if key is not None:
            yield key


def _read_key(jwk: Mapping[str, Any]) -> SigningKey | None:
    """Return a key; ``None`` for a secret or private one, one for encryption, and one that is too weak or unknown."""
    key_id, algorithm = jwk.get("kid"), jwk.get("alg")
    operations = jwk.get("key_ops", ["verify"])
    is_for_signatures = jwk.get("use", "sig") == "sig" and isinstance(operations, list) and "verify" in operations
    if not is_for_signatures or "d" in jwk or not isinstance(key_id, str | None):
        return None
    try:
        key = _PARSERS[jwk["kty"]](dict(jwk))
    except (KeyError, TypeError, ValueError, PyJWTError):
        return None
    match key:
        case RSAPublicKey() if key.key_size >= LEAST_RSA_BITS:
            algorithms = _RSA_ALGORITHMS
        case EllipticCurvePublicKey() if key.curve.name in _EC_ALGORITHMS:
            algorithms = frozenset({_EC_ALGORITHMS[key.curve.name]})
        case Ed25519PublicKey():
            algorithms = frozenset({"EdDSA"})
        case _:
            return None
    if algorithm is not None:
        algorithms &= {algorithm} if isinstance(algorithm, str) else frozenset()
    return SigningKey(key_id, key, algorithms) if algorithms else None


_PARSERS: Final[Mapping[str, Callable[[dict[str, Any]], object]]] = {
    "RSA": RSAAlgorithm.from_jwk,
    "EC": ECAlgorithm.from_jwk,
    "OKP": OKPAlgorithm.from_jwk,
}


async def _read(client: httpx.AsyncClient, url: str) -> dict[str, Any]:
    body = b""
    async with client.stream("GET", url, headers={"accept": "application/json"}) as response:
        response.raise_for_status()
        if response.is_redirect:
            raise ValueError(f"{url} redirects")
        async for part in response.aiter_bytes():
            body += part
            if len(body) > MAX_BYTES:
                raise ValueError(f"{url} answers more than {MAX_BYTES} bytes")
    found = from_json(body)
    if not isinstance(found, dict):
        raise ValueError(f"{url} does not answer a JSON object")  # noqa: TRY004 - the caller tells servers' faults by it
    return found


@cache
def _ssl_context() -> SSLContext:
    """Make the context once: reading all certificates of the system takes some 30 ms, in which nothing else runs."""
    return httpx.create_ssl_context()
