"""Make thousands of processes that wait for their first step, as copies of one that was started."""

from __future__ import annotations

import asyncio
from uuid import UUID

import aio_pika
import asyncpg

from orchestrator.broker.outgoing import SINCE
from orchestrator.broker.topology import Exchanges
from orchestrator.messages import MessageType, StepCommand, encode
from tests.benchmarks.systems import Corner

_COLUMNS = """
    SELECT string_agg(column_name, ', ') FROM information_schema.columns
     WHERE table_name = $1 AND is_generated = 'NEVER' AND column_name <> ALL($2)
"""


async def copy_waiting(corner: Corner, workflow: str, queue: str, count: int) -> None:
    """Copy the only process of a workflow, which waits for its first step, and publish the commands of the copies."""
    connection = await asyncpg.connect(corner.dsn)
    try:
        rows = await connection.fetchval(_COLUMNS, "processes", ["process_id", "request_key"])
        log = await connection.fetchval(_COLUMNS, "process_steps", ["process_id"])
        ids = await connection.fetch(
            f"INSERT INTO processes (process_id, {rows}) SELECT gen_random_uuid(), {rows}"
            " FROM processes CROSS JOIN generate_series(2, $2) WHERE workflow = $1 RETURNING process_id",
            workflow,
            count,
        )
        # They begin to wait now, all at once; the commands say so.
        await connection.execute("UPDATE processes SET updated_at = now() WHERE workflow = $1", workflow)
        row = await connection.fetchrow("SELECT * FROM processes WHERE workflow = $1 LIMIT 1", workflow)
        await connection.execute(
            f"INSERT INTO process_steps (process_id, {log}) SELECT copies.process_id, {_of('log', log)}"
            " FROM processes AS copies, process_steps AS log"
            " WHERE copies.workflow = $1 AND log.process_id = $2 AND copies.process_id <> $2",
            workflow,
            await connection.fetchval(
                "SELECT process_id FROM process_steps JOIN processes USING (process_id) WHERE workflow = $1 LIMIT 1",
                workflow,
            ),
        )
    finally:
        await connection.close()
    assert row is not None
    async with await aio_pika.connect(corner.amqp_url) as broker:
        channel = await broker.channel(publisher_confirms=True)
        exchange = await channel.get_exchange(Exchanges.STEPS, ensure=False)

        async def publish(process_id: UUID) -> None:
            command = StepCommand(
                process_id=process_id,
                workflow=workflow,
                step=row["step"],
                position=row["position"],
                attempt=row["attempt"],
                announced=row["sequence"],
                plan=row["plan"],
            )
            message = aio_pika.Message(
                encode(command),
                delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                type=MessageType.STEP_COMMAND.value,
                correlation_id=str(process_id),
                headers={SINCE: row["updated_at"].isoformat()},
            )
            await exchange.publish(message, routing_key=queue)

        for begin in range(0, len(ids), 500):
            await asyncio.gather(*(publish(one["process_id"]) for one in ids[begin : begin + 500]))


def _of(alias: str, columns: str) -> str:
    return ", ".join(f"{alias}.{one}" for one in columns.split(", "))
