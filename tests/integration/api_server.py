"""The API's application behind the program's own HTTP server, in a thread of this process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

from orchestrator.api.app import create_app
from orchestrator.api.program import Server, address_of, bind
from orchestrator.db.session import Database
from tests.background import Background
from tests.integration.api_client import make_context


@contextlib.contextmanager
def serve_api(background: Background, database: Database, **settings: Any) -> Iterator[str]:
    """Serve it until the block ends, and provide the URL that ``/api`` is below.

    Args:
        database: opened on the loop of ``background``.
    """
    context = make_context(database, max_message_bytes=100_000, **settings)
    listener = bind("127.0.0.1", 0)

    async def begin() -> tuple[Server, asyncio.Task[None]]:
        server = Server(create_app(context), 5)
        return server, asyncio.create_task(server.serve([listener]))

    async def end(serving: asyncio.Task[None]) -> None:
        await serving

    server, serving = background.run(begin())
    try:
        yield address_of(listener)
    finally:
        context.stopping.set()
        server.should_exit = True
        background.run(end(serving))
