"""Errors as problem documents (RFC 9457), and which status each error of the engine has.

A document never holds what the caller sent, because that may be a secret, nor where in the code something happened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPMethod, HTTPStatus
from typing import Any, Final

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope

from orchestrator.db.session import is_database_outage, is_lost_race, is_not_migrated
from orchestrator.errors import (
    CallbackRefusedError,
    ConflictError,
    DefinitionError,
    EnginePausedError,
    ForbiddenError,
    FormIncompleteError,
    InsufficientRoleError,
    InvalidInputError,
    InvalidQueryError,
    MessageError,
    NotFoundError,
    OrchestratorError,
    PredicateFailedError,
    QueryTimeoutError,
    RequestError,
    UnauthenticatedError,
    WorkflowBusyError,
)
from orchestrator.outage import Outage
from orchestrator.text import (
    MAX_PROBLEMS,
    bound_reasons,
    count_more,
    format_message,
    format_place,
    format_problem,
    sanitise,
    shorten,
)
from orchestrator.validation import Problems

logger = structlog.get_logger(__name__)

MEDIA_TYPE: Final = "application/problem+json"
ROOT: Final = "__root__"
"""The place of a problem that belongs to no field: the field's user interface shows its words below the form."""

RETRY_AFTER: Final = "5"
"""Seconds after which a request is worth sending again while a server is away or the engine is paused."""

FORM_INCOMPLETE: Final = 510
"""The status by which the field's user interfaces and clients know that a form has another page."""

Responses = dict[int | str, dict[str, Any]]
"""The answers of a path beside the good one, for the OpenAPI document."""

