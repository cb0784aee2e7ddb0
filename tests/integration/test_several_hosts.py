"""URLs with several hosts: a server that is down, frozen or cannot be written to is passed over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.broker import connection as broker_connection
from orchestrator.broker.connection import BrokerAddress, connect
from orchestrator.broker.outgoing import Outgoing
from orchestrator.broker.publisher import Publisher
from orchestrator.broker.topology import Exchanges, Topology
from orchestrator.db import failover
from orchestrator.db.connection import is_plain, open_connection
from orchestrator.db.session import Database, is_database_outage
from orchestrator.errors import PublishError, ServerUnavailableError
from orchestrator.settings import Settings
from tests.forwarder import Forwarder, place_of, through
from tests.integration.waiting import until

CLOSED = 1
"""A port that nothing listens on."""


@pytest.fixture
async def frozen() -> AsyncIterator[int]:
    """Provide the port of a server that accepts connections and never answers."""
    async with Forwarder(lambda: ("127.0.0.1", CLOSED)) as server:
        server.freeze()
        yield server.port


async def use_everything(url: str, patience: float) -> None:
    """Use a database by each kind of connection that the programs open."""
    database = Database(url, pool_size=1, connect_timeout=patience, application_name="tests")
    try:
        await database.open()
        assert await database.pool.fetchval("SELECT 1") == 1
        async with database.transaction() as session:
            assert await session.scalar(text("SELECT 1")) == 1
        own = await database.connect("tests of one more")
        assert await own.fetchval("SHOW application_name") == "tests of one more"
        await own.close()
    finally:
        await database.close()
    settings = Settings(database_url=url, amqp_url="amqp://nowhere", connect_timeout=patience)
    assert is_plain(settings)
    async with open_connection(settings, "tests") as connection:
        assert await connection.fetchval("SELECT 1") == 1


async def test_every_connection_to_the_database_passes_over_a_host_that_refuses(database_url: str) -> None:
    await use_everything(through(database_url, CLOSED, place_of(database_url)[1]), 20)


async def test_every_connection_to_the_database_passes_over_a_host_that_is_frozen(
    database_url: str, frozen: int
) -> None:
    await use_everything(through(database_url, frozen, place_of(database_url)[1]), 3)


async def test_the_host_that_answered_last_is_tried_first(database_url: str, frozen: int) -> None:
    """Of several connections that a program opens, one only waits for the frozen host."""
    async with Forwarder(lambda: place_of(database_url)) as server:
        url = through(database_url, frozen, server.port)
        database = Database(url, pool_size=1, connect_timeout=2, application_name="tests")
        await database.check()
        began = asyncio.get_running_loop().time()
        for _ in range(3):
            await (await database.connect()).close()
        assert asyncio.get_running_loop().time() - began < 2
        await database.close()


async def test_a_server_that_cannot_be_written_to_is_passed_over(database_url: str) -> None:
    """As a standby says that it is one, a database can be set to be read only."""
    name = database_url.rpartition("/")[2]
    database = Database(database_url, pool_size=1, connect_timeout=20, application_name="tests")
    await database.open()
    await database.pool.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    try:
        with pytest.raises(ServerUnavailableError, match="the server is not read-write: is it a standby"):
            await database.check()
        any_kind = Database(
            f"{database_url}?target_session_attrs=any", pool_size=1, connect_timeout=20, application_name="tests"
        )
        await any_kind.check()
        await any_kind.close()
    finally:
        await database.pool.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
        await database.close()


async def test_an_error_names_every_host_that_was_tried_on_one_line(
    database_url: str, amqp_url: str, frozen: int
) -> None:
    database = Database(
        through(database_url, CLOSED, frozen), pool_size=1, connect_timeout=0.5, application_name="tests"
    )
    with pytest.raises(ServerUnavailableError) as no_database:
        await database.check()
    with pytest.raises(ServerUnavailableError) as no_broker:
        await connect(BrokerAddress(through(amqp_url, CLOSED, frozen), "tests", 0.5), "test")
    for caught in (no_database, no_broker):
        told = str(caught.value)
        assert f"@127.0.0.1:1,127.0.0.1:{frozen}/" in told
        assert "cannot be used: 127.0.0.1:1: " in told
        assert f"; 127.0.0.1:{frozen}: no answer within 0.5 s (check ORCHESTRATOR_" in told
        assert "\n" not in told


async def test_connections_to_a_server_that_has_become_read_only_are_not_used_again(database: Database) -> None:
    """A primary that was demoted under open connections: the next ones look for the primary anew."""
    async with database.pool.acquire() as connection:
        before = connection.get_server_pid()
        await connection.execute("SET default_transaction_read_only = on")
    async with database.pool.acquire() as connection:
        assert connection.get_server_pid() != before
        await connection.execute("CREATE TABLE written_to ()")

    async with database.transaction() as session:
        before = await session.scalar(text("SELECT pg_backend_pid()"))
        await session.execute(text("SET default_transaction_read_only = on"))
    with pytest.raises(DBAPIError) as caught:
        async with database.transaction() as session:
            await session.execute(text("DROP TABLE written_to"))
    assert is_database_outage(caught.value)
    async with database.transaction() as session:
        assert await session.scalar(text("SELECT pg_backend_pid()")) != before
        await session.execute(text("DROP TABLE written_to"))


async def test_statements_that_hang_at_a_server_that_is_gone_are_ended_when_another_has_taken_over(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A primary without power closes no connection. Statements and cancelled ones alike would hang for a quarter of an hour."""
    monkeypatch.setattr(failover, "INTERVAL", 0.2)
    async with Forwarder(lambda: place_of(database_url)) as first, Forwarder(lambda: place_of(database_url)) as second:
        url = through(database_url, first.port, second.port)
        database = Database(url, pool_size=1, connect_timeout=3, application_name="tests")
        await database.open()
        watching = asyncio.create_task(database.watch(asyncio.Event()))
        async with database.pool.acquire() as held:
            assert await database.pool.fetchval("SELECT 1") == 1
            session = AsyncSession(database.engine)
            await session.execute(text("SELECT 1"))
            first.freeze()
            hanging = [
                asyncio.create_task(one)
                for one in (
                    held.fetchval("SELECT 1"),
                    session.scalar(text("SELECT 1")),
                    database.pool.fetchval("SELECT 1"),
                )
            ]
            await asyncio.sleep(0.1)
            hanging[2].cancel()
            _, pending = await asyncio.wait(hanging, timeout=60)
            assert pending == set()
            for one in hanging[:2]:
                error = one.exception()
                assert error is not None
                assert is_database_outage(error)
        await session.close()
        assert await database.pool.fetchval("SELECT 1") == 1
        assert second.connections > 0
        watching.cancel()
        await asyncio.wait({watching})
        await database.close()


