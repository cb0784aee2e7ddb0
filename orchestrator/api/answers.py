"""Documents as JSON, and 304 for the one that a client has already."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from hashlib import sha256
from http import HTTPStatus
from typing import Annotated

from fastapi import Header
from pydantic_core import to_json
from starlette.responses import Response

IfNoneMatch = Annotated[str | None, Header(description="The `ETag` of an earlier answer.")]


async def answer_document(document: object, headers: Mapping[str, str] | None = None) -> Response:
    """Return a document as JSON, written in a thread: it may be large."""
    body = await asyncio.to_thread(to_json, document)
    return Response(body, media_type="application/json", headers=headers)


def answer_unless_known(body: bytes, if_none_match: str | None, headers: Mapping[str, str] | None = None) -> Response:
    """Return a document with an ``ETag`` of everything that it and its headers say, or 304 when that is what the client has."""
    digest = sha256(b"\n".join([*(value.encode() for value in (headers or {}).values()), body]))
    tag = f'"{digest.hexdigest()[:32]}"'
    tagged = {**(headers or {}), "etag": tag, "cache-control": "private, no-cache"}
    if _fits(tag, if_none_match):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=tagged)
    return Response(body, media_type="application/json", headers=tagged)


def _fits(tag: str, wanted: str | None) -> bool:
    if wanted is None:
        return False
    names = {one.strip().removeprefix("W/") for one in wanted.split(",")}
    return tag in names or "*" in names
