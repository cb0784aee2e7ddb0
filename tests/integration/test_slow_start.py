"""A program that does not get to work says where it waits."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from orchestrator import runtime
from orchestrator.runtime import open_servers
from orchestrator.settings import Settings
from tests.integration.waiting import until


async def test_a_program_that_has_not_started_after_a_while_says_what_it_waits_for(
    database_url: str, amqp_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "SLOW_START", 0.01)
    settings = Settings(database_url=database_url, amqp_url=amqp_url)
    with capture_logs() as logs:

        def reports() -> list[str]:
            return [str(one["waiting"]) for one in logs if one["event"] == "still starting"]

        async with open_servers(settings, "consumer", ["default"]) as opened:
            await until(lambda: len(reports()) > 1, "it is said again")
            assert any("test_slow_start.py" in one for one in reports())
            opened.started()
            number = len(reports())
            await until(lambda: opened.database.answers(5), "something else is done meanwhile")
            assert len(reports()) == number
