"""Who can reach an API that authenticates nobody: the users of this machine, unless the operator says otherwise."""

from __future__ import annotations

import ipaddress
import socket
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

import structlog
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from orchestrator.api.problems import ProblemResponse
from orchestrator.errors import ConfigurationError
from orchestrator.settings import Settings

logger = structlog.get_logger(__name__)

_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
_POLICY_VIOLATION: Final = 1008


def check_exposure(settings: Settings, listener: socket.socket) -> None:
    """Check that an API which authenticates nobody is reached from this machine only, or that this is wanted.

    Raises:
        ConfigurationError: it listens on another address, and nobody has said that this is right.
    """
    host = listener.getsockname()[0]
    if settings.auth:
        return
    if not ipaddress.ip_address(host).is_loopback:
        raise ConfigurationError(
            f"the API listens on {host} and would let everybody do everything: set ORCHESTRATOR_AUTH to api-keys, oidc or"
            " both (docs/api-authentication.md); or to none, if whoever reaches it may"
        )


def guard(app: ASGIApp, settings: Settings) -> ASGIApp:
    """Return the application; one that authenticates nobody says so in the log, and only answers to names of this machine."""
    if settings.auth == ("none",):
        logger.warning("everybody who reaches the API may do everything: ORCHESTRATOR_AUTH=none")
    if settings.auth:
        return app
    logger.warning("everybody on this machine may do everything with the API: ORCHESTRATOR_AUTH is not set")
    return _LocalNames(app, settings.public_url)


class _LocalNames:
    """Refuses requests that call this machine by a foreign name.

    A page of a stranger may make a browser take this machine for the stranger's own server, by a name that leads here ("DNS
    rebinding"); the browser then lets the page do everything.
    """

    def __init__(self, app: ASGIApp, public_url: str | None) -> None:
        self._app = app
        public = None if public_url is None else urlsplit(public_url).netloc
        self._names = _LOCAL if public is None else _LOCAL | {_without_port(public)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request or a WebSocket, or refuse it."""
        if scope["type"] == "lifespan" or _without_port(Headers(scope=scope).get("host", "")) in self._names:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
        else:
            text = "this API has no authentication and answers to localhost only: see ORCHESTRATOR_AUTH, ORCHESTRATOR_PUBLIC_URL"
            await ProblemResponse(HTTPStatus.MISDIRECTED_REQUEST, text, key="host.foreign")(scope, receive, send)


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdecimal() else host).lower()
