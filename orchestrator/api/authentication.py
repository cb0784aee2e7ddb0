"""Turn the credentials of a request into a caller: by no authentication, API keys or tokens of an OIDC issuer.

Credentials are in no log line and no answer. What is wrong with them is answered as text, but for API keys: whether one is
unknown, revoked or has expired is for the operator, who sees it with ``orchestrator api-keys list``.
"""

from __future__ import annotations

import base64
import binascii
import time
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

import httpx
import structlog
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from orchestrator.api.problems import RETRY_AFTER
from orchestrator.api.signing_keys import SigningKeys
from orchestrator.api.tokens import SKEW, Rules, Tokens, WrongTokenError
from orchestrator.authorization import Role, User
from orchestrator.db.session import Database
from orchestrator.errors import ServerUnavailableError, UnauthenticatedError
from orchestrator.services import api_keys
from orchestrator.settings import Settings

logger = structlog.get_logger(__name__)

MAX_CREDENTIAL: Final = 16 * 1024
"""Characters of a key or token; tokens with many claims have some thousand."""

WEBSOCKET_PROTOCOL: Final = "base64.bearer.token"
"""The subprotocol after which a browser sends a token, because it can send no header with a WebSocket."""

_INVALID: Final = "invalid_token"


@dataclass(frozen=True, slots=True)
class Caller:
    """The user behind a request.

    Args:
        user: the name that stands in the log, with roles and claims for authorization callbacks.
        expires_at: when the token or key opens nothing any more, in seconds since 1970; ``None`` for never.
        key_id: of the API key; ``None`` for other credentials.
    """

    user: User
    expires_at: float | None = None
    key_id: str | None = None

    @property
    def name(self) -> User:
        """What use cases take as their user."""
        return self.user

    @property
    def sender(self) -> str | None:
        """Whose idempotency keys this caller uses; ``None`` while nobody is authenticated."""
        return None if self is ANONYMOUS else str(self.user)

    @property
    def roles(self) -> frozenset[Role]:
        """What the caller may do."""
        return self.user.roles


ANONYMOUS: Final = Caller(User("anonymous", Role))
"""Who everybody is while nobody is authenticated."""


