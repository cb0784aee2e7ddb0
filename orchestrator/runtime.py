"""Run a program: open its servers, stop on signals, and leave although a thread still runs."""

from __future__ import annotations

import _thread
import asyncio
import importlib.util
import logging
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any
from uuid import UUID, uuid4

import structlog

from orchestrator.broker.connection import BrokerAddress
from orchestrator.broker.publisher import Publisher
from orchestrator.broker.topology import Topology
from orchestrator.db.session import Database
from orchestrator.diagnostics import read_waiting
from orchestrator.forked import end_children, end_process, guard_forks
from orchestrator.hosts import session_name
from orchestrator.settings import Settings
from orchestrator.stopping import Stopping, raise_if_cancelled, wait_or_stop
from orchestrator.threads import Threads
from orchestrator.watchdog import LoopWatch, request_stop, watch_loop

logger = structlog.get_logger(__name__)

Program = Callable[[asyncio.Event], Coroutine[Any, Any, None]]
"""Runs until the event is set, then finishes what has begun."""

USED_UP = os.EX_TEMPFAIL
"""The exit code of a program that has ended by itself because too many of its threads run functions that do not end."""

SLOW_START = 20.0
"""Seconds after which a program that starts says what it waits for; on a machine that is not busy it takes one."""

CLOSING = 18.0
"""Seconds beyond the grace of running work in which a program has given back its work and closed its connections."""

THREADS_GRACE = 1.0
"""Seconds that the event loop's threads get to end; idle ones need none."""


@dataclass(frozen=True, slots=True)
class Servers:
    """The servers of one program, known to work, and the watch of its event loop."""

    address: BrokerAddress
    topology: Topology
    database: Database
    publisher: Publisher
    watch: LoopWatch
    started: Callable[[], None]
    """To be called when the program has begun its work."""
    program_id: UUID
    """The id of the consumer, if it is one: the sessions of its steps carry it."""


