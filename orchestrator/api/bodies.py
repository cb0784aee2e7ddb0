"""Read what requests bring: bodies as JSON that every other part of the engine can hold, and the parameters that a path has.

Python's own reader takes NaN, duplicate keys and halves of surrogate pairs, which fail later, in the database or in the answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from enum import Enum
from http import HTTPStatus
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.exceptions import HTTPException
from starlette.responses import Response

from orchestrator.engine.state import MAX_NESTING, measure_nesting
from orchestrator.errors import InvalidQueryError

MAX_BODY_NESTING: Final = MAX_NESTING + 5
"""Levels of lists and objects in a body: those that a state may have, and those of the request around them."""

TOLERANT_TAG: Final = "search"
"""Of paths that only the field's user interface asks; what parameters its versions add is ignored."""

_JSON_TYPES: Final = ("application/json", "+json")


def read_json(body: bytes) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: it is not JSON, or holds what cannot be stored: NaN, a duplicate key, half of a surrogate pair, a null
            character, too many levels. The text says which and repeats nothing of the body.
    """
    if body.count(b"[") + body.count(b"{") > MAX_BODY_NESTING and measure_nesting(body) > MAX_BODY_NESTING:
        raise ValueError(f"the JSON is nested more than {MAX_BODY_NESTING} levels deep")
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        # pydantic's words name the place, and nothing of the text.
        raise ValueError(f"the body is not JSON: {error}") from None
    if b"\\u0000" in body.lower() and _has_null(value):
        raise ValueError("a string has a null character, which the database cannot hold")
    json.loads(body, object_pairs_hook=_refuse_duplicates)
    return value


class JsonRequest(Request):
    """A request whose body is read strictly."""

    async def json(self) -> Any:
        """Return the body's value.

        Raises:
            HTTPException: 400, see :func:`read_json`.
        """
        try:
            return read_json(await self.body())
        except ValueError as error:
            raise HTTPException(HTTPStatus.BAD_REQUEST, str(error)) from None


class JsonRoute(APIRoute):
    """A path whose body is JSON, is read strictly, and is named as JSON by the request."""

    parameters: frozenset[str]
    """The names of its query parameters."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler behind our reader."""
        handle = super().get_route_handler()
        self.parameters = _list_parameters(self.dependant)

        async def read_strictly(request: Request) -> Response:
            if self.body_field is not None:
                await _require_json(request)
            return await handle(JsonRequest(request.scope, request.receive))

        return read_strictly


class Router(APIRouter):
    """A router whose paths read bodies strictly; each module of paths has one."""

    def __init__(
        self, *, prefix: str = "", tags: list[str | Enum] | None = None, route_class: type[JsonRoute] = JsonRoute
    ) -> None:
        super().__init__(prefix=prefix, tags=tags, route_class=route_class)


def require_known_parameters(request: Request) -> None:
    """Refuse a query parameter that the path does not have: a filter that is misspelt would be answered with everything.

    Raises:
        InvalidQueryError.
    """
    route = request.scope["route"]
    if isinstance(route, JsonRoute) and TOLERANT_TAG not in route.tags:
        unknown = next((name for name in request.query_params if name not in route.parameters), None)
        if unknown is not None:
            raise InvalidQueryError(f"this path has no parameter {unknown[:50]!r}", sorted(route.parameters))


def _list_parameters(dependant: Dependant) -> frozenset[str]:
    """Return the query parameters of a path, and of what it depends on."""
    own = frozenset(one.alias for one in dependant.query_params)
    return own.union(*map(_list_parameters, dependant.dependencies))


async def _require_json(request: Request) -> None:
    """Refuse a body that is not named as JSON.

    A browser sends any other type to any address without asking first, so any page could start workflows at an
    API that only its user can reach.

    Raises:
        HTTPException: 415.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    length = request.headers.get("content-length", "")
    has_body = request.headers.get("transfer-encoding") is not None or length not in {"", "0"}
    if has_body and not kind.endswith(_JSON_TYPES):
        raise HTTPException(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "the body must be JSON: send it with Content-Type: application/json"
        )


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object of the body has the same key twice")
    return found


def _has_null(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any("\0" in key or _has_null(item) for key, item in value.items())
    return isinstance(value, list) and any(_has_null(item) for item in value)
