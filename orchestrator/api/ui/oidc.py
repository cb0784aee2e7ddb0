"""Sign in through the OIDC issuer: the authorization code flow with PKCE.

What belongs to one sign-in is in a cookie of the browser that has begun it, one for each, so that a link from elsewhere signs
nobody in and two tabs do not disturb each other. The access token must open the API: the pages know no other rules than it.
"""

from __future__ import annotations

import base64
import hmac
import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any, Final
from urllib.parse import urlencode

import httpx
import structlog
from pydantic_core import from_json

from orchestrator.api.authentication import Authenticator, Caller
from orchestrator.api.signing_keys import MAX_BYTES, is_safe_url, open_client, read_about
from orchestrator.api.tokens import SKEW, WrongTokenError, read_time
from orchestrator.errors import OrchestratorError, ServerUnavailableError, UnauthenticatedError
from orchestrator.settings import Settings
from orchestrator.text import format_error

logger = structlog.get_logger(__name__)

VALID_FOR: Final = 600.0
"""Seconds in which a person must have signed in at the issuer."""

COOKIE: Final = "__Host-orchestrator-login-"
"""Followed by the beginning of the state."""

_NAMED: Final = 16
"""Characters of the state in the cookie's name."""


class SignInRefusedError(Exception):
    """The answer of the issuer signs nobody in; the text says why, and repeats nothing of it."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One sign-in that has begun."""

    state: str
    nonce: str
    verifier: str
    return_to: str
    began_at: float

    @property
    def cookie(self) -> str:
        """The name of the cookie that holds it."""
        return COOKIE + self.state[:_NAMED]

    def encode(self) -> str:
        """Return what stands in the cookie."""
        return base64.urlsafe_b64encode(json.dumps(asdict(self)).encode()).decode().rstrip("=")

    @classmethod
    def find(cls, cookies: Mapping[str, str], state: str) -> Attempt | None:
        """Return the sign-in of this browser that a state belongs to."""
        written = cookies.get(COOKIE + state[:_NAMED], "")
        try:
            found = cls(**from_json(base64.urlsafe_b64decode(written + "=" * (-len(written) % 4))))
            is_ours = hmac.compare_digest(found.state.encode(), state.encode())
        except (ValueError, TypeError, AttributeError):
            return None
        return found if is_ours and isinstance(found.began_at, float) and isinstance(found.return_to, str) else None


