"""Complete the OpenAPI document: every error that a path can answer, and examples that fit their schemas.

FastAPI knows the paths, parameters and models. That every error is a problem document, and which errors all paths share, is
written here once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from orchestrator.api.problems import MEDIA_TYPE, title_of

JSON_TYPE: Final = "application/json"
PROBLEM: Final = "#/components/schemas/Problem"

TAGS: Final = {
    "processes": "Start and control processes, follow them, and ask why one does not go on.",
    "schedules": "Start workflows at times of day, at intervals, or once.",
    "callbacks": "Answers and progress reports of external systems; the token in the path is the permission.",
    "events": "Follow what happens, while it happens and from the log.",
    "subscriptions": "What subscriptions are, and what may be done with them.",
    "metadata": "Products, blocks, resource types and workflows.",
    "search": "The search page of the field's user interface.",
    "graphql": "Queries of the field's user interface: only what is asked for, with what belongs to it.",
    "dead letters": "Messages that could not be used.",
    "documents": "What other systems can send over RabbitMQ, and what they get, as a document.",
    "engine": "Pause and unpause the engine.",
    "access": "The keys that open this API.",
    "settings": "Workers, settings, the check before a deployment.",
    "health": "Whether the program is alive, and whether it can serve. No key is needed.",
}

_ALWAYS: Final = {
    500: "A workflow's module or form is broken, or the program has a defect.",
    503: "The database is away, or the engine is paused; `Retry-After` says when to try again.",
}
_WITH_PERMISSION: Final = {
    401: "Who sends the request is not known: the key or token is missing, wrong or expired.",
    403: "The caller does not have the role that the path needs, or may not do this.",
    429: "The user has too many requests in progress; `Retry-After` says when to try again.",
}
_WITH_BODY: Final = {400: "The body is not JSON.", 413: "The body is too large."}
_WITH_JSON_BODY: Final = {415: "The body is not named as JSON."}
_INVALID: Final = {422: "A parameter, or the shape of the body, is wrong, or there is no such parameter."}

_SCHEMAS: Final[Mapping[str, Any]] = {
    "Problem": {
        "title": "Problem",
        "type": "object",
        "description": "An error, as RFC 9457 has it.",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": {"type": "string", "description": "`about:blank`, or a URN that names the kind of error."},
            "title": {"type": "string", "description": "The words of the status."},
            "status": {"type": "integer"},
            "detail": {"type": "string", "description": "What happened, for people."},
            "reasons": {
                "type": "array",
                "items": {"type": "object", "additionalProperties": True},
                "description": "Why it was refused, for programs: each has a `key`.",
            },
            "validation_errors": {"type": "array", "items": {"$ref": "#/components/schemas/InvalidValue"}},
            "form": {
                "type": "object",
                "additionalProperties": True,
                "description": "510: the schema of the next page.",
            },
            "meta": {
                "type": "object",
                "additionalProperties": True,
                "description": "510: `hasNext` is false for the last page.",
            },
            "sequence": {"type": "integer", "description": "510: the newest entry of the process's log."},
        },
    },
    "InvalidValue": {
        "title": "InvalidValue",
        "type": "object",
        "description": "What is wrong with one value. What the caller has sent is not repeated.",
        "required": ["loc", "msg", "type"],
        "properties": {
            "loc": {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]}},
            "msg": {"type": "string"},
            "type": {"type": "string"},
        },
    },
}

_WORDS: Final[Mapping[str, Any]] = {
    "workflow": "create_port",
    "workflow_name": "create_port",
    "name": "create_port",
    "step": "Configure",
    "status": "running",
    "summary": "waits for input of 'Approve' from NOC since 2026-11-26 10:02:00 UTC",
    "product": "Port 10G",
    "description": "Create a port",
    "user": "ana",
    "author": "ana",
    "created_by": "ana",
    "started_by": "ana",
    "assignee": "NOC",
    "note": "called the customer",
    "reason": "a new line card is being installed",
    "queue": "default",
}
"""Values of properties by their names: an example is to be read, not only to be valid."""

_TEXTS: Final[Mapping[str, str]] = {
    "uuid": "3f2a9c41-5b7e-4c1d-9f2a-8e6d4b3c2a10",
    "date-time": "2026-11-26T10:02:00+00:00",
    "date": "2026-11-26",
    "uri": "https://example.org/",
}

Schema = Mapping[str, Any]


def install_openapi(app: FastAPI) -> None:
    """Make an application serve the complete document."""

    def build() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = build_document(app)
        return app.openapi_schema

    app.openapi = build  # type: ignore[method-assign]  # as FastAPI's documentation does it


def build_document(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document of an application."""
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        routes=app.routes,
        servers=app.servers or None,
    )
    used = {tag for operation in _operations(document) for tag in operation.get("tags", ())}
    document["tags"] = [{"name": name, "description": text} for name, text in TAGS.items() if name in used]
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas.update(_SCHEMAS)
    for operation in _operations(document):
        _add_errors(operation)
        _leave_out_null(operation.get("requestBody", {}))
        _add_examples(operation, schemas)
    _add_links(document)
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    return document


