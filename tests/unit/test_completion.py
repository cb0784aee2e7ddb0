"""What a consumer does with an outcome that it cannot store."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest.mock import Mock

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
            raise ConnectionResetError("the server closed the connection")
        return "stored"

    async with asyncio.timeout(60):
        assert await storing.retry_outages(store) == "stored"
    assert calls == 2
