"""The one address before several servers, as a load balancer is: finds out which can be used, and passes connections on.

``python -m tests.cluster.gateway PORT SERVER_PORT …``; with ``GATEWAY_DATABASE``, a URL with ``{port}`` in it, the servers are
PostgreSQL's and only the primary is used.
"""

from __future__ import annotations

import asyncio
import os
import sys

import asyncpg

from tests.forwarder import HOST, Forwarder, Place

INTERVAL, PATIENCE = 0.5, 1.0
AMQP_HEADER = b"AMQP\0\0\x09\x01"


async def answers_amqp(port: int) -> bool:
    """Return whether a node begins to speak AMQP: one that is frozen, or has paused itself, does not."""
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection(HOST, port)
            try:
                writer.write(AMQP_HEADER)
                return await reader.read(1) != b""
            finally:
                writer.transport.abort()
    except (OSError, TimeoutError):
        return False


async def is_primary(port: int, url: str) -> bool:
    """Return whether a PostgreSQL server can be written to."""
    try:
        connection = await asyncpg.connect(url.format(port=port), timeout=PATIENCE)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
        return False
    await connection.close(timeout=PATIENCE)
    return True


async def main(port: int, servers: list[int]) -> None:
    """Serve until the process is ended."""
    usable: list[int] = []
    database = os.environ.get("GATEWAY_DATABASE")

    async def check(server: int) -> bool:
        return await (answers_amqp(server) if database is None else is_primary(server, database))

    def choose() -> Place | None:
        if not usable:
            return None
        usable.append(usable.pop(0))
        return HOST, usable[-1]

    await Forwarder(choose).listen(port)
    while True:
        answers = dict(zip(servers, await asyncio.gather(*map(check, servers)), strict=True))
        usable[:] = [one for one in usable if answers[one]]
        usable += [one for one in servers if answers[one] and one not in usable]
        await asyncio.sleep(INTERVAL)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), [int(one) for one in sys.argv[2:]]))
