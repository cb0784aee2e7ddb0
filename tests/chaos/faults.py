"""The faults, and their timeline: which comes when follows from a number alone."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

import aio_pika

from tests.acceptance.client import BROKER_AWAY
from tests.acceptance.proxy import BOTH, Direction, Proxy
from tests.chaos.audit import Recorder
from tests.chaos.world import KINDS, STARTS, Slot, World

INTERNAL = ("orchestrator.steps.default", "orchestrator.results")
"""Queues whose messages the engine brings back from its rows, so that they may be lost."""
DOUBLED = (*INTERNAL, "orchestrator.commands", "orchestrator.callbacks")
AT_ONCE = 8


@dataclass(frozen=True)
class Fault:
    """One fault.

    Args:
        at: seconds after the begin.
        which: the number of the program that it meets, if it meets one.
        seconds: how long it lasts, if it lasts.
        chance: a number between 0 and 1 that decides what else there is to decide.
    """

    at: float
    kind: str
    which: int
    seconds: float
    chance: float

    def __str__(self) -> str:
        return f"{self.kind} (program {self.which + 1}, {self.seconds:.1f} s, {self.chance:.3f})"


class Faults:
    """Carries faults out, several at once."""

    def __init__(self, world: World, recorder: Recorder) -> None:
        self._world, self._recorder = world, recorder
        self._threads = ThreadPoolExecutor(AT_ONCE, "fault")
        self._running: list[Future[None]] = []

    def run(self, timeline: list[Fault], seconds: float) -> None:
        """Carry out the timeline, and look after programs that end by themselves; return when every fault is over."""
        began = time.monotonic()
        for fault in timeline:
            self._wait_until(began + fault.at)
            self._running.append(self._threads.submit(self._carry_out, fault))
        self._wait_until(began + seconds)
        self._world.ended.set()
        for one in self._running:
            one.result()
        self._threads.shutdown()

    def _wait_until(self, moment: float) -> None:
        while (left := moment - time.monotonic()) > 0:
            for slot in self._world.slots:
                if slot.lock.acquire(blocking=False):
                    try:
                        self._world.watch(slot)
                    finally:
                        slot.lock.release()
            time.sleep(min(left, 0.3))

    def _carry_out(self, fault: Fault) -> None:
        self._world.say(str(fault))
        FAULTS[fault.kind][1](self, fault, self._world.slots[fault.which])
        self._world.done[fault.kind] += 1

    def _last(self, seconds: float) -> None:
        self._world.ended.wait(seconds)

    def kill(self, fault: Fault, slot: Slot) -> None:
        """End a program by SIGKILL, and start another after a while."""
        with slot.lock:
            slot.program.kill()
            self._last(fault.seconds)
            slot.start()

    def stop(self, fault: Fault, slot: Slot) -> None:
        """End a program by SIGTERM, and start another after a while."""
        with slot.lock:
            self._world.stop(slot)
            self._last(fault.seconds)
            slot.start()

    def freeze(self, fault: Fault, slot: Slot) -> None:
        """Stop a program by SIGSTOP, and let it go on after a while."""
        with slot.lock:
            slot.program.signal(signal.SIGSTOP)
            self._last(fault.seconds)
            slot.program.signal(signal.SIGCONT)

    def lose_log(self, fault: Fault, slot: Slot) -> None:
        """Run a program whose log cannot be written: it works as any other, and ends on SIGTERM."""
        with slot.lock:
            self._world.stop(slot)
            slot.start(with_log=False)
        self._last(fault.seconds + STARTS)
        with slot.lock:
            self._world.stop(slot)
            slot.start()

    def silence_database(self, fault: Fault, slot: Slot) -> None:
        """Swallow what goes to PostgreSQL or comes from it."""
        self._silence(fault, slot.database)

    def silence_broker(self, fault: Fault, slot: Slot) -> None:
        """Swallow what goes to RabbitMQ or comes from it."""
        self._silence(fault, slot.broker)

    def _silence(self, fault: Fault, proxy: Proxy) -> None:
        """Swallow what goes in both directions, or in one."""
        ways = [BOTH, frozenset({Direction.TO_SERVER}), frozenset({Direction.TO_CLIENT})]
        proxy.swallow(ways[int(fault.chance * len(ways))])
        self._last(fault.seconds)
        proxy.pass_on()

    def delay(self, fault: Fault, slot: Slot) -> None:
        """Pass on later what goes to one server and comes from it."""
        proxy = slot.database if fault.chance < 0.5 else slot.broker
        proxy.delay(0.02 + fault.chance * 0.2)
        self._last(fault.seconds)
        proxy.pass_on()

    def cut(self, fault: Fault, slot: Slot) -> None:
        """Reset all connections to one server, and refuse new ones for a while."""
        proxy = slot.database if fault.chance < 0.5 else slot.broker
        proxy.refuse()
        self._last(fault.seconds / 2)
        proxy.pass_on()

    def restart_database(self, fault: Fault, _: Slot) -> None:
        """Restart PostgreSQL, orderly or after a crash."""
        self._restart("postgres", fault)

    def restart_broker(self, fault: Fault, _: Slot) -> None:
        """Restart RabbitMQ, orderly or after a crash."""
        self._restart("rabbitmq", fault)

    def _restart(self, server: str, fault: Fault) -> None:
        with self._world.server_lock:
            self._world.pair.run("kill" if fault.chance < 0.5 else "stop", server)
            self._last(fault.seconds / 2)
            self._world.pair.run("start", server)

    def wipe_broker(self, _: Fault, __: Slot) -> None:
        """Take everything from the broker.

        No program publishes an event that only the broker has, and none before the recorder listens again: that
        would be lost to every listener, and nothing of ours could bring it back.
        """
        with self._world.server_lock:
            proxies = [slot.broker for slot in self._world.slots]
            for proxy in proxies:
                proxy.refuse()
            try:
                self._recorder.drain()
                self._world.pair.run("wipe", "rabbitmq")
                self._recorder.bind()
                self._world.store_declarations()
            finally:
                for proxy in proxies:
                    proxy.pass_on()

    def lose_messages(self, fault: Fault, _: Slot) -> None:
        """Empty a queue of the engine's own messages."""
        queue = INTERNAL[int(fault.chance * len(INTERNAL))]
        vhost = quote(urlsplit(self._world.engine.amqp_url).path[1:] or "/", safe="")
        try:
            self._world.servers.call("DELETE", f"queues/{vhost}/{quote(queue)}/contents")
        except OSError:
            self._world.say("no message was lost: the broker is away")

    def double_messages(self, fault: Fault, _: Slot) -> None:
        """Put what waits in a queue there twice."""
        queue = DOUBLED[int(fault.chance * len(DOUBLED))]
        try:
            self._world.done["message that was doubled"] += self._world.engine.background.run(
                double(self._world.engine.amqp_url, queue), 30
            )
        except BROKER_AWAY:
            self._world.say("no message was doubled: the broker is away")

    def deploy(self, fault: Fault, _: Slot) -> None:
        """Replace all programs by those with the other version of the code, one after the other."""
        self._world.deploy("old" if self._world.code == "new" else "new", lambda: self._last(fault.seconds / 10))


