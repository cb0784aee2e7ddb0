"""What an operator sees of a program in RabbitMQ and in PostgreSQL: the name by which 'orchestrator status' knows it."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote, urlsplit

from structlog.testing import capture_logs

from orchestrator.broker.deliveries import Deliveries
from orchestrator.broker.topology import Queues
from orchestrator.hosts import program_name, session_name
from orchestrator.runtime import open_servers
from orchestrator.settings import Settings
from tests.integration.waiting import until
from tests.servers import Servers


async def test_connections_and_consumers_are_named_after_the_program_and_say_when_they_are_there_again(
    database_url: str, amqp_url: str, servers: Servers
) -> None:
    vhost = quote(urlsplit(amqp_url).path[1:], safe="")
    settings = Settings(database_url=database_url, amqp_url=amqp_url)
    name = f"orchestrator consumer {program_name()}"

    async def ask(path: str) -> list[dict[str, Any]]:
        found = await asyncio.to_thread(servers.call, "GET", path)
        assert isinstance(found, list)
        return found

    async def names() -> set[str]:
        return {one.get("user_provided_name", "") for one in await ask(f"vhosts/{vhost}/connections")}

    async with open_servers(settings, "consumer", ["default"]) as opened:
        programs = await opened.database.pool.fetch("SELECT DISTINCT application_name FROM pg_stat_activity")
        assert session_name("consumer", opened.program_id) in {row["application_name"] for row in programs}

        async def take(_: object) -> None:
            raise AssertionError("nothing is sent")

        deliveries = Deliveries(
            opened.address,
            opened.topology,
            {Queues.COMMANDS.value: take},
            prefetch=1,
            max_bytes=1000,
            explain_transient=lambda _: None,
            publisher=opened.publisher,
        )
        running = [asyncio.create_task(one.run()) for one in (opened.publisher, deliveries)]
        with capture_logs() as logs:
            await until(lambda: opened.publisher.is_ready and deliveries.consuming.is_set(), "both are connected")
            expected = {f"{name} (publish)", f"{name} (consume)"}

            async def all_listed() -> bool:
                return expected <= await names()

            await until(all_listed, "the connections are listed by their names")

            async def consumer_listed() -> bool:
                return [one["consumer_tag"] for one in await ask(f"consumers/{vhost}")] == [name]

            await until(consumer_listed, "the consumer is listed by its name")

            for one in await ask(f"vhosts/{vhost}/connections"):
                await asyncio.to_thread(servers.call, "DELETE", f"connections/{quote(one['name'], safe='')}")

            def said(event: str) -> list[str]:
                return sorted(entry["loop"] for entry in logs if entry["event"] == event)

            both = ["deliveries", "publisher"]
            await until(lambda: said("connected to the broker again") == both, "both are connected again, and say so")
            assert said("broker connection lost") == both
        await deliveries.stop(5)
        await opened.publisher.stop()
        await asyncio.gather(*running)
