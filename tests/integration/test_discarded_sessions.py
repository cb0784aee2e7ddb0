"""Sessions of steps that are discarded while their connection is silent: no other step's connection is touched."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text

from orchestrator.db.session import Database, get_driver
from orchestrator.db.step_session import StepSession
from tests.acceptance.proxy import proxied
from tests.integration.waiting import until


@pytest.mark.parametrize("discards", [1, 2])
async def test_a_session_that_is_discarded_on_a_silent_connection_takes_no_connection_from_the_next(
    database_url: str, discards: int
) -> None:
    """A step was cancelled again while its session was being discarded; the next step on the pool lost its connection."""
    with proxied(database_url) as (proxy, url):
        behind = Database(url, pool_size=1, connect_timeout=10, application_name="tests of silence")
        await behind.open()
        lost = StepSession(behind.engine)
        await lost.execute(text("SELECT 1"))
        proxy.swallow()
        sent = asyncio.create_task(lost.execute(text("SELECT 2")))
        await until(lambda: bool(proxy.dropped), "the statement is lost")
        proxy.pass_on()
        sent.cancel()
        await asyncio.sleep(0)
        ending = [asyncio.create_task(lost.discard()) for _ in range(discards)]
        following = StepSession(behind.engine)
        await following.execute(text("SELECT 3"))
        await asyncio.wait([sent, *ending])
        driver = await get_driver(following)
        assert driver is not None
        assert await driver.fetchval("SELECT 4") == 4
        await following.discard()
        await behind.close()
