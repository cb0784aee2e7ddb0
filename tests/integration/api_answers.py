"""What every answer of the API keeps to, whatever was sent."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx
from fastapi import FastAPI

from orchestrator.db.session import Database

PROBLEM: Final = "application/problem+json"
EXPECTED_5XX: Final = (503, 510)
"""The engine is paused or a server is away; a form has another page."""

LEAKS: Final = (
    "Traceback",
    'File "',
    "asyncpg",
    "sqlalchemy",
    "pydantic.dev",
    "invalid byte sequence",
    "query argument",
    "out of range for",
    "SELECT ",
    "INSERT ",
    "ORCHESTRATOR_DATABASE_URL",
)
"""Words of the program's inside."""


def find_fault(status: int, headers: Mapping[str, str], text: str) -> str | None:
    """Return what is wrong with an answer, or None."""
    if status >= 500 and status not in EXPECTED_5XX:
        return f"{status}: {text[:300]}"
    if not headers.get("x-request-id") or headers.get("x-content-type-options") != "nosniff":
        return f"{status}: no request id, or no security headers"
    if status < 400:
        return None
    if headers.get("content-type") != PROBLEM:
        return f"{status}: not a problem document but {headers.get('content-type')}: {text[:100]!r}"
    document = json.loads(text)
    if document.get("status") != status or not {"type", "title", "detail"} <= document.keys():
        return f"{status}: not a whole problem document: {text[:300]}"
    leaks = [word for word in LEAKS if word in text]
    return f"{status}: leaks {leaks}: {text[:300]}" if leaks else None


def fault_of(answer: httpx.Response) -> str | None:
    """Return what is wrong with an answer of a client, or None."""
    if answer.request.method == "HEAD":
        return None if answer.status_code < 500 else str(answer.status_code)
    return find_fault(answer.status_code, answer.headers, answer.text)


@dataclass(frozen=True)
class Operation:
    """A method of a path, as the OpenAPI document has it."""

    method: str
    path: str
    parameters: list[dict[str, Any]]
    has_body: bool

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    def fits(self, path: str) -> bool:
        """Return whether a path is one of this operation's."""
        return re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", self.path), path) is not None

    def names(self, place: str) -> list[str]:
        """Return the names of the parameters in the path, the query or the headers."""
        return [one["name"] for one in self.parameters if one["in"] == place]


def operations_of(app: FastAPI) -> list[Operation]:
    """Return all operations; those that only read come first, so that there is something to read."""
    found = [
        Operation(method.upper(), path, operation.get("parameters", []), "requestBody" in operation)
        for path, operations in app.openapi()["paths"].items()
        for method, operation in operations.items()
    ]
    return sorted(found, key=lambda one: ("GET", "PUT", "PATCH", "POST", "DELETE").index(one.method))


async def take_fingerprint(database: Database) -> str:
    """Return a text that changes when any row of any table does."""
    found: str = await database.pool.fetchval(
        "SELECT md5(string_agg(query_to_xml(format('SELECT * FROM %I', relname), true, false, '')::text, '' ORDER BY relname))"
        " FROM pg_stat_user_tables WHERE schemaname = 'public'"
    )
    return found