async def test_a_database_that_is_away_for_a_while_keeps_the_connections_that_it_still_has(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No other server has taken over: a statement that was sent is answered when it is back."""
    monkeypatch.setattr(failover, "INTERVAL", 0.1)
    async with Forwarder(lambda: place_of(database_url)) as server:
        database = Database(
            through(database_url, server.port), pool_size=1, connect_timeout=1, application_name="tests"
        )
        await database.open()
        watching = asyncio.create_task(database.watch(asyncio.Event()))
        async with database.pool.acquire() as connection:
            before = server.connections
            server.freeze()
            statement = asyncio.create_task(connection.fetchval("SELECT 1"))
            await until(lambda: server.connections > before + 1, "the watch tries to connect")
            server.thaw()
            assert await statement == 1
        watching.cancel()
        await asyncio.wait({watching})
        await database.close()


@pytest.mark.parametrize("first", ["closed", "frozen"])
async def test_a_connection_to_rabbitmq_passes_over_a_host_that_is_away(amqp_url: str, frozen: int, first: str) -> None:
    address = BrokerAddress(
        through(amqp_url, CLOSED if first == "closed" else frozen, place_of(amqp_url)[1]), "tests", 5
    )
    for _ in range(2):  # each time another host is the first
        connection = await connect(address, "test")
        assert not connection.is_closed
        await connection.close()


async def test_a_program_leaves_a_node_that_is_frozen_under_its_connection(amqp_url: str) -> None:
    """The client library would notice it after three minutes."""
    message = Outgoing(Exchanges.COMMANDS, "workflow.start", "workflow.start", b"{}")
    async with Forwarder(lambda: place_of(amqp_url)) as first, Forwarder(lambda: place_of(amqp_url)) as second:
        address = BrokerAddress(through(amqp_url, first.port, second.port), "tests", 5)
        publisher = Publisher(address, Topology.of("quorum"), 1)
        running = asyncio.create_task(publisher.run())
        await until(lambda: publisher.is_ready, "the publisher is connected")
        assert (first.connections, second.connections) == (1, 0)
        first.freeze()

        async def published() -> bool:
            try:
                await publisher.publish(message)
            except PublishError:
                return False
            return True

        await until(published, "the publisher uses the other node")
        assert second.connections >= 1
        await publisher.stop()
        await running


async def test_a_program_that_comes_back_declares_nothing_that_is_there(
    amqp_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a node is frozen, the others wait for it before they change a binding, and so would the program."""
    topology = Topology.of("quorum", ["radio"])
    address = BrokerAddress(amqp_url, "tests", 20)
    await Publisher(address, topology, 5).check()
    declared = []

    async def declare(*_: object) -> None:
        declared.append(True)

    monkeypatch.setattr(broker_connection, "declare", declare)
    connection = await connect(address, "test")
    await broker_connection.restore(connection, topology)
    assert declared == []
    channel = await connection.channel()
    await channel.queue_delete("orchestrator.steps.radio")
    await broker_connection.restore(connection, topology)
    assert declared == [True]
    await connection.close()


async def test_an_error_of_the_database_that_no_other_host_can_solve_is_passed_on(database_url: str) -> None:
    """One host: the client library's own error, as before."""
    url = f"{database_url.rpartition('/')[0]}/there_is_no_such_database"
    database = Database(url, pool_size=1, connect_timeout=20, application_name="tests")
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await database.connect()
    await database.close()
