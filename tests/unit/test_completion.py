"""What a consumer does with an outcome that it cannot store."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import asyncpg
import pytest
import tenacity

from consumers import completion
from consumers.completion import Completion


async def test_an_outcome_is_stored_again_at_once_when_a_connection_has_died(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only after the second failure is the database taken to be away, and waited for."""
    monkeypatch.setattr(completion, "SERVER_AWAY", tenacity.wait_fixed(3600))
    anything: Any = Mock()
    storing = Completion(anything, anything, anything, anything, redispatch_after=1.0, max_lost_attempts=3)
    calls = 0

    async def store() -> str:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise asyncpg.ConnectionDoesNotExistError("the server closed the connection")
        return "stored"

    async with asyncio.timeout(60):
        assert await storing.retry_outages(store) == "stored"
    assert calls == 2


async def test_an_error_of_a_file_or_of_another_socket_is_no_outage_of_the_database() -> None:
    anything: Any = Mock()
    storing = Completion(anything, anything, anything, anything, redispatch_after=1.0, max_lost_attempts=3)

    async def open_file() -> None:
        (Path(__file__) / "within").open()

    async def connect() -> None:
        with socket.socket() as one:
            one.connect(("127.0.0.1", 0))

    async with asyncio.timeout(60):
        for action in (open_file, connect):
            with pytest.raises(OSError, match=r"Not a directory|refused|requested address"):
                await storing.retry_outages(action)