def _operations(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for operations in document["paths"].values():
        yield from operations.values()


def _add_links(document: Mapping[str, Any]) -> None:
    """Say that the id in the answer to a start is that of everything that is done with a process; likewise for schedules."""
    operations = {operation["operationId"]: operation for operation in _operations(document)}
    for maker, parameter in (("start_process", "process_id"), ("create_schedule", "schedule_id")):
        operations[maker]["responses"]["201"]["links"] = {
            name: {"operationId": name, "parameters": {parameter: "$response.body#/id"}}
            for name, operation in operations.items()
            if [one["name"] for one in operation.get("parameters", ()) if one["in"] == "path"] == [parameter]
        }


def _add_errors(operation: dict[str, Any]) -> None:
    responses: dict[str, Any] = operation["responses"]
    tags = operation.get("tags", ())
    for status, text in _list_shared(operation, tags).items():
        responses.setdefault(str(status), {"description": text})
    for written, response in responses.items():
        status = int(written)
        if status < 400 or (JSON_TYPE in response.get("content", {}) and status != 422):  # noqa: PLR2004 - errors; FastAPI's own
            continue
        if status == 422:  # noqa: PLR2004 - FastAPI has other words for it
            response["description"] = _INVALID[422]
        example = {
            "type": "about:blank",
            "title": title_of(status),
            "status": status,
            "detail": response["description"],
        }
        if status == 510:  # noqa: PLR2004 - of forms
            example |= {"form": {"type": "object", "properties": {}}, "meta": {"hasNext": False}}
        response["content"] = {MEDIA_TYPE: {"schema": {"$ref": PROBLEM}, "example": example}}
    operation["responses"] = dict(sorted(responses.items()))


def _leave_out_null(body: Mapping[str, Any]) -> None:
    """Describe a body that need not be sent without the null that it may be as well: generators of clients stumble over it."""
    media = body.get("content", {}).get(JSON_TYPE, {})
    choices = media.get("schema", {}).get("anyOf", ())
    others = [one for one in choices if one.get("type") != "null"]
    if not body.get("required") and len(others) == 1:
        media["schema"] = others[0]


def _list_shared(operation: Mapping[str, Any], tags: Any) -> dict[int, str]:
    if "health" in tags:
        return {500: _ALWAYS[500]}
    shared = dict(_ALWAYS)
    if operation.get("security"):
        shared |= _WITH_PERMISSION
    if "requestBody" in operation:
        shared |= _WITH_BODY
        if "callbacks" not in tags:
            shared |= _WITH_JSON_BODY
    if operation.get("parameters") or "requestBody" in operation or operation.get("security"):
        shared |= _INVALID
    return shared


def _add_examples(operation: dict[str, Any], schemas: Mapping[str, Schema]) -> None:
    bodies = [operation["requestBody"]] if "requestBody" in operation else []
    for content in [*bodies, *operation["responses"].values()]:
        media = content.get("content", {}).get(JSON_TYPE)
        if media is not None and "schema" in media and not {"example", "examples"} & media.keys():
            media["example"] = make_example(media["schema"], schemas)


def make_example(schema: Schema, schemas: Mapping[str, Schema], name: str = "", depth: int = 0) -> Any:
    """Return a value that fits a schema: its own example, or one made of its properties.

    Args:
        schemas: those that it may refer to.
        name: of the property that has the value.
    """
    if "$ref" in schema:
        referred = str(schema["$ref"]).rpartition("/")[2]
        return make_example(schemas[referred], schemas, name, depth + 1)
    for key in ("example", "const", "default"):
        if schema.get(key) is not None:
            return schema[key]
    for key in ("examples", "enum"):
        if schema.get(key):
            return schema[key][0]
    for key in ("anyOf", "oneOf", "allOf"):
        if schema.get(key):
            best = next((one for one in schema[key] if one.get("type") != "null"), schema[key][0])
            return make_example(best, schemas, name, depth)
    match schema.get("type"):
        case "object":
            properties: Mapping[str, Schema] = schema.get("properties", {})
            return {key: make_example(one, schemas, key, depth + 1) for key, one in properties.items()}
        case "array":
            # A tree of models ends somewhere.
            is_deep = depth > 6  # noqa: PLR2004 - levels
            return [] if is_deep or "items" not in schema else [make_example(schema["items"], schemas, name, depth + 1)]
        case "string":
            return _TEXTS.get(schema.get("format", ""), _WORDS.get(name, name or "text"))
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return True
    return {}