async def double(url: str, queue_name: str) -> int:
    """Put each message of a queue there twice, as a broker or a publisher may that is not sure; return how many."""
    number = 0
    connection = await aio_pika.connect(url, timeout=5)
    async with connection:
        channel = await connection.channel()
        queue = await channel.get_queue(queue_name, ensure=False)
        deadline = time.monotonic() + 2
        while number < 50 and time.monotonic() < deadline:
            message = await queue.get(fail=False, timeout=5)
            if message is None:
                await asyncio.sleep(0.02)
                continue
            copy = aio_pika.Message(
                message.body,
                headers={name: value for name, value in message.headers.items() if name != "x-delivery-count"},
                content_type=message.content_type,
                delivery_mode=message.delivery_mode,
                priority=message.priority,
                correlation_id=message.correlation_id,
                reply_to=message.reply_to,
                message_id=message.message_id,
                timestamp=message.timestamp,
                type=message.type,
                app_id=message.app_id,
            )
            # By the way it came: the key of a command says what it is.
            exchange = await channel.get_exchange(message.exchange or "", ensure=False)
            for _ in range(2):
                await exchange.publish(copy, message.routing_key or "", timeout=5)
            await message.ack()
            number += 1
    return number


FAULTS: dict[str, tuple[int, Callable[[Faults, Fault, Slot], None]]] = {
    "kill -9": (4, Faults.kill),
    "SIGTERM": (2, Faults.stop),
    "frozen": (3, Faults.freeze),
    "silent database": (2, Faults.silence_database),
    "silent broker": (2, Faults.silence_broker),
    "slow network": (1, Faults.delay),
    "connections cut": (2, Faults.cut),
    "messages lost": (2, Faults.lose_messages),
    "messages doubled": (2, Faults.double_messages),
    "database restarts": (1, Faults.restart_database),
    "broker restarts": (1, Faults.restart_broker),
    "broker wiped": (1, Faults.wipe_broker),
    "broken log": (1, Faults.lose_log),
    "deploy": (1, Faults.deploy),
}
"""Each kind of fault: how many there are in a bag of them, and what carries it out."""

EVERY = 2.4
"""Seconds between two faults, on the average: a bag of all of them lasts a minute."""


def plan(seed: int, seconds: float) -> list[Fault]:
    """Return the faults of a run, in order; the first is no sooner than the load runs."""
    chance = random.Random(seed)
    faults = []
    at, kinds = 2.0, _kinds(chance)
    while at < seconds:
        faults.append(
            Fault(at, next(kinds), chance.randrange(len(KINDS)), round(chance.uniform(0.2, 8), 1), chance.random())
        )
        at += chance.uniform(0.5, 1.5) * EVERY
    return faults


def _kinds(chance: random.Random) -> Iterator[str]:
    bag = [kind for kind, (number, _) in FAULTS.items() for _ in range(number)]
    while True:
        chance.shuffle(bag)
        yield from bag
