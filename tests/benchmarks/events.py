"""What an event costs the program that publishes it, beside the client library's own way, in turn in one run.

    scripts/services up; eval "$(scripts/services env)"
    .venv/bin/python -m tests.benchmarks.events

Events of many processes are published side by side, those of one process one after the other, each after the confirm of the
one before. Nobody is bound to them, so the broker does as little as it can. Processor time, not the clock: of all figures it
suffers least from what else the machine does.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from uuid import uuid4

import aio_pika
import uvloop

from orchestrator.broker import outgoing
from orchestrator.broker.connection import BrokerAddress, raw_channel
from orchestrator.broker.frames import build_properties
from orchestrator.broker.outgoing import Outgoing
from orchestrator.broker.publisher import Publisher
from orchestrator.broker.topology import Topology
from orchestrator.messages import Advanced, LoggedEntry
from orchestrator.services.results import build_event, event_key
from tests.servers import NoServersError, Servers, drop_vhost, make_vhost

STEPS = 10
Publish = Callable[[Outgoing], Awaitable[object]]


def build_message() -> Advanced:
    """Return what a consumer sends about ten steps."""
    entries = [
        LoggedEntry(
            sequence=3 + number,
            kind="step",
            name=f"Step {number}",
            status="success",
            attempt=number,
            author="benchmark",
            position=number,
        )
        for number in range(1, STEPS + 1)
    ]
    return Advanced(
        process_id=uuid4(),
        workflow="bench",
        target="SYSTEM",
        is_task=False,
        status="running",
        sequence=3 + STEPS,
        user="benchmark",
        at=datetime.now(UTC),
        announced=3,
        entries=entries,
    )


async def play(publish: Publish | None, messages: Iterator[Advanced], at_once: int) -> None:
    """Publish the events of messages, so many processes at once; without ``publish`` only build them."""

    async def follow() -> None:
        for message in messages:
            for entry in message.entries:
                built = outgoing.event(event_key(message, entry), build_event(message, entry))
                if publish is not None:
                    await publish(built)

    await asyncio.gather(*(follow() for _ in range(at_once)))


async def run(options: argparse.Namespace) -> None:
    """Measure each way in turn, and print CPU seconds for 1,000 events."""
    try:
        servers = Servers.from_environment()
    except NoServersError as error:
        sys.exit(f"events: {error}")
    name = f"orchestrator_events_{uuid4().hex[:8]}"
    make_vhost(servers, name)
    try:
        publisher = Publisher(BrokerAddress(servers.amqp_url(name), "benchmark", 60), Topology(), 60)
        await publisher.check()
        await publisher.open()
        async with await aio_pika.connect(servers.amqp_url(name)) as connection:
            channel = await raw_channel(await connection.channel(publisher_confirms=True))

            async def one_by_one(message: Outgoing) -> None:
                await channel.basic_publish(
                    message.body,
                    exchange=message.exchange,
                    routing_key=message.routing_key,
                    properties=build_properties(message, uuid4().hex),
                    wait=False,
                    timeout=60,
                )

            ways: dict[str, Publish | None] = {
                "the client library": one_by_one,
                "the publisher": publisher.publish,
                "building alone": None,
            }
            for at_once in options.at_once:
                await _compare(ways, at_once, options)
        await publisher.close()
    finally:
        drop_vhost(servers, name)


async def _compare(ways: dict[str, Publish | None], at_once: int, options: argparse.Namespace) -> None:
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.reps):
        for name, publish in ways.items():
            messages = iter([build_message() for _ in range(max(1, options.events // STEPS))])
            began = time.process_time()
            await play(publish, messages, at_once)
            found[name].append((time.process_time() - began) / options.events * 1000)
    print(f"{at_once} processes at once, CPU s for 1,000 events (medians of {options.reps}):")
    first = next(iter(found.values()))
    for name, times in found.items():
        ratio = statistics.median(one / base for one, base in zip(times, first, strict=True))
        print(f"  {name:20} {statistics.median(times):.3f}  {ratio:.2f}")


def main() -> None:
    """Read the command line and run."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--events", type=int, default=5000, help="in each turn (default 5,000)")
    found.add_argument("--at-once", type=int, nargs="*", default=[1, 30, 300], help="processes (default 1, 30 and 300)")
    found.add_argument("--reps", type=int, default=5)
    uvloop.run(run(found.parse_args()))


if __name__ == "__main__":
    main()