@asynccontextmanager
async def open_servers(
    settings: Settings, name: str, step_queues: Iterable[str] = (), *, require_broker: bool = True
) -> AsyncIterator[Servers]:
    """Open the servers of a long-running program; the caller runs the publisher.

    Args:
        step_queues: those that it reads. Its database connections are shared among them, and it has one for each at least.
            A program that reads none answers requests: half of its connections are for those that call user code.
        require_broker: whether a broker that cannot be used ends the program, because it can do nothing without it.

    Raises:
        ConfigurationError, ServerUnavailableError: one of them cannot be used; the text is one line.
    """
    address = BrokerAddress.of(settings, f"orchestrator {name}")
    queues = set(step_queues)
    topology = Topology.of(settings.queue_type, queues)
    # Two at least: of one, a workflow whose code hangs would take all.
    for_authors = 0 if queues else max(2, settings.database_pool_size // 2)
    size = max(2, settings.database_pool_size - for_authors, len(queues))
    program_id = uuid4()
    own_name = session_name(name, program_id if queues else None)
    database = Database.of(settings, own_name, size, author_connections=for_authors)
    database.share(queues)
    started = asyncio.Event()
    starting = asyncio.create_task(_report_slow_start(name, started))
    try:
        await database.open()
        await database.require_tables()
        publisher = Publisher(address, topology, settings.publish_timeout)
        if require_broker:
            await publisher.check()
        with watch_loop() as watch:
            stopping = asyncio.Event()
            watching = asyncio.create_task(database.watch(stopping))
            try:
                raise_if_cancelled()
                yield Servers(address, topology, database, publisher, watch, started.set, program_id)
            finally:
                stopping.set()
                watching.cancel()  # it may be waiting for the server
                await asyncio.wait({watching})
    finally:
        starting.cancel()
        await database.close()


async def run_together(programs: Iterable[Coroutine[Any, Any, None]], stopping: asyncio.Event) -> None:
    """Run programs side by side until all have ended; when one fails, end the others and raise its error.

    The others are cancelled, and ``stopping`` is set as well: a cancellation may be swallowed, see :func:`raise_if_cancelled`.
    """

    async def run(program: Coroutine[Any, Any, None]) -> None:
        try:
            await program
        except BaseException:
            stopping.set()
            raise

    async with asyncio.TaskGroup() as tasks:
        for program in programs:
            tasks.create_task(run(program))


async def _report_slow_start(name: str, started: asyncio.Event) -> None:
    """Log what a program waits for that has not started after a while, and again at growing intervals."""
    waited = 0.0
    while not await wait_or_stop(max(waited, SLOW_START), started):
        waited += max(waited, SLOW_START)
        logger.warning("still starting", program=name, seconds=waited, waiting=read_waiting(asyncio.get_running_loop()))


@contextmanager
def ending_with(threads: Threads, stopping: asyncio.Event) -> Iterator[None]:
    """Stop the program with :data:`USED_UP` when too many of its threads run functions that do not end."""

    def end() -> None:
        if not stopping.is_set():
            stopping.set()
            if isinstance(stopping, Stopping):
                stopping.exit_code = USED_UP
            logger.error(
                "the program ends, for its supervisor to start another one: too many functions go on after their end",
                threads_left_behind=threads.left_behind,
                exit_code=USED_UP,
            )

    threads.when_used_up(end)
    try:
        yield
    finally:
        threads.when_used_up(None)


def run_program(program: Program, grace: float) -> int:
    """Run a program on an event loop of its own until it stops by itself, or a signal stops it; return its exit code.

    The signals are SIGTERM and SIGINT; a second one ends the process at once.

    Args:
        grace: seconds that running work gets after a signal. Whatever hangs then, the process ends soon after.
    """
    runner = asyncio.Runner(loop_factory=find_loop_factory())
    try:
        return runner.run(_run_until_signalled(program, grace))
    finally:
        # Closing the loop waits for its threads, one with a form that never ends among them.
        if runner.run(_end_threads()):
            runner.close()
        end_children()


def leave(code: int) -> None:
    """End the process with this code at once if a thread still runs, because the interpreter would wait for it."""
    if any(one is not threading.main_thread() and not one.daemon for one in threading.enumerate()):
        logging.shutdown()
        end_process(code)


async def _run_until_signalled(program: Program, grace: float) -> int:
    stopping = Stopping()
    ended = threading.Event()
    loop = asyncio.get_running_loop()

    received: list[int] = []

    def stop(name: str) -> None:
        stopping.set()  # first: a log that cannot be written must not keep the program running
        logger.info("stopping; a second signal ends the program at once", signal=name)

    # Not the event loop's own handlers: a loop that is blocked would never call them, not for a second signal either.
    def receive(number: int, _: FrameType | None) -> None:
        if received:
            end_process(128 + number)
        received.append(number)
        # Not by threading: this may have interrupted what holds a lock there.
        _thread.start_new_thread(_end_late, (ended, grace + CLOSING, loop))
        request_stop(loop)
        loop.call_soon_threadsafe(stop, signal.Signals(number).name)

    before = {number: signal.signal(number, receive) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with guard_forks():
            await program(stopping)
    finally:
        ended.set()
        for number, handler in before.items():
            signal.signal(number, handler)
    return stopping.exit_code


def _end_late(ended: threading.Event, seconds: float, loop: asyncio.AbstractEventLoop) -> None:
    """End the process if the program has not ended after this time."""
    if not ended.wait(seconds):
        try:
            logger.critical(
                "not ended in time after the signal; the process ends now", seconds=seconds, waiting=read_waiting(loop)
            )
        finally:
            end_process(os.EX_SOFTWARE)


async def _end_threads() -> bool:
    """Make the threads of the event loop end; return whether they do so in time."""
    # Not with wait_for: when it is cancelled, the shutdown waits for its threads all the same.
    ending = asyncio.create_task(asyncio.get_running_loop().shutdown_default_executor())
    await asyncio.wait({ending}, timeout=THREADS_GRACE)
    return ending.done()


def find_loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's, where it is installed."""
    if importlib.util.find_spec("uvloop") is None:
        return None
    import uvloop

    return uvloop.new_event_loop
