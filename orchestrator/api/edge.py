"""The outermost layer of the API: request ids, headers of every answer, limits of every request, one log line for each.

Plain ASGI, so that it costs little and sees the answers to errors as well.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from http import HTTPStatus
from typing import Final
from uuid import uuid4

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.api.metrics import ApiMetrics
from orchestrator.api.problems import ProblemResponse, answer_defect, route_of

logger = structlog.get_logger(__name__)

REQUEST_ID: Final = "x-request-id"

SECURITY_HEADERS: Final = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "x-frame-options": "DENY",
}
"""Of every answer that does not set them itself. Paths hold callback tokens, which no referrer and no cache may keep."""


class _TooLargeError(HTTPException):
    """The body of a request is larger than the limit."""

    def __init__(self, limit: int) -> None:
        text = f"the body is larger than {limit} bytes (ORCHESTRATOR_MAX_MESSAGE_BYTES)"
        # What is left of the body is not read, so the connection cannot serve another request.
        super().__init__(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, text, {"connection": "close"})


class Edge:
    """Serves one application.

    Args:
        max_body_bytes: a larger body is refused before it is read to its end.
        metrics: counts every request.
    """

    def __init__(self, app: ASGIApp, max_body_bytes: int, metrics: ApiMetrics) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, a WebSocket, or the start and end of the server."""
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
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._serve(scope, receive, send_with_headers)
            except Exception as error:
                # The last resort: what has escaped FastAPI's handlers, or was raised by one.
                if not status:
                    await _answer(scope, error)(scope, receive, send_with_headers)
            finally:
                ended = time.perf_counter()
                method, route = scope["method"], route_of(scope)
                # A stream is answered when it begins; it may last for days.
                self._metrics.count(method, route, status, (answered if status else ended) - began)
                logger.debug("request", method=method, route=route, status=status, seconds=round(ended - began, 4))

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
