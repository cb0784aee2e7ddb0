"""The API's application in this process, on a real database, and a client that speaks to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx
from fastapi import FastAPI
from starlette.types import ASGIApp

from orchestrator.api.app import create_inner_app, open_app
from orchestrator.api.context import ApiContext
from orchestrator.broker.connection import BrokerAddress
from orchestrator.broker.publisher import Publisher
from orchestrator.broker.topology import Topology
from orchestrator.db.session import Database
from orchestrator.settings import Settings

_unused: list[FastAPI] = []
"""Applications of tests that have succeeded, for others."""

NO_BROKER = "amqp://guest:guest@127.0.0.1:1/"
"""Nothing listens there: what the API starts is left to the reconciler."""


def settings_of(database: Database, **settings: Any) -> Settings:
    """Return the settings of a program on this database, without a broker."""
    url = database.engine.url.render_as_string(hide_password=False)
    return Settings(_env_file=None, **{"database_url": url, "amqp_url": NO_BROKER, **settings})


def make_context(database: Database, **settings: Any) -> ApiContext:
    """Return what the application's paths are given. Its publisher is not connected."""
    chosen = settings_of(database, **settings)
    publisher = Publisher(BrokerAddress.of(chosen, "tests"), Topology.of("classic"), 5)
    return ApiContext(chosen, database, publisher)


@contextmanager
def lend_app(context: ApiContext, issuer: httpx.AsyncBaseTransport | None = None) -> Iterator[ASGIApp]:
    """Provide the application for a test alone; to make one takes longer than most requests."""
    app = _unused.pop() if _unused else create_inner_app(context)
    yield open_app(app, context, issuer)
    _unused.append(app)


@asynccontextmanager
async def open_api(
    database: Database, issuer: httpx.AsyncBaseTransport | None = None, **settings: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """Open a client of the application; paths begin with ``/api``."""
    with lend_app(make_context(database, **settings), issuer) as app:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://api.example", timeout=60) as client:
            yield client
