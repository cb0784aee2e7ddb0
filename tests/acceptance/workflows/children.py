"""Steps that start processes of their own by forking their consumer."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import time
from typing import Any
from uuid import UUID

from orchestrator.forms import FormPage
from orchestrator.workflow import StepList, done, init, step, workflow
from tests.acceptance.workflows.basic import name_form
from tests.acceptance.workflows.lab import is_open, note, wait_at

FORK = multiprocessing.get_context("fork")


def _terminate_some() -> list[int | None]:
    """Terminate children while they begin; return their exit codes."""
    found = set()
    for _ in range(20):
        child = FORK.Process(target=time.sleep, args=(3600,))
        child.start()
        child.terminate()
        child.join()
        found.add(child.exitcode)
    return list(found)


@step("Terminate a child in a thread")
def terminate_in_thread() -> dict[str, list[int | None]]:
    return {"in_thread": _terminate_some()}


@step("Terminate a child on the loop")
async def terminate_on_loop() -> dict[str, list[int | None]]:
    return {"on_loop": _terminate_some()}


@workflow("Terminates its children")
def terminates_children() -> StepList:
    return init >> terminate_in_thread >> terminate_on_loop >> done


def _work(number: int) -> int:
    return number * number


@step("Leave a pool busy")
def leave_pool_busy() -> dict[str, list[int]]:
    pool = FORK.Pool(2)
    squares = pool.map(_work, range(5))
    pool.map_async(time.sleep, [3600, 3600])
    return {"squares": squares}


@step("Leave a pool busy on the loop")
async def leave_pool_busy_on_loop() -> dict[str, list[int]]:
    pool = FORK.Pool(2)
    pool.map_async(time.sleep, [3600, 3600])
    return {"again": pool.map(_work, range(0))}


@workflow("Leaves pools busy")
def leaves_pools_busy() -> StepList:
    return init >> leave_pool_busy >> leave_pool_busy_on_loop >> done


LEFT: list[Any] = []


@step("Leave a child")
async def leave_child(process_id: UUID, name: str) -> None:
    child = FORK.Process(target=time.sleep, args=(3600,))
    child.start()
    LEFT.append(child)
    note(process_id, "child", child=child.pid)
    if name != "ends":
        await wait_at("grown up")


@workflow("Leaves a child", initial_input_form=name_form)
def leaves_child() -> StepList:
    return init >> leave_child >> done


def _fork() -> int | None:
    """Return the exit code of a fork; in the fork, return nothing."""
    pid = os.fork()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) if pid else None


@step("Return from a fork in a thread")
def return_in_thread(process_id: UUID) -> dict[str, int | None]:
    code = _fork()
    note(process_id, "in a thread")
    return {"in_thread": code}


@step("Return from a fork on the loop")
async def return_on_loop(process_id: UUID) -> dict[str, int | None]:
    code = _fork()
    note(process_id, "on the loop")
    return {"on_loop": code}


@step("Await in a fork")
async def await_in_fork() -> dict[str, int | None]:
    code = _fork()
    await asyncio.sleep(0.01)
    return {"awaits": code}


@workflow("Returns from forks")
def returns_from_forks() -> StepList:
    return init >> return_in_thread >> return_on_loop >> await_in_fork >> done


@step("Use other start methods")
def use_other_start_methods() -> dict[str, list[int]]:
    found = {}
    for method in ("spawn", "forkserver"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            found[method] = pool.map(_work, [3])
    return found


@workflow("Uses other start methods")
def uses_start_methods() -> StepList:
    return init >> use_other_start_methods >> done


def _fork_in_all_ways() -> dict[str, object]:
    """Terminate children, leave a pool busy, and return from a fork; say what came of it."""
    found: dict[str, object] = {"terminated": _terminate_some()}
    pool = FORK.Pool(2)
    found["squares"] = pool.map(_work, range(5))
    pool.map_async(time.sleep, [3600, 3600])
    return found | {"returned": _fork()}


@step("Fork where it is alone")
def fork_where_it_is_alone(process_id: UUID) -> dict[str, object]:
    note(process_id, "forks", pid=os.getpid())
    if not is_open("killed once"):
        os.kill(os.getpid(), signal.SIGKILL)
    return _fork_in_all_ways()


@workflow("Forks in a child of its consumer")
def forks_apart() -> StepList:
    return init >> fork_where_it_is_alone >> done


class NoPage(FormPage):
    """Nothing to fill in."""


def plain_form_that_forks() -> type[FormPage]:
    """Fork in a thread of the coordinator."""
    found = _fork_in_all_ways()
    note("form", "in a thread", **found)
    return NoPage


async def async_form_that_forks() -> type[FormPage]:
    """Fork on the event loop of the coordinator."""
    found = _fork_in_all_ways()
    note("form", "on the loop", **found)
    return NoPage


@workflow("Its plain form forks", initial_input_form=plain_form_that_forks)
def asks_and_forks() -> StepList:
    return init >> done


@workflow("Its async form forks", initial_input_form=async_form_that_forks)
def asks_and_forks_on_loop() -> StepList:
    return init >> done
