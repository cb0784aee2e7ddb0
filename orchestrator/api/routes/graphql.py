"""GraphQL over HTTP: queries alone, in the body of a POST, which no page of a stranger can send."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from http import HTTPStatus
from typing import Annotated, Any, Final

import structlog
from fastapi import Request
from graphql import GraphQLError
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json
from starlette.responses import Response
from strawberry.exceptions import MissingQueryError
from strawberry.schema.exceptions import CannotGetOperationTypeError, InvalidOperationTypeError
from strawberry.types.graphql import OperationType

from orchestrator.api.bodies import JsonRoute, Router
from orchestrator.api.callers import Caller, Role, requires
from orchestrator.api.context import Context
from orchestrator.api.graphql.reader import Reader
from orchestrator.api.graphql.schema import find_schema
from orchestrator.api.problems import answer_defect, describe, status_of
from orchestrator.db.session import is_connection_error, is_lost_race, is_not_migrated
from orchestrator.errors import (
    DefinitionError,
    InsufficientRoleError,
    MessageError,
    RequestError,
    UnauthenticatedError,
)
from orchestrator.text import sanitise, shorten

logger = structlog.get_logger(__name__)

MEDIA_TYPE: Final = "application/json"

MAX_ERRORS: Final = 20
"""Errors of one answer."""

_REFUSED: Final[dict[type[Exception], str]] = {
    MissingQueryError: "the request has no query",
    CannotGetOperationTypeError: "it cannot be said which operation is meant: send one query, or its operationName",
    InvalidOperationTypeError: "only queries are answered here: there are no mutations and no subscriptions",
}

_FOR_THE_CALLER: Final = (RequestError, MessageError, DefinitionError)


class _GraphqlRoute(JsonRoute):
    """A path that refuses callers as GraphQL does: the field's user interface reads ``errors`` of such answers."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler of other paths, with such refusals."""
        handle = super().get_route_handler()

        async def refuse(request: Request) -> Response:
            try:
                return await handle(request)
            except (UnauthenticatedError, InsufficientRoleError) as error:
                kind = "not_authenticated" if isinstance(error, UnauthenticatedError) else "not_authorized"
                answer = describe(error)
                document = {"data": None, "errors": [_write(str(error), None, kind)]}
                headers = {"www-authenticate": answer.headers["www-authenticate"]}
                return Response(to_json(document), status_of(error), headers, MEDIA_TYPE)

        return refuse


router = Router(tags=["graphql"], route_class=_GraphqlRoute)


class GraphqlRequest(BaseModel):
    """A query with the values of its variables. What else clients send beside these is ignored."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={"examples": [{"query": "{ version { applicationVersions } }", "variables": {}}]},
    )

    query: str = Field(description="The document.")
    variables: dict[str, Any] | None = None
    operationName: str | None = Field(None, description="Which of several operations is carried out.")  # noqa: N815 - GraphQL's


@router.post(
    "/graphql",
    operation_id="query_graphql",
    response_model=dict[str, Any],
    responses={200: {"description": "`data`, and `errors` about what could not be read."}},
)
async def query_graphql(
    request: Request, context: Context, caller: Annotated[Caller, requires(Role.READ)], body: GraphqlRequest
) -> Response:
    """Answer a query: processes, subscriptions, products, workflows, schedules and customers, with what belongs to them."""
    reader = Reader(context, caller)
    try:
        result = await find_schema(introspection=context.settings.graphql_introspection).execute(
            body.query,
            variable_values=body.variables,
            context_value=reader,
            operation_name=body.operationName,
            allowed_operation_types=[OperationType.QUERY],
        )
    except tuple(_REFUSED) as error:
        return await _answer(None, [_write(_REFUSED[type(error)], None, "invalid_query")])
    errors = list(result.errors or ())
    for one in errors:
        if one.original_error is not None and _is_outage(one.original_error):
            return answer_defect(request.scope, one.original_error)
    written = [_write_error(one) for one in errors[:MAX_ERRORS]]
    written += [_write(text, None, "invalid_query") for text in reader.problems[:MAX_ERRORS]]
    return await _answer(result.data, written)


async def _answer(data: Any, errors: Iterable[dict[str, Any]]) -> Response:
    document = {"data": data}
    if found := list(errors):
        document["errors"] = found
    body = await asyncio.to_thread(to_json, document, inf_nan_mode="null")
    return Response(body, HTTPStatus.OK, media_type=MEDIA_TYPE)


def _write_error(error: GraphQLError) -> dict[str, Any]:
    """Return an error as it is answered: the words of one that is for the caller, else where it happened alone."""
    cause = error.original_error
    path = None if error.path is None else list(error.path)
    if cause is None or isinstance(cause, GraphQLError):
        return _write(error.message, path, str((error.extensions or {}).get("error_type", "invalid_query")))
    if isinstance(cause, _FOR_THE_CALLER):
        kind = cause.key if isinstance(cause, RequestError) else "internal_error"
        return _write(str(cause), path, kind)
    logger.error("a field of a query has failed", path=path, exc_info=cause)
    return _write("it could not be read; the program's log says why", path, "internal_error")


def _write(message: str, path: list[str | int] | None, kind: str) -> dict[str, Any]:
    found: dict[str, Any] = {"message": shorten(sanitise(message)), "extensions": {"error_type": kind}}
    return found if path is None else {**found, "path": path}


def _is_outage(error: BaseException) -> bool:
    return is_connection_error(error) or is_lost_race(error) or is_not_migrated(error)
