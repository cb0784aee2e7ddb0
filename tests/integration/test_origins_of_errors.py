"""Which server an error is blamed on, with real servers that are really lost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import aio_pika
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from orchestrator.broker.connection import BrokerAddress, connect, is_broker_outage, measure, one_channel
from orchestrator.cli.context import explain
from orchestrator.db.lookup import find_process
from orchestrator.db.session import Database
from tests.forwarder import Forwarder, place_of, through

NOWHERE = "postgresql+asyncpg://u:hidden@127.0.0.1:1/x"


@pytest.fixture
async def connection(amqp_url: str) -> AsyncIterator[aio_pika.abc.AbstractConnection]:
    opened = await connect(BrokerAddress(amqp_url, "test", 10.0), "look")
    yield opened
    await opened.close()


async def test_what_the_client_raises_after_a_connection_was_lost_is_blamed_on_rabbitmq(
    connection: aio_pika.abc.AbstractConnection,
) -> None:
    """Its class may be a plain ``RuntimeError``."""
    async with one_channel(connection) as channel:
        await connection.close()
        with pytest.raises(Exception, match=r".") as lost:
            await channel.declare_queue("any", passive=True)
    # The test's own code called the client, so to us it is somebody else's broker.
    assert explain(lost.value) is None

    with pytest.raises(Exception, match=r".") as lost:
        await measure(connection, "any")
    assert isinstance(lost.value, RuntimeError)
    assert is_broker_outage(lost.value)
    lines = explain(lost.value)
    assert lines is not None
    assert lines[0].startswith("the connection to RabbitMQ was lost: ")


async def test_a_refusal_of_the_broker_is_reported_with_its_words(
    connection: aio_pika.abc.AbstractConnection, amqp_url: str
) -> None:
    other = await connect(BrokerAddress(amqp_url, "test", 10.0), "own")
    async with one_channel(other) as channel:
        await channel.declare_queue("mine", exclusive=True)
        with pytest.raises(aio_pika.exceptions.AMQPError) as refused:
            await measure(connection, "mine")
    await other.close()
    lines = explain(refused.value)
    assert lines is not None
    assert lines[0].startswith("the connection to RabbitMQ was lost: RESOURCE_LOCKED")


async def test_a_database_session_that_was_ended_is_blamed_on_postgresql(database: Database) -> None:
    async def lose() -> None:
        async with database.transaction() as session:
            own = await session.scalar(text("SELECT pg_backend_pid()"))
            await database.pool.fetchval("SELECT pg_terminate_backend($1)", own)
            await session.execute(text("SELECT 1"))

    with pytest.raises(Exception, match=r".") as lost:
        await lose()
    lines = explain(lost.value)
    assert lines is not None
    assert lines[0].startswith("the connection to PostgreSQL was lost: ")


async def test_a_database_that_is_gone_when_a_session_connects_is_blamed_on_postgresql() -> None:
    """The client raises a plain ``OSError`` then; whoever had asked the session."""
    nowhere = Database(NOWHERE, pool_size=1, connect_timeout=5.0, application_name="test")
    with pytest.raises(OSError, match=r"127\.0\.0\.1") as lost:
        async with nowhere.transaction() as session:
            await find_process(session, str(uuid4()))
    lines = explain(lost.value)
    assert lines is not None
    assert lines[0].startswith("the connection to PostgreSQL was lost: ")


async def test_a_database_of_a_users_own_that_is_gone_is_not_blamed_on_ours() -> None:
    """By the same libraries."""
    engine = create_async_engine(NOWHERE)
    with pytest.raises(OSError, match=r"127\.0\.0\.1") as lost:
        async with engine.connect():
            pass
    assert explain(lost.value) is None


async def test_a_database_that_is_gone_when_the_small_pool_connects_is_blamed_on_postgresql(database_url: str) -> None:
    async with Forwarder(lambda: place_of(database_url)) as server:
        url = through(database_url, server.port)
        opened = Database(url, pool_size=1, connect_timeout=5.0, application_name="test")
        await opened.open()
        await server.close()
        with pytest.raises(OSError, match=r"127\.0\.0\.1") as lost:
            await opened.pool.fetchval("SELECT 1")
        await opened.close()
    lines = explain(lost.value)
    assert lines is not None
    assert lines[0].startswith("the connection to PostgreSQL was lost: ")
