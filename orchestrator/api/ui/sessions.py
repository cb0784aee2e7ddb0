"""Who looks at the pages: the cookie, the session behind it, and the token that a form must bring.

The cookie holds 256 random bits and nothing else. Signing in makes new ones, so that what was planted before opens nothing. The
token of the forms follows from the cookie: it is the same for all pages and tabs of a session, and another after signing in.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from hashlib import sha256
from http import HTTPStatus
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from orchestrator.api.authentication import ANONYMOUS, Authenticator, Caller
from orchestrator.api.ui.addresses import is_from_own_page, is_this_machine, is_tls
from orchestrator.db.session import Database
from orchestrator.services import browser_sessions
from orchestrator.services.browser_sessions import SECRET_LENGTH, make_secret
from orchestrator.settings import Settings

COOKIE: Final = "__Host-orchestrator"
"""Browsers take it over TLS or from their own machine only, from exactly this host, for all paths."""

PLAIN_COOKIE: Final = "orchestrator"
"""Its name over plain HTTP from elsewhere, where nobody signs in: it carries no right, only the token of the forms."""

CSRF_HEADER: Final = "x-csrf-token"
CSRF_FIELD: Final = "csrf"

MAX_FIELDS: Final = 20_000
"""Controls of a form: lists have a row for each item. The size of the body is bounded as well."""

_FOREIGN_FORM: Final = (
    "this page was opened before you signed in, or the form is not of this site: reload the page and try again"
)


@dataclass(frozen=True, slots=True)
class Session:
    """The visitor of a request.

    Args:
        secret: of the cookie, a new one when the browser has sent none.
        caller: ``None`` for who is not signed in.
    """

    secret: str
    is_new: bool
    caller: Caller | None

    @property
    def csrf(self) -> str:
        """The token that every form of this session brings."""
        return hmac.new(self.secret.encode(), b"forms", sha256).hexdigest()


class Sessions:
    """Finds, opens and closes sessions."""

    def __init__(self, settings: Settings, database: Database, authenticator: Authenticator) -> None:
        self._settings = settings
        self._database = database
        self._authenticator = authenticator

    async def find(self, connection: HTTPConnection) -> Session:
        """Return the session of a request."""
        secret = connection.cookies.get(self._cookie(connection), "")
        is_new = len(secret) != SECRET_LENGTH
        if is_new:
            secret = make_secret()
        if self._authenticator.is_open:
            return Session(secret, is_new, ANONYMOUS)
        return Session(secret, is_new, None if is_new else await self._find_caller(secret))

    async def open(self, connection: HTTPConnection, response: Response, caller: Caller) -> None:
        """Sign a caller in, with another cookie than before."""
        before = connection.cookies.get(self._cookie(connection), "")
        if len(before) == SECRET_LENGTH:
            await browser_sessions.close_session(self._database, before)
        secret = await browser_sessions.open_session(
            self._database,
            caller.user,
            key_id=caller.key_id,
            longest=self._settings.ui_session,
            ends_at=caller.expires_at,
        )
        self.keep(connection, response, secret)

    async def close(self, connection: HTTPConnection, response: Response, session: Session) -> None:
        """Sign out."""
        await browser_sessions.close_session(self._database, session.secret)
        self.keep(connection, response, make_secret())

    def keep(self, connection: HTTPConnection, response: Response, secret: str) -> None:
        """Make the browser keep a secret until it is closed."""
        name = self._cookie(connection)
        response.set_cookie(name, secret, path="/", secure=name == COOKIE, httponly=True, samesite="lax")

    def may_sign_in(self, connection: HTTPConnection) -> bool:
        """Return whether a browser keeps the cookie: over TLS, or on its own machine."""
        return self._cookie(connection) == COOKIE

    async def check_form(self, request: Request, session: Session) -> None:
        """Check that a page of this session sends a request.

        Raises:
            HTTPException: 403.
        """
        self.check_origin(request, is_needed=False)
        sent = request.headers.get(CSRF_HEADER)
        if sent is None:
            field = (await request.form(max_fields=MAX_FIELDS)).get(CSRF_FIELD)
            sent = field if isinstance(field, str) else ""
        if not hmac.compare_digest(sent.encode(), session.csrf.encode()):
            raise HTTPException(HTTPStatus.FORBIDDEN, _FOREIGN_FORM)

    def check_origin(self, connection: HTTPConnection, *, is_needed: bool) -> None:
        """Check that no page of another site sends a request.

        Args:
            is_needed: refuse also when the sender does not say what it is.

        Raises:
            HTTPException: 403.
        """
        is_own = is_from_own_page(connection, self._settings.public_url)
        if is_own is False or (is_own is None and is_needed):
            raise HTTPException(
                HTTPStatus.FORBIDDEN,
                "a page of another site has sent this; behind a proxy, set ORCHESTRATOR_PUBLIC_URL",
            )

    async def _find_caller(self, secret: str) -> Caller | None:
        found = await browser_sessions.find_session(self._database, secret)
        if found is None:
            return None
        user, stored = found
        is_valid = (
            self._authenticator.takes_keys
            if stored.key_id is not None
            else self._authenticator.tokens is not None and stored.claims.get("iss") == self._settings.oidc_issuer
        )
        expires_at = None if stored.expires_at is None else stored.expires_at.timestamp()
        return Caller(user, expires_at, stored.key_id) if is_valid else None

    def _cookie(self, connection: HTTPConnection) -> str:
        is_kept = is_tls(connection, self._settings.public_url) or is_this_machine(connection)
        return COOKIE if is_kept else PLAIN_COOKIE
