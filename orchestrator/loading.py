"""Import a project's modules in a thread, so that signals end a program whose import takes long or never ends."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import Callable

import structlog

from orchestrator.diagnostics import read_stack

logger = structlog.get_logger(__name__)

SLOW_AFTER = 10.0
"""Seconds after which an import is reported that is not over, and then again."""


async def load_in_thread(load: Callable[[], None], stopping: asyncio.Event) -> bool:
    """Call a function that imports modules, and return whether it has ended before the program is to stop.

    Raises:
        BaseException: what the function has raised.
    """
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    raised: list[BaseException] = []

    def call() -> None:
        try:
            load()
        except BaseException as error:
            raised.append(error)
        with contextlib.suppress(RuntimeError):  # the loop is closed: the program has not waited
            loop.call_soon_threadsafe(ended.set)

    thread = threading.Thread(target=call, name="import")
    thread.start()
    signalled = asyncio.create_task(stopping.wait())
    finished = asyncio.create_task(ended.wait())
    try:
        while not (finished.done() or signalled.done()):
            await asyncio.wait({finished, signalled}, timeout=SLOW_AFTER, return_when=asyncio.FIRST_COMPLETED)
            if not finished.done():
                report = logger.info if signalled.done() else logger.warning
                report("the modules of ORCHESTRATOR_WORKFLOWS are still being imported", at=_find_place(thread))
    finally:
        finished.cancel()
        signalled.cancel()
    if raised:
        raise raised[0]
    return ended.is_set()


def _find_place(thread: threading.Thread) -> str | None:
    frame = None if thread.ident is None else sys._current_frames().get(thread.ident)  # noqa: SLF001 - documented
    return read_stack(frame).at
