"""Threads for plain functions: as many as allowed, and others in place of those whose function does not end."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from orchestrator.threads import Threads


def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.001)


@pytest.fixture
def release() -> Iterator[threading.Event]:
    made = threading.Event()
    yield made
    made.set()


def test_no_more_functions_run_at_once_than_there_may_be_threads(release: threading.Event) -> None:
    with Threads("test", 2) as threads:
        entered = threading.Semaphore(0)

        def work() -> None:
            entered.release()
            release.wait(60)

        several = [threads.submit(work) for _ in range(3)]
        assert entered.acquire(timeout=60)
        assert entered.acquire(timeout=60)
        assert not several[2].running()
        release.set()
        assert [one.result(60) for one in several] == [None] * 3


def test_a_thread_that_has_nothing_to_do_takes_the_next_function() -> None:
    with Threads("test", 5) as threads:
        assert len({threads.submit(threading.get_ident).result(60) for _ in range(20)}) <= 5


def test_what_a_function_raises_is_the_result() -> None:
    with Threads("test", 1) as threads, pytest.raises(SystemExit):
        threads.submit(sys.exit, 3).result(60)


def test_others_take_the_place_of_threads_that_are_left_behind_up_to_a_limit(release: threading.Event) -> None:
    with Threads("test", 1, spare=2) as threads:
        hanging = [threads.submit(release.wait, 60) for _ in range(3)]
        for number, one in enumerate(hanging[:2], start=1):
            until(one.running)
            threads.leave_behind(one)
            assert threads.left_behind == number
        until(hanging[2].running)
        threads.leave_behind(hanging[2])
        last = threads.submit(lambda: "ran")
        assert threads.left_behind == 3
        assert not last.running()
        release.set()
        assert last.result(60) == "ran"
        until(lambda: threads.left_behind == 0)
        assert threads.submit(lambda: "again").result(60) == "again"


def test_one_that_has_ended_is_not_left_behind() -> None:
    with Threads("test", 1) as threads:
        ended = threads.submit(lambda: None)
        ended.result(60)
        threads.leave_behind(ended)
        assert threads.left_behind == 0


def test_a_cancelled_function_never_begins(release: threading.Event) -> None:
    with Threads("test", 1) as threads:
        threads.submit(release.wait, 60)
        waiting = threads.submit(lambda: "ran")
        assert waiting.cancel()
        release.set()
        assert threads.submit(lambda: "next").result(60) == "next"


def test_after_the_shutdown_nothing_begins(release: threading.Event) -> None:
    threads = Threads("test", 1)
    running = threads.submit(release.wait, 60)
    waiting = threads.submit(lambda: "ran")
    until(running.running)
    threads.shutdown(cancel_futures=True)
    assert waiting.cancelled()
    with pytest.raises(RuntimeError, match="'test' take no more functions"):
        threads.submit(lambda: None)
    release.set()
    assert running.result(60)


def test_a_program_ends_although_a_function_sleeps() -> None:
    program = "import time; from orchestrator.threads import Threads; Threads('x', 1).submit(time.sleep, 3600)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
