"""The child processes of a consumer: how they start, and what is seen of their end."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from consumers.child import ChildError, ChildProcess
from consumers.nursery import Nursery
from consumers.pipe import Begin
from tests.integration.waiting import until

REPOSITORY = str(Path(__file__).resolve().parents[2])

Make = Callable[[str], AbstractAsyncContextManager[Nursery]]


@pytest.fixture
def nursery_of(database_url: str, amqp_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Provide a factory of nurseries for a project with this module."""

    @asynccontextmanager
    async def make(module: str) -> AsyncIterator[Nursery]:
        (tmp_path / "own_flows.py").write_text(module)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("PYTHONPATH", REPOSITORY)
        monkeypatch.setenv("ORCHESTRATOR_DATABASE_URL", database_url)
        monkeypatch.setenv("ORCHESTRATOR_AMQP_URL", amqp_url)
        monkeypatch.setenv("ORCHESTRATOR_WORKFLOWS", "own_flows")
        nursery = Nursery()
        try:
            yield nursery
        finally:
            await nursery.close()

    return make


def parent_of(child: ChildProcess) -> int:
    return psutil.Process(child.pid).ppid()


async def until_gone(*pids: int) -> None:
    await until(lambda: not any(psutil.pid_exists(pid) for pid in pids), f"{pids} are gone")


async def begin(child: ChildProcess) -> None:
    await child.begin(Begin(consumer_id=uuid4(), consumer="test:1", pool_size=2, queues=("default",)))


async def test_children_are_forks_of_one_process_and_end_with_their_connections(nursery_of: Make) -> None:
    async with nursery_of("") as nursery:
        first, second = await nursery.start_child(), await nursery.start_child()
        assert parent_of(first) == parent_of(second) != os.getpid()
        forked = parent_of(first)
        await begin(first)
        await first.close()
        await until_gone(first.pid)
        assert psutil.pid_exists(second.pid)
        await second.close()
    await until_gone(second.pid, forked)


async def test_closing_does_not_wait_for_a_project_that_is_still_being_imported(nursery_of: Make) -> None:
    """B32: a consumer that stops while its first child starts ends in its time."""
    async with nursery_of("import pathlib, time\npathlib.Path('importing').touch()\ntime.sleep(3600)\n") as nursery:
        starting = asyncio.create_task(nursery.start_child())
        await until(Path("importing").exists, "the workflows are being imported")
        starting.cancel()
        await asyncio.wait({starting})
        async with asyncio.timeout(30):
            await nursery.close()


@pytest.mark.parametrize(
    "module",
    [
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n",
        "import socket\nOPEN = socket.socket()\n",
    ],
    ids=["a thread", "a socket"],
)
async def test_a_project_whose_import_leaves_what_no_fork_survives_has_children_of_their_own(
    nursery_of: Make, module: str
) -> None:
    async with nursery_of(module) as nursery:
        child = await nursery.start_child()
        assert parent_of(child) == os.getpid()
        await begin(child)
        os.kill(child.pid, signal.SIGKILL)
        assert await child.wait() == "was killed by SIGKILL"
        await child.close()


async def test_the_end_of_a_child_is_seen(nursery_of: Make) -> None:
    async with nursery_of("") as nursery:
        child = await nursery.start_child()
        os.kill(child.pid, signal.SIGSEGV)
        assert [line async for line in child.lines()] == []
        assert await child.wait() == "was killed by SIGSEGV"
        with pytest.raises(ChildError, match="SIGSEGV"):
            await begin(child)
        await child.close()


async def test_signals_for_the_consumers_group_do_not_end_its_children(nursery_of: Make) -> None:
    async with nursery_of("") as nursery:
        child = await nursery.start_child()
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(child.pid, number)
            os.kill(parent_of(child), number)
        await begin(child)
        await child.close()


async def test_when_the_process_that_is_forked_dies_another_one_is_started(nursery_of: Make) -> None:
    """How its children end is not seen any more, so it is not held against a step."""
    async with nursery_of("") as nursery:
        orphan = await nursery.start_child()
        os.kill(parent_of(orphan), signal.SIGKILL)
        async with asyncio.timeout(30):
            assert await orphan.wait() is None
        await orphan.close()
        await until_gone(orphan.pid)
        child = await nursery.start_child()
        await begin(child)
        await child.close()


async def test_a_project_that_cannot_be_imported_any_more_is_an_error_of_the_start(nursery_of: Make) -> None:
    async with nursery_of("import there_is_none\n") as nursery:
        with pytest.raises(ChildError, match="its output says why"):
            await nursery.start_child()


async def test_loggers_of_authors_go_to_the_consumers_log_from_a_child_as_well(
    nursery_of: Make, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_LOG_FORMAT", "json")
    monkeypatch.setenv("ORCHESTRATOR_LOG_LEVELS", "own_flows=debug")
    async with nursery_of('import logging\nlogging.getLogger(__name__).debug("imported")\n') as nursery:
        child = await nursery.start_child()
        await child.close()
    assert '"event": "imported", "logger": "own_flows", "level": "debug"' in capfd.readouterr().err
