"""A program whose threads are used up stops by itself, with an exit code of its own."""

from __future__ import annotations

import asyncio
import os
import threading

from structlog.testing import capture_logs

from orchestrator import user_code
from orchestrator.runtime import ending_with, run_program
from orchestrator.stopping import Stopping
from orchestrator.threads import Threads
from orchestrator.user_code import OVERDUE


def test_a_program_ends_by_itself_when_no_further_thread_would_be_replaced() -> None:
    released = threading.Event()
    threads = Threads("hook", 2, spare=2)
    still_running: list[bool] = []

    async def program(stopping: asyncio.Event) -> None:
        with ending_with(threads, stopping):
            for number in (1, 2):
                still_running.append(not stopping.is_set())
                # A thread that has not begun in time is not left behind: on a busy machine once more.
                while threads.left_behind < number:
                    outcome = await user_code.run(
                        lambda: released.wait(60), is_async=False, seconds=0.01, what="the form of 'w'", threads=threads
                    )
                    assert outcome is OVERDUE
            async with asyncio.timeout(60):
                await stopping.wait()

    try:
        with capture_logs() as logged:
            assert run_program(program, 1) == os.EX_TEMPFAIL
    finally:
        released.set()
    assert still_running == [True, True]
    ends = [one for one in logged if one["event"].startswith("the program ends, for its supervisor")]
    assert [(one["log_level"], one["threads_left_behind"]) for one in ends] == [("error", 2)]


def test_a_program_that_was_told_to_stop_keeps_its_exit_code_whatever_its_threads_do() -> None:
    async def program(stopping: asyncio.Event) -> None:
        stopping.set()
        threads = Threads("hook", 1, spare=0)
        with ending_with(threads, stopping):
            released = threading.Event()
            threads.leave_behind(threads.submit(released.wait, 60))
            released.set()

    assert run_program(program, 1) == 0
    assert Stopping().exit_code == 0
