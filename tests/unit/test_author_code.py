"""Requests that call code of authors, without a database: what becomes of those that get no turn."""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn, Self

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.author_code import AuthorCode
from orchestrator.errors import WorkflowBusyError


class Connection:
    """One that the server has accepted."""

    def terminate(self) -> None:
        pass


class Session:
    """A session whose transaction begins at once, so that the request may wait in it."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def connection(self) -> Session:
        return self

    async def get_raw_connection(self) -> Session:
        return self

    driver_connection = None


class Sessions:
    """Makes such sessions."""

    def begin(self) -> Session:
        return Session()


async def accept() -> Any:
    return Connection()


async def refuse() -> NoReturn:
    raise ConnectionRefusedError("the server is away")


@pytest.mark.parametrize(("connect", "error"), [(accept, WorkflowBusyError), (refuse, ConnectionRefusedError)])
async def test_a_request_without_a_turn_is_refused_only_if_the_server_answers(
    connect: Any, error: type[Exception]
) -> None:
    """Those that have the turns may wait for the server; the sender must not hear that their code hangs."""
    sessions: Any = Sessions()
    code = AuthorCode(sessions, 2, connect=connect, is_connection_error=lambda _: False)
    begun, end = asyncio.Event(), asyncio.Event()

    async def hang(_: AsyncSession) -> None:
        begun.set()
        await end.wait()

    hanging = asyncio.create_task(code.run("one", hang))
    await begun.wait()
    with pytest.raises(error):
        await code.run("one", hang, patience=0.01)
    end.set()
    await hanging