class OidcSignIn:
    """Signs people in at one issuer.

    Args:
        transport: how the issuer is asked, for tests; default the network.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        settings: Settings,
        authenticator: Authenticator,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._authenticator = authenticator
        self._transport = transport
        self._clock = clock

    async def begin(self, redirect_uri: str, return_to: str) -> tuple[str, Attempt]:
        """Return the address at the issuer to which the browser goes, and what the browser must keep.

        Raises:
            ServerUnavailableError: the issuer does not answer.
        """
        async with open_client(self._transport) as client:
            address = _address(await self._ask(client), "authorization_endpoint")
        attempt = Attempt(
            secrets.token_urlsafe(32), secrets.token_urlsafe(32), secrets.token_urlsafe(48), return_to, self._clock()
        )
        challenge = base64.urlsafe_b64encode(sha256(attempt.verifier.encode()).digest()).decode().rstrip("=")
        query = {
            "response_type": "code",
            "client_id": self._settings.oidc_client_id,
            "redirect_uri": redirect_uri,
            "scope": self._settings.oidc_scope,
            "state": attempt.state,
            "nonce": attempt.nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        return f"{address}{'&' if '?' in address else '?'}{urlencode(query)}", attempt

    async def finish(self, attempt: Attempt, answer: Mapping[str, str], redirect_uri: str) -> Caller:
        """Return who has signed in.

        Args:
            answer: the parameters with which the issuer has sent the browser back.

        Raises:
            SignInRefusedError: nobody has.
            ServerUnavailableError: the issuer does not answer.
        """
        if not 0 <= self._clock() - attempt.began_at <= VALID_FOR:
            raise SignInRefusedError("it took more than ten minutes")
        if answer.get("iss", self._settings.oidc_issuer) != self._settings.oidc_issuer:
            raise SignInRefusedError("another issuer has answered")
        if "error" in answer:
            raise SignInRefusedError("the issuer has refused it")
        code = answer.get("code")
        if not code:
            raise SignInRefusedError("the issuer's answer has no code")
        tokens = await self._redeem(code, attempt.verifier, redirect_uri)
        subject = await self._check_id_token(tokens.get("id_token"), attempt.nonce)
        try:
            caller = await self._authenticator.check(str(tokens.get("access_token", "")))
        except UnauthenticatedError as error:
            raise SignInRefusedError(f"the issuer's access token does not open this API: {error}") from None
        if caller.user.claims.get("sub") != subject:
            raise SignInRefusedError("the issuer's tokens are of two users")
        return caller

    async def _redeem(self, code: str, verifier: str, redirect_uri: str) -> dict[str, Any]:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": verifier,
            "client_id": self._settings.oidc_client_id or "",
        }
        if self._settings.oidc_client_secret is not None:
            form["client_secret"] = self._settings.oidc_client_secret.get_secret_value()
        async with open_client(self._transport) as client:
            address = _address(await self._ask(client), "token_endpoint")
            try:
                response = await client.post(address, data=form, headers={"accept": "application/json"})
            except httpx.HTTPError as error:
                raise self._is_away(error) from None
        if response.is_server_error:
            raise self._is_away(ValueError(f"it answers {response.status_code}"))
        try:
            found = from_json(response.content[:MAX_BYTES])
        except ValueError:
            found = None
        if not response.is_success or not isinstance(found, dict):
            raise SignInRefusedError("the issuer does not take its code: it is used, or too old")
        return found

    async def _check_id_token(self, token: object, nonce: str) -> object:
        """Return the subject of an ID token that was made for this sign-in."""
        tokens = self._authenticator.tokens
        if not isinstance(token, str) or tokens is None:
            raise SignInRefusedError("the issuer has sent no ID token")
        try:
            claims = await tokens.read(token)
            expires_at = read_time(claims, "exp")
        except WrongTokenError as error:
            raise SignInRefusedError(f"the issuer's ID token is wrong: {error}") from None
        audiences = claims.get("aud")
        audiences = audiences if isinstance(audiences, list) else [audiences]
        client = self._settings.oidc_client_id
        if claims.get("iss") != self._settings.oidc_issuer:
            raise SignInRefusedError("the ID token comes from another issuer")
        if client not in audiences or claims.get("azp", client) != client:
            raise SignInRefusedError("the ID token is for another application")
        if not hmac.compare_digest(str(claims.get("nonce", "")).encode(), nonce.encode()):
            raise SignInRefusedError("the ID token is of another sign-in")
        if expires_at is None or expires_at + SKEW <= self._clock():
            raise SignInRefusedError("the ID token has expired")
        return claims.get("sub")

    async def _ask(self, client: httpx.AsyncClient) -> dict[str, Any]:
        try:
            return await read_about(client, self._settings.oidc_issuer or "")
        except (httpx.HTTPError, OSError, TimeoutError, ValueError) as error:
            raise self._is_away(error) from None

    def _is_away(self, error: Exception) -> OrchestratorError:
        logger.warning("nobody can sign in: the OIDC issuer", error=format_error(error))
        return ServerUnavailableError(
            f"the OIDC issuer {self._settings.oidc_issuer} does not answer as it must; the program's log says more"
        )


def _address(about: Mapping[str, Any], name: str) -> str:
    found = about.get(name)
    if not isinstance(found, str) or not is_safe_url(found):
        raise ServerUnavailableError(f"the OIDC issuer names no https address {name}")
    return found