_STATUSES: Final[Sequence[tuple[type[OrchestratorError], int]]] = (
    (UnauthenticatedError, HTTPStatus.UNAUTHORIZED),
    (NotFoundError, HTTPStatus.NOT_FOUND),
    (FormIncompleteError, FORM_INCOMPLETE),
    (InvalidInputError, HTTPStatus.BAD_REQUEST),
    (InvalidQueryError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (QueryTimeoutError, HTTPStatus.SERVICE_UNAVAILABLE),
    (MessageError, HTTPStatus.BAD_REQUEST),
    (ForbiddenError, HTTPStatus.FORBIDDEN),
    (PredicateFailedError, HTTPStatus.PRECONDITION_FAILED),
    (EnginePausedError, HTTPStatus.SERVICE_UNAVAILABLE),
    (WorkflowBusyError, HTTPStatus.SERVICE_UNAVAILABLE),
    (ConflictError, HTTPStatus.CONFLICT),
    (DefinitionError, HTTPStatus.INTERNAL_SERVER_ERROR),
)
_ANSWERED: Final = (RequestError, MessageError, DefinitionError)
"""The errors whose text is for the caller."""

_READING: Final = ("GET", "HEAD")

_CALLBACK_STATUSES: Final = {"unknown": HTTPStatus.NOT_FOUND, "expired": HTTPStatus.GONE}


class ProblemResponse(Response):
    """A problem document."""

    media_type = MEDIA_TYPE

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        key: str = "about:blank",
        members: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        document = {
            "type": key if key == "about:blank" else f"urn:orchestrator:problem:{key}",
            "title": title_of(status),
            "status": status,
            "detail": shorten(sanitise(detail)),
            **(members or {}),
        }
        super().__init__(to_json(document, fallback=str), status_code=status, headers=dict(headers or {}))


def title_of(status: int) -> str:
    """Return the words of a status."""
    return "Form Incomplete" if status == FORM_INCOMPLETE else HTTPStatus(status).phrase


def status_of(error: OrchestratorError) -> int:
    """Return the status that answers an error of the engine; 500 for one that no caller can cause."""
    if isinstance(error, CallbackRefusedError):
        return _CALLBACK_STATUSES.get(error.outcome, HTTPStatus.CONFLICT)
    found = (status for kind, status in _STATUSES if isinstance(error, kind))
    return next(found, HTTPStatus.INTERNAL_SERVER_ERROR)


def describe(error: OrchestratorError, status: int | None = None) -> ProblemResponse:
    """Return the document of an error of the engine.

    Args:
        status: another one than the error has elsewhere.
    """
    status = status_of(error) if status is None else status
    key = error.key if isinstance(error, RequestError) else "about:blank"
    headers = {"retry-after": RETRY_AFTER} if status == HTTPStatus.SERVICE_UNAVAILABLE else _challenge(error)
    members: dict[str, Any] = {}
    if isinstance(error, FormIncompleteError):
        headers["cache-control"] = "no-store"
        members = {"form": error.form, "meta": {"hasNext": True, **(error.meta or {})}}
        if error.sequence is not None:
            members["sequence"] = error.sequence
    elif isinstance(error, InvalidInputError):
        members = {"validation_errors": _problems_of(error)}
    if isinstance(error, RequestError):
        members["reasons"] = bound_reasons(error.reasons)
    return ProblemResponse(status, str(error), key=key, members=members, headers=headers)


def describe_for_form(error: OrchestratorError, *, from_browser: bool) -> ProblemResponse:
    """Return the document of an error of a start or resume, with words that a form's user interface shows.

    Args:
        from_browser: the field's user interface shows the words of a refusal only when its status is 400 and a problem has the
            place ``__root__``, and takes 403 for the end of the session; programs get the error's own status (ADR 0041).
    """
    status = status_of(error)
    if not isinstance(error, _ANSWERED):
        raise error
    if isinstance(error, InvalidInputError):
        return describe(error)
    if from_browser and status != HTTPStatus.PRECONDITION_FAILED:
        status = HTTPStatus.BAD_REQUEST
    key = error.key if isinstance(error, RequestError) else "about:blank"
    problem = {"loc": [ROOT], "msg": sanitise(str(error)), "type": key}
    members = {
        "validation_errors": [problem],
        "reasons": bound_reasons(error.reasons) if isinstance(error, RequestError) else [],
    }
    headers = {"retry-after": RETRY_AFTER} if status == HTTPStatus.SERVICE_UNAVAILABLE else {}
    return ProblemResponse(status, str(error), key=key, members=members, headers=headers)


def is_from_browser(request: Request) -> bool:
    """Return whether a page in a browser sends this: only browsers set ``Origin``, and on every such request."""
    return "origin" in request.headers


def install(app: FastAPI) -> None:
    """Make an application answer every error with a problem document."""

    @app.exception_handler(OrchestratorError)
    async def engine_error(request: Request, error: OrchestratorError) -> Response:
        if isinstance(error, ForbiddenError) and request.method not in _READING and is_from_browser(request):
            return describe_for_form(error, from_browser=True)
        if isinstance(error, _ANSWERED):
            return describe(error)
        return answer_defect(request.scope, error)

    @app.exception_handler(RequestValidationError)
    async def wrong_request(_: Request, error: RequestValidationError) -> Response:
        # Not pydantic's whole errors: they repeat the input.
        found = error.errors()
        left_out = len(found) - MAX_PROBLEMS
        problems = [
            {"loc": format_place(one["loc"]), "msg": format_problem(one), "type": one["type"]}
            for one in found[:MAX_PROBLEMS]
        ]
        if left_out > 0:
            problems.append({"loc": [ROOT], "msg": count_more(left_out), "type": "request.invalid"})
        return ProblemResponse(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            f"the request is not valid: {Problems(found).describe()}",
            key="request.invalid",
            members={"validation_errors": problems},
        )

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        headers = dict(error.headers or {})
        detail = str(error.detail)
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            # The router names those of the first path that fits.
            methods = ", ".join(_list_methods(request))
            headers = {"allow": methods}
            detail = f"this path takes {methods}"
        elif error.status_code == HTTPStatus.NOT_FOUND and detail == HTTPStatus.NOT_FOUND.phrase:
            # Without the path: it may hold a callback token.
            detail = "there is no such path: /api/docs shows all, each without a slash too many"
        return ProblemResponse(error.status_code, detail, headers=headers)

    @app.exception_handler(Exception)
    async def other(request: Request, error: Exception) -> Response:
        return answer_defect(request.scope, error)


_outage = Outage("the database is away; requests are answered with 503", None)


def answer_defect(scope: Scope, error: BaseException) -> ProblemResponse:
    """Return the document of an error that no caller has caused: a server is away, or the engine has a defect."""
    if is_database_outage(error):
        _outage.report()
        return ProblemResponse(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "the database cannot be reached; try again later",
            key="database.unavailable",
            headers={"retry-after": RETRY_AFTER},
        )
    if is_lost_race(error):
        logger.warning(
            "a request has lost against another transaction", route=route_of(scope), error=format_message(error)
        )
        return ProblemResponse(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "another transaction was in the way; try again",
            key="database.busy",
            headers={"retry-after": "1"},
        )
    if is_not_migrated(error):
        logger.error("the database is not up to date: run 'orchestrator db upgrade'")
        return ProblemResponse(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "the database is not migrated, or not up to date",
            key="database.not_migrated",
            headers={"retry-after": RETRY_AFTER},
        )
    logger.error("a request has failed", route=route_of(scope), exc_info=error)
    return ProblemResponse(HTTPStatus.INTERNAL_SERVER_ERROR, "the request has failed; the program's log says why")


def route_of(scope: Scope) -> str:
    """Return the template of the path of a request: the path itself may hold a callback token."""
    return str(getattr(scope.get("route"), "path", "none"))


def _challenge(error: OrchestratorError) -> dict[str, str]:
    """Return the header that says which credentials are missing (RFC 6750)."""
    if isinstance(error, UnauthenticatedError):
        return {"www-authenticate": "Bearer" if error.error is None else f'Bearer error="{error.error}"'}
    if isinstance(error, InsufficientRoleError):
        return {"www-authenticate": f'Bearer error="insufficient_scope", scope="{error.role}"'}
    return {}


def _list_methods(request: Request) -> list[str]:
    """Return the methods that the path of a request has."""
    routes = request.app.routes
    scopes = {str(method): {**request.scope, "method": str(method)} for method in HTTPMethod}
    return [name for name, scope in scopes.items() if any(one.matches(scope)[0] is Match.FULL for one in routes)]


def _problems_of(error: InvalidInputError) -> list[dict[str, Any]]:
    found = [
        {"loc": one.get("loc") or [ROOT], "msg": one.get("msg", ""), "type": one.get("type", "value_error")}
        for one in error.errors
    ]
    return found or [{"loc": [ROOT], "msg": sanitise(str(error)), "type": error.key}]
