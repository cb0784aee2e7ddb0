"""Programs whose log cannot be written: the reader has gone, the disk is full, or nobody reads the pipe."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx
import pytest
from servers.system import choose_ports

from tests import forking
from tests.acceptance.conftest import MakeInstallation
from tests.acceptance.installation import Installation
from tests.acceptance.waiting import until
from tests.servers import NO_CERTIFICATES

STARTS = 20


@contextmanager
def full_disk() -> Iterator[int]:
    """Provide a file on a disk without space."""
    with Path("/dev/full").open("wb") as file:
        yield file.fileno()


@contextmanager
def reader_gone() -> Iterator[int]:
    """Provide a pipe whose reader has closed it."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@contextmanager
def reader_stuck() -> Iterator[int]:
    """Provide a pipe that is full, and that nobody reads."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        while os.write(writer, b"x" * 4096):
            pass
    except BlockingIOError:
        os.set_blocking(writer, True)
    yield writer
    os.close(writer)
    os.close(reader)


@pytest.mark.parametrize("broken", [full_disk, reader_gone, reader_stuck], ids=lambda one: str(one.__name__))
def test_programs_work_and_end_although_their_log_cannot_be_written(
    installations: MakeInstallation, broken: Callable[[], AbstractContextManager[int]]
) -> None:
    """No start is left without an answer, no step is lost, and one signal ends each program."""
    engine = installations()
    (port,) = choose_ports(1)
    with broken() as engine.errors:
        coordinator = engine.run("coordinator", "coordinator")
        consumer = engine.run("consumer", "consumer")
        api = engine.run("api", "api", "--port", str(port))
        engine.client.listen()
        processes = [engine.start("three_steps", {"name": f"number {number}"}) for number in range(STARTS)]
        for process_id in processes:
            engine.wait_for(process_id, "completed")
        assert all(len(engine.journal(one)) == 3 for one in processes), "a step has run twice"
        until(lambda: is_ready(port), "the API serves")
        assert [program.stop(30) for program in (api, consumer, coordinator)] == [0, 0, 0]
    assert engine.value("SELECT count(*) FROM consumers") == 0, "the consumer was not stopped in an orderly way"


def is_ready(port: int) -> bool:
    """Whether the API on this port is ready."""
    try:
        return httpx.get(f"http://127.0.0.1:{port}/api/health/ready", verify=NO_CERTIFICATES).is_success
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("arguments", [("list",), ("--help",), ("--version",)], ids=lambda one: one[0])
def test_a_command_whose_output_cannot_be_written_says_so_without_a_traceback(
    engine: Installation, arguments: tuple[str, ...]
) -> None:
    with reader_gone() as gone, Path("/dev/full").open("wb") as full:
        for output, wanted in (
            (gone, ""),
            (full.fileno(), "could not be written: [Errno 28] No space left on device\n"),
        ):
            with tempfile.TemporaryFile() as errors:
                command = forking.start(
                    arguments,
                    environment=engine.environment,
                    folder=engine.folder,
                    output=output,
                    errors=errors.fileno(),
                )
                assert command.wait(60) == 1
                errors.seek(0)
                assert errors.read().decode().removeprefix("the output ") == wanted
            unheard = forking.start(
                ["show", "nothing"], environment=engine.environment, folder=engine.folder, output=output, errors=output
            )
            assert unheard.wait(60) == 1