class Authenticator:
    """Finds callers.

    Args:
        transport: how the OIDC issuer is asked, for tests; default the network.
    """

    def __init__(
        self, settings: Settings, database: Database, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._database = database
        self._is_open = settings.auth in {(), ("none",)}
        self._takes_keys = "api-keys" in settings.auth
        self._tokens = _make_tokens(settings, transport) if "oidc" in settings.auth else None
        self._origins = frozenset(settings.cors_origins)
        if settings.public_url is not None:
            self._origins |= {_origin_of(settings.public_url)}

    async def find_caller(self, headers: Headers) -> Caller:
        """Return who sends a request with these headers.

        Raises:
            UnauthenticatedError: there are no credentials, or they open nothing.
            HTTPException: 400, there are several; 503, the issuer's keys are not known.
        """
        if self._is_open:
            return ANONYMOUS
        sent = headers.getlist("authorization")
        if len(sent) > 1:
            raise HTTPException(
                HTTPStatus.BAD_REQUEST,
                "the request has several Authorization headers: send one",
                {"www-authenticate": 'Bearer error="invalid_request"'},
            )
        scheme, _, credential = (sent[0] if sent else "").partition(" ")
        if scheme.lower() != "bearer":
            raise UnauthenticatedError("send an API key or a token: Authorization: Bearer …")
        return await self.check(credential.strip(" "))

    async def find_websocket_caller(self, connection: HTTPConnection) -> tuple[Caller, str | None]:
        """Return who opens a WebSocket, and the subprotocol to accept it with.

        A browser sends ``Sec-WebSocket-Protocol: base64.bearer.token, <token>``, the token as it is or in base64; other
        programs may send ``Authorization`` instead.

        Raises:
            UnauthenticatedError, HTTPException: as :meth:`find_caller`; also, without authentication, for a page of another
                origin than this API's, ``ORCHESTRATOR_PUBLIC_URL`` and ``ORCHESTRATOR_CORS_ORIGINS``: no browser stops it.
        """
        headers = connection.headers
        offered = [one.strip() for line in headers.getlist("sec-websocket-protocol") for one in line.split(",")]
        protocol = WEBSOCKET_PROTOCOL if offered[:1] == [WEBSOCKET_PROTOCOL] else None
        if self._is_open:
            self._check_origin(headers)
            return ANONYMOUS, protocol
        if protocol is None or len(offered) == 1:
            return await self.find_caller(headers), protocol
        if len(offered) > 2 or "authorization" in headers:  # noqa: PLR2004 - the protocol and the token
            raise _refuse("the request has several credentials: send one")
        return await self.check(_decode(offered[1])), protocol

    async def is_current(self, caller: Caller) -> bool:
        """Return whether a caller who was found before would be found again: for streams, which outlive their requests."""
        if caller.expires_at is not None and caller.expires_at <= time.time():
            return False
        return caller.key_id is None or await api_keys.is_valid(self._database, caller.key_id)

    @property
    def is_open(self) -> bool:
        """Whether everybody may do everything."""
        return self._is_open

    @property
    def takes_keys(self) -> bool:
        """Whether API keys open the API."""
        return self._takes_keys

    @property
    def tokens(self) -> Tokens | None:
        """What checks the issuer's tokens; ``None`` when they open nothing."""
        return self._tokens

    async def check(self, credential: str) -> Caller:
        """Return whom an API key or token names.

        Raises:
            UnauthenticatedError: it opens nothing.
            HTTPException: 503, the issuer's keys are not known.
        """
        if (
            not credential
            or len(credential) > MAX_CREDENTIAL
            or not credential.isascii()
            or not credential.isprintable()
        ):
            raise _refuse(f"that is no API key and no token: 1 to {MAX_CREDENTIAL} printable characters")
        if credential.startswith(api_keys.PREFIX):
            return await self._check_key(credential)
        return await self._check_token(credential)

    async def _check_key(self, secret: str) -> Caller:
        key = await api_keys.find_key(self._database, secret) if self._takes_keys else None
        if key is None:
            raise _refuse("the API key is unknown, revoked or has expired")
        return Caller(User(key.name, [Role(key.role)]), _to_seconds(key.expires_at), key.key_id)

    async def _check_token(self, token: str) -> Caller:
        if self._tokens is None:
            raise _refuse("that is not an API key")
        try:
            holder = await self._tokens.check(token)
        except WrongTokenError as error:
            raise _refuse(f"the token opens nothing: {error}") from None
        except ServerUnavailableError as error:
            raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, str(error), {"retry-after": RETRY_AFTER}) from error
        return Caller(User(holder.name, holder.roles, holder.claims), holder.expires_at + SKEW)

    def _check_origin(self, headers: Headers) -> None:
        origin = headers.get("origin")
        own = {f"{scheme}://{headers.get('host')}" for scheme in ("http", "https")}
        if origin is None or origin in own | self._origins:
            return
        raise UnauthenticatedError("a page of this origin may not connect: name it in ORCHESTRATOR_CORS_ORIGINS")


def _make_tokens(settings: Settings, transport: httpx.AsyncBaseTransport | None) -> Tokens:
    assert settings.oidc_issuer is not None  # noqa: S101 - the settings have checked it
    rules = Rules(
        issuer=settings.oidc_issuer,
        audiences=settings.oidc_audience,
        user_claim=settings.oidc_user_claim,
        roles_claim=settings.oidc_roles_claim,
        roles={name: Role(role) for name, role in settings.oidc_roles.items()} or {role.value: role for role in Role},
    )
    return Tokens(rules, SigningKeys(settings.oidc_issuer, transport))


def _decode(credential: str) -> str:
    """Return a credential that may be in base64, in either alphabet; neither a token nor a key is valid base64 of one."""
    if "." in credential or credential.startswith(api_keys.PREFIX):
        return credential
    try:
        padded = credential.replace("+", "-").replace("/", "_").rstrip("=")
        return base64.urlsafe_b64decode(padded + "=" * (-len(padded) % 4)).decode("ascii")
    except (binascii.Error, ValueError):
        return credential


def _refuse(text: str) -> UnauthenticatedError:
    logger.info("credentials refused", reason=text)
    return UnauthenticatedError(text, _INVALID)


def _to_seconds(end: datetime | None) -> float | None:
    return None if end is None else end.timestamp()


def _origin_of(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
