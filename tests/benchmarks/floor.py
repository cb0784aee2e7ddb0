"""The floor: the physical work of the engine's shape with no engine on top, in plain aio-pika and asyncpg.

A start command becomes a row and a step command; each step is a command and a result over RabbitMQ (persistent messages,
publisher confirms) around one PostgreSQL transaction that locks the process, inserts a log row and updates the process; the
last result becomes a completion event. Nothing is validated, fenced, logged, retried or announced per step, so an engine
that keeps its guarantees can only come near, and each gap to the floor is a cost of the engine itself.

``FLOOR`` says how: ``rounds`` (five round trips a step), ``single`` (one), ``batched`` (steps of different processes that are due
at the same moment share a statement and a disk sync), ``ahead`` (as batched, and the consumer goes on with the process by itself
for its ten steps, each its own row and commit, with one result for all).

Two programs, as the engine has: ``floor.py coordinator`` and ``floor.py consumer``, until SIGTERM.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import aio_pika
import asyncpg
import uvloop
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Connection = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]
    Pool = asyncpg.Pool[asyncpg.Record]

STARTS, COMMANDS, RESULTS, EVENTS = "floor.starts", "floor.commands", "floor.results", "floor.events"
COMPLETED = "process.bench.completed"
STEPS = 10
PREFETCH = 32
CONNECTIONS = 8
STATEMENTS, LARGEST = 2, 50
"""Statements under way while others gather, and steps in each."""

TABLES = """
CREATE TABLE floor_process (
    id          bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    status      text        NOT NULL DEFAULT 'running',
    last_step   int         NOT NULL DEFAULT 0,
    state       jsonb       NOT NULL DEFAULT '{}',
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE floor_step (
    process_id   bigint      NOT NULL REFERENCES floor_process (id),
    step_no      int         NOT NULL,
    name         text        NOT NULL,
    status       text        NOT NULL,
    state        jsonb       NOT NULL,
    completed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (process_id, step_no)
);
"""
_CREATE = "INSERT INTO floor_process DEFAULT VALUES RETURNING id"
_LOCK = "SELECT status, last_step, state FROM floor_process WHERE id = $1 FOR UPDATE"
_LOG = "INSERT INTO floor_step (process_id, step_no, name, status, state) VALUES ($1, $2, $3, 'success', $4)"
_MOVE = "UPDATE floor_process SET last_step = $2, status = $3, state = $4, updated_at = now() WHERE id = $1"
_MANY = """
WITH d AS (SELECT * FROM unnest($1::bigint[], $2::int[], $3::text[], $4::jsonb[]) AS d(id, step, status, state)),
     moved AS (UPDATE floor_process p SET last_step = d.step, status = d.status, state = d.state, updated_at = now()
                 FROM d WHERE p.id = d.id AND p.last_step = d.step - 1 RETURNING p.id)
INSERT INTO floor_step (process_id, step_no, name, status, state)
SELECT d.id, d.step, 'step ' || d.step, 'success', d.state FROM d JOIN moved USING (id)
"""
_SINGLE = """
WITH locked AS (SELECT id FROM floor_process WHERE id = $1 FOR UPDATE),
     step AS (INSERT INTO floor_step (process_id, step_no, name, status, state)
              SELECT id, $2, $3, 'success', $5 FROM locked)
UPDATE floor_process p SET last_step = $2, status = $4, state = $5, updated_at = now()
  FROM locked WHERE p.id = locked.id
"""


Store = Callable[[int, int, str, str], Awaitable[None]]


def five_rounds(pool: Pool) -> Store:
    """BEGIN, lock, insert, update, COMMIT: a transaction as one writes it first."""

    async def store(process_id: int, step: int, status: str, state: str) -> None:
        async with pool.acquire() as connection, connection.transaction():
            await connection.fetchrow(_LOCK, process_id)
            await connection.execute(_LOG, process_id, step, f"step {step}", state)
            await connection.execute(_MOVE, process_id, step, status, state)

    return store


def one_round(pool: Pool) -> Store:
    """Do the same in one statement."""

    async def store(process_id: int, step: int, status: str, state: str) -> None:
        async with pool.acquire() as connection:
            await connection.execute(_SINGLE, process_id, step, f"step {step}", status, state)

    return store


def batched(pool: Pool) -> Store:
    """Do it in one statement for all that have gathered while others were under way."""
    waiting: list[tuple[tuple[int, int, str, str], asyncio.Future[None]]] = []
    senders: set[asyncio.Task[None]] = set()
    # Counted by the senders themselves: a task ends a turn of the event loop after its last look whether anything waits.
    under_way = 0

    async def send() -> None:
        nonlocal under_way
        while waiting:
            batch = waiting[:LARGEST]
            del waiting[:LARGEST]
            async with pool.acquire() as connection:
                await connection.execute(_MANY, *map(list, zip(*(row for row, _ in batch), strict=True)))
            for _, stored in batch:
                stored.set_result(None)
        under_way -= 1

    async def store(*row: Any) -> None:
        nonlocal under_way
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting.append((row, stored))
        if under_way < STATEMENTS:
            under_way += 1
            task = asyncio.create_task(send())
            senders.add(task)
            task.add_done_callback(senders.discard)
        await stored

    return store


KINDS = {"rounds": five_rounds, "single": one_round, "batched": batched, "ahead": batched}


async def consumer(pool: Pool, channel: AbstractChannel) -> None:
    """Run steps."""
    publish = channel.default_exchange.publish
    kind = os.environ.get("FLOOR", "rounds")
    store, goes_on = KINDS[kind](pool), kind == "ahead"

    async def on_command(incoming: AbstractIncomingMessage) -> None:
        command = json.loads(incoming.body)
        process_id, step = command["process_id"], command["step"]
        if goes_on:
            await incoming.ack()  # from here on the row answers for the process
        while True:
            status = "completed" if step == STEPS else "running"
            await store(process_id, step, status, json.dumps({"counter": step}))
            if step == STEPS or not goes_on:
                break
            step += 1
        await publish(_message(process_id, step), routing_key=RESULTS)
        if not goes_on:
            await incoming.ack()

    await _consume(channel, COMMANDS, on_command)


async def coordinator(pool: Pool, channel: AbstractChannel) -> None:
    """Start processes, dispatch their steps and tell of their ends."""
    events = await channel.declare_exchange(EVENTS, aio_pika.ExchangeType.TOPIC, durable=True)
    publish = channel.default_exchange.publish

    async def on_start(incoming: AbstractIncomingMessage) -> None:
        process_id = await pool.fetchval(_CREATE)
        await publish(_message(process_id, 1), routing_key=COMMANDS)
        await incoming.ack()

    async def on_result(incoming: AbstractIncomingMessage) -> None:
        result = json.loads(incoming.body)
        process_id, step = result["process_id"], result["step"]
        if step < STEPS:
            await publish(_message(process_id, step + 1), routing_key=COMMANDS)
        else:
            await events.publish(_message(process_id, step), routing_key=COMPLETED, mandatory=False)
        await incoming.ack()

    await _consume(channel, STARTS, on_start)
    await _consume(channel, RESULTS, on_result)


async def _consume(
    channel: AbstractChannel, name: str, handle: Callable[[AbstractIncomingMessage], Awaitable[Any]]
) -> None:
    kind = os.environ["ORCHESTRATOR_QUEUE_TYPE"]
    queue = await channel.declare_queue(name, durable=True, arguments={"x-queue-type": kind})
    await queue.consume(handle)


def _message(process_id: int, step: int) -> aio_pika.Message:
    body = json.dumps({"process_id": process_id, "step": step, "state": {"counter": step}}).encode()
    return aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT, content_type="application/json")


async def _no_reset(_: Connection) -> None:
    """Without this asyncpg would send one more query each time a connection goes back to the pool."""


async def _run(role: Callable[[Pool, AbstractChannel], Awaitable[None]]) -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    dsn = os.environ["ORCHESTRATOR_DATABASE_URL"].replace("+asyncpg", "")
    pool: Pool = await asyncpg.create_pool(dsn, min_size=CONNECTIONS, max_size=CONNECTIONS, reset=_no_reset)
    connection: AbstractConnection = await aio_pika.connect(os.environ["ORCHESTRATOR_AMQP_URL"])
    channel = await connection.channel(publisher_confirms=True)
    await channel.set_qos(prefetch_count=PREFETCH)
    await role(pool, channel)
    await stopping.wait()
    await connection.close()
    await pool.close()


if __name__ == "__main__":
    uvloop.run(_run({"coordinator": coordinator, "consumer": consumer}[sys.argv[1]]))
