"""How a program leaves its event loop."""

from __future__ import annotations

import asyncio
import threading

import pytest
from structlog.testing import capture_logs

from orchestrator import runtime
from orchestrator.api.program import bind, bind_default
from orchestrator.cli import programs


async def test_idle_threads_of_the_event_loop_end_and_let_it_be_closed() -> None:
    await asyncio.to_thread(threading.get_ident)

    assert await runtime._end_threads()


async def test_a_thread_that_never_ends_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "THREADS_GRACE", 0.1)
    ending = threading.Event()
    waiting = asyncio.get_running_loop().run_in_executor(None, ending.wait)

    try:
        assert not await runtime._end_threads()
    finally:
        ending.set()  # or the test's own loop would wait for the thread
        await waiting


def test_of_all_programs_dev_alone_shows_the_tracebacks_of_failed_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def run(_: object, *, tracebacks: bool = False) -> None:
        asked.append(tracebacks)

    monkeypatch.setattr(programs, "run", run)
    programs.dev()
    programs.consumer()
    programs.coordinator()
    assert asked == [True, False, False]


def test_the_api_for_development_says_that_its_port_is_in_use_and_which_it_has() -> None:
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with capture_logs() as logs, bind_default("127.0.0.1", port) as listener:
            address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    assert [(one["log_level"], one["port"], one["address"]) for one in logs] == [("warning", port, address)]
