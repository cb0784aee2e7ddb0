"""The layers around the API: request ids, headers of every answer, the origins that may read it, limits of every request.

Plain ASGI, so that they cost little and see the answers to errors as well.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit
from uuid import uuid4

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.api.metrics import ApiMetrics
from orchestrator.api.problems import ProblemResponse, answer_defect, route_of
from orchestrator.settings import Settings

logger = structlog.get_logger(__name__)

REQUEST_ID: Final = "x-request-id"

SECURITY_HEADERS: Final = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "x-frame-options": "DENY",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}
"""Of every answer that does not set them itself. Paths hold callback tokens, which no referrer and no cache may keep."""

TRANSPORT_SECURITY: Final = "max-age=31536000"
"""For a year, browsers that were here over TLS use nothing else."""

ALLOWED_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
ALLOWED_HEADERS: Final = (
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "If-None-Match",
    "Last-Event-ID",
)
EXPOSED_HEADERS: Final = (
    "Allow",
    "Content-Range",
    "ETag",
    "Location",
    "Retry-After",
    "WWW-Authenticate",
    "X-Request-ID",
)


class _TooLargeError(HTTPException):
    """The body of a request is larger than the limit."""

    def __init__(self, limit: int) -> None:
        text = f"the body is larger than {limit} bytes (ORCHESTRATOR_MAX_MESSAGE_BYTES)"
        # What is left of the body is not read, so the connection cannot serve another request.
        super().__init__(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, text, {"connection": "close"})


def surround(app: ASGIApp, settings: Settings, metrics: ApiMetrics) -> ASGIApp:
    """Return the application with all layers around it."""
    app = _Guard(app, settings.max_message_bytes)
    if settings.cors_origins:
        app = CORSMiddleware(
            app,
            allow_origins=settings.cors_origins,
            allow_methods=ALLOWED_METHODS,
            allow_headers=ALLOWED_HEADERS,
            expose_headers=EXPOSED_HEADERS,
        )
    return _Edge(app, settings.public_url or "", metrics)


class _Edge:
    """Gives each request its id, its path behind a proxy and its log line, and each answer the headers of all.

    Args:
        public_url: how clients reach the API. Its path is that of a proxy, which may strip it or not.
        metrics: counts every request.
    """

    def __init__(self, app: ASGIApp, public_url: str, metrics: ApiMetrics) -> None:
        self._app = app
        self._metrics = metrics
        self._prefix = urlsplit(public_url).path
        self._headers = dict(SECURITY_HEADERS)
        if public_url.startswith("https:"):
            self._headers["strict-transport-security"] = TRANSPORT_SECURITY

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, a WebSocket, or the start and end of the server."""
        if self._prefix and scope["type"] != "lifespan":
            path = scope["path"] if scope["path"].startswith(f"{self._prefix}/") else self._prefix + scope["path"]
            scope = {**scope, "root_path": self._prefix, "path": path}
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = uuid4().hex
        began = time.perf_counter()
        status, answered = 0, began

        async def send_with_headers(message: Message) -> None:
            nonlocal status, answered
            if message["type"] == "http.response.start":
                status, answered = int(message["status"]), time.perf_counter()
                headers = MutableHeaders(scope=message)
                headers[REQUEST_ID] = request_id
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, send_with_headers)
            finally:
                ended = time.perf_counter()
                method, route = scope["method"], route_of(scope)
                # A stream is answered when it begins; it may last for days.
                self._metrics.count(method, route, status, (answered if status else ended) - began)
                logger.debug("request", method=method, route=route, status=status, seconds=round(ended - began, 4))


class _Guard:
    """Bounds what is read, and answers what nothing else has answered.

    Args:
        max_body_bytes: a larger body is refused before it is read to its end.
    """

    def __init__(self, app: ASGIApp, max_body_bytes: int) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request or a WebSocket."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_answered = False

        async def send_first(message: Message) -> None:
            nonlocal has_answered
            has_answered = True
            await send(message)

        try:
            await self._serve(scope, receive, send_first)
        except Exception as error:
            # The last resort: what has escaped FastAPI's handlers, or was raised by one.
            if not has_answered:
                await _answer(scope, error)(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if _content_length(scope) > self._max_body_bytes:
            raise _TooLargeError(self._max_body_bytes)
        received = 0

        async def receive_bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_body_bytes:
                raise _TooLargeError(self._max_body_bytes)
            return message

        await self._app(scope, receive_bounded, send)


def _answer(scope: Scope, error: Exception) -> ProblemResponse:
    if isinstance(error, HTTPException):
        return ProblemResponse(error.status_code, error.detail, headers=error.headers)
    return answer_defect(scope, error)


def _content_length(scope: Scope) -> int:
    lengths: Iterable[str] = Headers(scope=scope).getlist("content-length")
    return max((int(one) for one in lengths if one.isdecimal()), default=0)
