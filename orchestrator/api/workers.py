"""Serve one address with several processes: more cores for the API, and requests that go on when one of them dies."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import socket
import sys
from multiprocessing.process import BaseProcess
from typing import Final

import structlog

from orchestrator.api.exposure import check_exposure
from orchestrator.api.program import run_api
from orchestrator.errors import ServerUnavailableError
from orchestrator.log import configure_logging
from orchestrator.metrics import address_of_worker
from orchestrator.runtime import leave, run_program
from orchestrator.settings import Settings
from orchestrator.streams import guard_streams

logger = structlog.get_logger(__name__)

RESTARTS: Final = 3
"""Workers that may end by themselves before they have served for :data:`STEADY` seconds: then the program gives up."""

STEADY: Final = 10.0


async def run_workers(settings: Settings, stopping: asyncio.Event, listener: socket.socket, count: int) -> None:
    """Run this many workers on a listening socket until ``stopping`` is set; replace those that die.

    Raises:
        ConfigurationError: the address can be reached by others, and the settings do not say that this is right.
        ServerUnavailableError: workers end by themselves again and again; their own log lines say why.
    """
    check_exposure(settings, listener)
    # Not forked: a child would share this one's event loop, threads and connections.
    start = multiprocessing.get_context("spawn").Process
    failures = 0
    loop = asyncio.get_running_loop()

    async def keep_one(number: int) -> None:
        nonlocal failures
        # What each counts is its own: Prometheus asks them one by one.
        address = address_of_worker(settings.metrics_address, number)
        own = settings.model_copy(update={"metrics_address": address})
        while not stopping.is_set():
            began = loop.time()
            worker = start(target=_work, args=(own, listener), daemon=False)
            worker.start()
            logger.info("API worker started", pid=worker.pid)
            await _wait(worker, stopping)
            if stopping.is_set():
                return
            failures = 0 if loop.time() - began > STEADY else failures + 1
            logger.warning("an API worker has ended and is replaced", pid=worker.pid, exit_code=worker.exitcode)
            if failures > RESTARTS:
                raise ServerUnavailableError("workers of the API end by themselves, see their log lines above")

    async with asyncio.TaskGroup() as tasks:
        for number in range(count):
            tasks.create_task(keep_one(number))


async def _wait(worker: BaseProcess, stopping: asyncio.Event) -> None:
    """Wait for the end of a worker; ask it to end when the program stops."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(worker.sentinel, ended.set)
    waiting = [asyncio.create_task(one.wait()) for one in (ended, stopping)]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if not ended.is_set():
            worker.terminate()
            await ended.wait()
    except BaseException:
        worker.kill()
        raise
    finally:
        loop.remove_reader(worker.sentinel)
        for one in waiting:
            one.cancel()
    worker.join()


def _work(settings: Settings, listener: socket.socket) -> None:
    # Ctrl-C goes to a whole group. The parent passes it on, and a second signal would end the worker at once.
    os.setsid()
    guard_streams()
    configure_logging(settings.log_format, settings.log_level, settings.log_levels)
    code = run_program(lambda stopping: _serve(settings, stopping, listener), settings.drain_grace)
    leave(code)
    sys.exit(code)


async def _serve(settings: Settings, stopping: asyncio.Event, listener: socket.socket) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None  # noqa: S101 - a worker is started by one
    loop = asyncio.get_running_loop()
    # Readable once the parent has died, in whatever way.
    loop.add_reader(parent.sentinel, stopping.set)
    try:
        await run_api(settings, stopping, listener)
    finally:
        loop.remove_reader(parent.sentinel)
