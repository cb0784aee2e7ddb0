"""What a program writes when nobody reads it, when the disk is full, and when it ends."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from orchestrator import streams
from orchestrator.streams import GuardedStream, Lines


class Disk:
    """Takes what is written to a descriptor, unless it is full."""

    def __init__(self) -> None:
        self.written = b""
        self.room: int | None = None

    def write(self, _: int, data: memoryview) -> int:
        if self.room is not None:
            if not self.room:
                raise OSError(errno.ENOSPC, "No space left on device")
            data = data[: self.room]
            self.room -= len(data)
        self.written += bytes(data)
        return len(data)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    found = Disk()
    monkeypatch.setattr("orchestrator.streams.os.write", found.write)
    return found


def written(lines: Lines, *texts: str) -> None:
    """Write lines, and wait until that is done."""
    for one in texts:
        lines.write(f"{one}\n".encode())
    assert lines.flush(60)


def test_lines_come_out_in_order_however_many_write() -> None:
    reader, writer = os.pipe()
    lines = Lines(writer)

    def write(name: int) -> None:
        for number in range(500):
            lines.write(f"{name} {number}\n".encode())

    threads = [threading.Thread(target=write, args=(name,)) for name in range(4)]
    for one in threads:
        one.start()
    with os.fdopen(reader) as file:
        found = [tuple(map(int, file.readline().split())) for _ in range(2000)]
    for one in threads:
        one.join()
    assert all([number for name, number in found if name == wanted] == [*range(500)] for wanted in range(4))
    assert lines.flush(60)
    assert lines.total_lost == 0
    os.close(writer)


def test_a_full_disk_raises_nothing_and_the_first_line_after_it_is_followed_by_a_count(disk: Disk) -> None:
    lines = Lines(2)
    written(lines, "one")
    disk.room = 0
    written(lines, "two", "three")
    assert lines.total_lost == 2
    disk.room = None
    written(lines, "four", "five")
    told = "2 lines were lost here: No space left on device"
    assert disk.written.decode().splitlines() in (["one", "four", told, "five"], ["one", "four", "five", told])
    assert lines.total_lost == 2


def test_half_a_line_is_ended_before_the_next(disk: Disk) -> None:
    lines = Lines(2)
    disk.room = 3
    written(lines, "begun")
    disk.room = None
    written(lines, "whole")
    assert disk.written.decode().splitlines() == ["beg", "whole", "1 lines were lost here: No space left on device"]


def test_a_count_that_cannot_be_written_is_written_later(disk: Disk) -> None:
    lines = Lines(2)
    disk.room = 0
    written(lines, "one")
    disk.room = len("two\n")
    written(lines, "two")
    disk.room = None
    written(lines, "three")
    assert disk.written.decode().splitlines()[-1] == "1 lines were lost here: No space left on device"
    assert lines.total_lost == 1


def test_a_pipe_that_nobody_reads_costs_memory_up_to_a_limit_and_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "LIMIT", 1000)
    reader, writer = os.pipe()
    fill(writer)
    lines = Lines(writer)
    for number in range(100):
        lines.write(f"line {number:034}\n".encode())
    assert lines.total_lost == 75
    assert not lines.flush(0.01)
    os.set_blocking(reader, True)
    with os.fdopen(reader) as file:
        assert file.readline().rstrip("\n").strip("x") in ("", f"line {0:034}")
        rest = [file.readline() for _ in range(25)]
    assert "75 lines were lost here: nobody reads it\n" in rest
    assert lines.flush(60)
    os.close(writer)


def fill(writer: int) -> None:
    """Fill a pipe."""
    os.set_blocking(writer, False)
    try:
        while os.write(writer, b"x" * 4096):
            pass
    except BlockingIOError:
        os.set_blocking(writer, True)


def test_a_fork_begins_anew_and_its_parent_writes_what_waited() -> None:
    reader, writer = os.pipe()
    lines = Lines(writer)
    lines.write(b"before\n")
    lines.end_thread()  # a test's process has no other thread when it forks
    child = os.fork()
    if not child:
        lines.write(b"in the fork\n")
        os._exit(0 if lines.flush(60) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    lines.write(b"after\n")
    assert lines.flush(60)
    os.close(writer)
    with os.fdopen(reader) as file:
        assert file.read() == "before\nin the fork\nafter\n"


@pytest.mark.parametrize("end", ["flush", "end_thread"])
def test_lines_gather_after_one_that_came_alone_and_who_waits_for_them_waits_for_nothing_else(
    monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    monkeypatch.setattr(streams, "LINGER", 3600)
    reader, writer = os.pipe()
    lines = Lines(writer)
    with os.fdopen(reader) as file:
        lines.write(b"alone\n")
        assert file.readline() == "alone\n"
        lines.write(b"second\n")
        lines.write(b"third\n")
        getattr(lines, end)()
        assert [file.readline(), file.readline()] == ["second\n", "third\n"]
        lines.end_thread()
    os.close(writer)


PROGRAM = """
import logging, os, sys
import structlog
from orchestrator.log import configure_logging
from orchestrator.forked import end_process
from orchestrator.streams import guard_streams

guard_streams()
configure_logging("json", "info")
structlog.get_logger("engine").info("a line of structlog's")
logging.getLogger("library").warning("a line of %s", "logging's")
print("a line of print's", file=sys.stderr)
sys.stdout.write("half a line")
{end}
"""


def program(end: str = "") -> list[str]:
    """Return the command that runs the program, which ends in this way."""
    return [sys.executable, "-c", PROGRAM.format(end=end)]


@pytest.mark.parametrize("end", ["", "end_process(0)"], ids=["the end", "at once"])
def test_everything_is_written_before_a_program_ends(end: str) -> None:
    outcome = subprocess.run(program(end), capture_output=True, text=True, check=True)
    first, second, third = outcome.stderr.splitlines()
    assert [json.loads(one)["event"] for one in (first, second)] == ["a line of structlog's", "a line of logging's"]
    assert third == "a line of print's"
    assert outcome.stdout == "half a line"


def test_what_cannot_be_written_changes_no_exit_code() -> None:
    with Path("/dev/full").open("wb") as full:
        assert subprocess.run(program(), stdout=full, stderr=full, check=False).returncode == 0


def test_a_pipe_that_nobody_reads_keeps_no_program_from_ending() -> None:
    reader, writer = os.pipe()
    fill(writer)
    assert subprocess.run(program(), stdout=writer, stderr=writer, check=False, timeout=60).returncode == 0
    os.close(writer)
    os.close(reader)


def test_a_guarded_stream_is_a_text_stream(disk: Disk) -> None:
    with Path(os.devnull).open("w", encoding="utf-8") as file:
        lines = Lines(file.fileno())
        stream = GuardedStream(lines, file)
        print("one", 2, file=stream)
        stream.buffer.write(b"three\n")
        stream.flush()
        assert lines.flush(60)
        assert disk.written == b"one 2\nthree\n"
        assert stream.fileno() == file.fileno()
        assert not stream.isatty()
