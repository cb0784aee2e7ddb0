"""What an event costs the program that publishes it, beside the client library's own way, in turn in one run.

    scripts/services up; eval "$(scripts/services env)"
    .venv/bin/python -m tests.benchmarks.events

Events of many processes are published side by side, those of one process one after the other, each after the confirm of the
one before. First nobody is bound to them, then a queue is, which keeps one of them. "One by one" is what a coordinator did
before it left out what nobody is bound to. Processor time, not the clock: of all figures it suffers least from what else
the machine does.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import cast
from uuid import uuid4

import aio_pika
import uvloop

from orchestrator.broker import outgoing
from orchestrator.broker.connection import BrokerAddress, raw_channel
from orchestrator.broker.frames import build_properties
from orchestrator.broker.outgoing import Outgoing
from orchestrator.broker.publisher import Publisher
from orchestrator.broker.topology import Exchanges, Topology
from orchestrator.coordinator.announcer import Announcer
from orchestrator.db.session import DriverPool
from orchestrator.messages import Advanced, LoggedEntry
from orchestrator.services.results import event_key
from tests.servers import NoServersError, Servers, drop_vhost, make_vhost

STEPS = 10
Publish = Callable[[Outgoing], Awaitable[object]]
Way = Callable[[Advanced], Awaitable[object]]


def build_message(steps: int = STEPS) -> Advanced:
    """Return what a consumer sends about so many steps of a process."""
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
        for number in range(1, steps + 1)
    ]
    return Advanced(
        process_id=uuid4(),
        workflow="bench",
        target="SYSTEM",
        is_task=False,
        status="running",
        sequence=3 + steps,
        user="benchmark",
        at=datetime.now(UTC),
        announced=3,
        entries=entries,
    )


async def play(way: Way, messages: Iterator[Advanced], at_once: int) -> None:
    """Settle the events of messages, so many processes at once."""

    async def follow() -> None:
        for message in messages:
            await way(message)

    await asyncio.gather(*(follow() for _ in range(at_once)))


def one_by_one(publish: Publish | None) -> Way:
    """Return the way in which each event is published; without ``publish`` it is only built."""

    async def way(message: Advanced) -> None:
        for entry in message.entries:
            built = outgoing.event(event_key(message, entry), message, entry)
            if publish is not None:
                await publish(replace(built, mandatory=False))

    return way


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

            async def by_library(message: Outgoing) -> None:
                await channel.basic_publish(
                    message.body,
                    exchange=message.exchange,
                    routing_key=message.routing_key,
                    properties=build_properties(message, uuid4().hex),
                    wait=False,
                    timeout=60,
                )

            announcer = Announcer(publisher, cast("DriverPool", None))  # it writes no marks here
            ways: dict[str, Way] = {
                "the client library": one_by_one(by_library),
                "one by one": one_by_one(publisher.publish),
                "the announcer": announcer.announce,
                "building alone": one_by_one(None),
            }
            for is_bound in (False, True):
                if is_bound:
                    await channel.queue_declare("reader", arguments={"x-max-length": 1})
                    await channel.queue_bind("reader", Exchanges.EVENTS, "#")
                for steps in options.steps:
                    for at_once in options.at_once:
                        print(f"{'a queue is bound' if is_bound else 'nobody is bound'}, ", end="")
                        await _compare(ways, publisher, at_once, steps, options)
        await publisher.close()
    finally:
        drop_vhost(servers, name)


async def _compare(
    ways: dict[str, Way], publisher: Publisher, at_once: int, steps: int, options: argparse.Namespace
) -> None:
    found: dict[str, list[float]] = {name: [] for name in ways}
    sent: dict[str, int] = {}
    for _ in range(options.reps):
        for name, way in ways.items():
            messages = iter([build_message(steps) for _ in range(max(1, options.events // steps))])
            before = publisher.sent
            began = time.process_time()
            await play(way, messages, at_once)
            found[name].append((time.process_time() - began) / options.events * 1000)
            sent[name] = round((publisher.sent - before) / options.events * 1000)
    print(f"{at_once} processes at once, {steps} entries a message, CPU s for 1,000 (medians of {options.reps}):")
    base = found["one by one"]
    for name, times in found.items():
        ratio = statistics.median(one / other for one, other in zip(times, base, strict=True))
        print(f"  {name:20} {statistics.median(times):.4f}  {ratio:.2f} of one by one; {sent[name]} published")


def main() -> None:
    """Read the command line and run."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--events", type=int, default=5000, help="in each turn (default 5,000)")
    found.add_argument("--at-once", type=int, nargs="*", default=[1, 30], help="processes (default 1 and 30)")
    found.add_argument("--steps", type=int, nargs="*", default=[1, 10], help="entries a message (default 1 and 10)")
    found.add_argument("--reps", type=int, default=5)
    uvloop.run(run(found.parse_args()))


if __name__ == "__main__":
    main()
