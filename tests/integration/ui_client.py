"""The pages of /ui in this process, and a client that keeps cookies and fills forms as a browser does."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any

import httpx

from orchestrator.authorization import Role
from orchestrator.db.session import Database
from orchestrator.services.api_keys import create_key
from tests.integration.api_client import lend_app, make_context

ORIGIN = "https://ui.example"


@dataclass(slots=True)
class Browser:
    """A client with cookies; every request has the headers that a browser sends with it."""

    http: httpx.AsyncClient

    async def get(self, path: str, **headers: str) -> httpx.Response:
        """Open a page, without following redirects."""
        return await self.http.get(path, headers=headers)

    async def fragment(self, path: str, **headers: str) -> httpx.Response:
        """Ask for a part of a page as htmx does."""
        return await self.http.get(path, headers={"hx-request": "true", **headers})

    async def post(
        self, path: str, data: Mapping[str, Any] | None = None, *, csrf: str | None = None, **headers: str
    ) -> httpx.Response:
        """Post a form, with the token of the page that is shown at ``/ui`` unless another one is given."""
        token = await self.token() if csrf is None else csrf
        return await self.http.post(path, data={"csrf": token, **(data or {})}, headers={"origin": ORIGIN} | headers)

    async def token(self, path: str = "/ui") -> str:
        """Return the token in the forms of a page."""
        found = re.search(r'name="csrf-token" content="([0-9a-f]{64})"', (await self.get(path)).text)
        assert found
        return found[1]

    async def sign_in(self, key: str, return_to: str = "/ui") -> httpx.Response:
        """Sign in with an API key."""
        form = {"key": key, "return_to": return_to}
        return await self.http.post("/ui/login", data=form, headers={"origin": ORIGIN})


@asynccontextmanager
async def open_ui(
    database: Database, issuer: httpx.AsyncBaseTransport | None = None, **settings: Any
) -> AsyncIterator[Browser]:
    """Open a browser's client of the pages, as over TLS."""
    with lend_app(make_context(database, **settings), issuer) as app:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url=ORIGIN, timeout=60) as client:
            yield Browser(client)


async def make_key(database: Database, role: Role = Role.ADMIN, name: str = "ana") -> str:
    """Return a new API key."""
    async with database.transaction() as session:
        return (await create_key(session, name, role, "tests", None)).secret


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def text_of(response: httpx.Response) -> str:
    """Return what a page says, with single blanks."""
    parser = _Text()
    parser.feed(response.text)
    return " ".join(" ".join(parser.words).split())
