"""Check the tokens of an OIDC issuer: the signature, then every claim that must be there.

Nothing in a token's own header is trusted but the names of its key and its algorithm, and the algorithm must be one of the key's.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

import jwt

from orchestrator.api.signing_keys import SigningKeys
from orchestrator.authorization import Role, is_user_name

SKEW: Final = 30.0
"""Seconds that the clocks of the issuer and of this machine may differ."""

MAX_KEY_ID: Final = 500

_TYPES: Final = frozenset({"jwt", "at+jwt", "application/at+jwt"})
_NOT_SUPPORTED: Final = ("crit", "jwk", "jku", "x5u")
"""Headers that would add a rule which we do not know, or a key which the issuer has not published."""

_OF_ID_TOKENS: Final = ("nonce", "at_hash", "c_hash")
"""Claims by which an ID token is known: it says to one application who has signed in, and opens no API."""

_UNREADABLE: Final = (jwt.PyJWTError, ValueError, TypeError, KeyError, RecursionError)
"""What client libraries make of bytes that are no token."""


class WrongTokenError(Exception):
    """A token opens nothing; the text says why, and repeats nothing of the token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a token must say.

    Args:
        audiences: at least one of them must be named in ``aud``.
        user_claim, roles_claim: names of claims; dots lead into objects.
        roles: the role for each value of the roles' claim.
    """

    issuer: str
    audiences: Collection[str]
    user_claim: str
    roles_claim: str
    roles: Mapping[str, Role]


@dataclass(frozen=True, slots=True)
class TokenHolder:
    """The user whom a token names.

    Args:
        expires_at: seconds since 1970.
    """

    name: str
    roles: frozenset[Role]
    claims: Mapping[str, Any]
    expires_at: float


class Tokens:
    """Checks tokens of one issuer.

    Args:
        clock: seconds since 1970.
    """

    def __init__(self, rules: Rules, keys: SigningKeys, clock: Callable[[], float] = time.time) -> None:
        self._rules = rules
        self._keys = keys
        self._clock = clock

    async def check(self, token: str) -> TokenHolder:
        """Return who holds a token.

        Raises:
            WrongTokenError: it opens nothing.
            ServerUnavailableError: the issuer's keys are not known.
        """
        return check_claims(await self.read(token), self._rules, self._clock())

    async def read(self, token: str) -> Any:
        """Return the claims of a token that the issuer has signed; they are not checked.

        Raises:
            WrongTokenError, ServerUnavailableError: as :meth:`check`.
        """
        try:
            header = jwt.get_unverified_header(token)
        except _UNREADABLE:
            raise WrongTokenError("it is not a signed token (JWT)") from None
        algorithm = _check_header(header)
        for key in await self._keys.find(header.get("kid")):
            if algorithm in key.algorithms:
                break
        else:
            raise WrongTokenError("the issuer has no such key for this algorithm")
        try:
            signed = jwt.PyJWS().decode_complete(token, key.key, algorithms=[algorithm])
            return json.loads(signed["payload"], parse_constant=_refuse_constant)
        except _UNREADABLE:
            raise WrongTokenError("its signature is not valid") from None


def check_claims(claims: Any, rules: Rules, now: float) -> TokenHolder:
    """Return the holder that claims name.

    Raises:
        WrongTokenError: a claim is missing or wrong.
    """
    if not isinstance(claims, dict):
        raise WrongTokenError("it has no claims")
    if claims.get("iss") != rules.issuer:
        raise WrongTokenError("it comes from another issuer")
    audiences = claims.get("aud")
    if not isinstance(audiences, list):
        audiences = [audiences]
    if not any(one in rules.audiences for one in audiences if isinstance(one, str)):
        raise WrongTokenError("it is for another audience")
    if any(name in claims for name in _OF_ID_TOKENS) or claims.get("typ") in ("ID", "Refresh", "Logout"):
        raise WrongTokenError("it is not an access token")
    expires_at = read_time(claims, "exp")
    if expires_at is None:
        raise WrongTokenError("it never expires")
    if expires_at + SKEW <= now:
        raise WrongTokenError("it has expired")
    if any((read_time(claims, name) or 0) - SKEW > now for name in ("iat", "nbf")):
        raise WrongTokenError("it is not valid yet")
    if not isinstance(claims.get("sub"), str):
        raise WrongTokenError("it names no subject")
    name = _find(claims, rules.user_claim)
    if not isinstance(name, str) or not is_user_name(name):
        raise WrongTokenError("it does not name its user in the way that the settings say")
    return TokenHolder(name, _read_roles(claims, rules), claims, expires_at)


def _check_header(header: Mapping[str, Any]) -> str:
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise WrongTokenError("it is not an access token")
    if any(name in header for name in _NOT_SUPPORTED):
        raise WrongTokenError("its header asks for something that is not supported")
    if len(header.get("kid", "")) > MAX_KEY_ID:
        raise WrongTokenError("the id of its key is too long")
    algorithm = header.get("alg")
    if not isinstance(algorithm, str):
        raise WrongTokenError("it names no algorithm")
    return algorithm


def read_time(claims: Mapping[str, Any], name: str) -> float | None:
    """Return a time that claims name, in seconds since 1970; ``None`` when they do not.

    Raises:
        WrongTokenError: it is no time.
    """
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise WrongTokenError(f"its claim {name} is not a time")
    try:
        seconds = float(value)
    except OverflowError:
        seconds = math.inf
    if not math.isfinite(seconds):
        raise WrongTokenError(f"its claim {name} is not a time")
    return seconds


def _read_roles(claims: Mapping[str, Any], rules: Rules) -> frozenset[Role]:
    found = _find(claims, rules.roles_claim)
    if isinstance(found, str):
        found = found.split()
    if not isinstance(found, list):
        return frozenset()
    return frozenset(rules.roles[one] for one in found if isinstance(one, str) and one in rules.roles)


def _find(claims: Mapping[str, Any], name: str) -> Any:
    """Return a claim by its name; if there is none, what the dots in the name lead to."""
    if name in claims:
        return claims[name]
    found: Any = claims
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
