"""Code that blocks an event loop, and its neighbours."""

from __future__ import annotations

import asyncio
import time
from uuid import UUID

from orchestrator.forms import AsyncFormGenerator, FormPage
from orchestrator.workflow import StepList, done, init, step, workflow
from tests.acceptance.workflows.lab import is_open, note


def block_until(gate: object) -> None:
    """Block whatever runs this until a test opens a gate."""
    while not is_open(gate):
        time.sleep(0.02)


@step("Block the loop")
async def block_the_loop(process_id: UUID) -> None:
    note(process_id, "blocking")
    block_until(f"block-{process_id}")


async def block_as_a_child(process_id: UUID) -> None:
    note(process_id, "blocking")
    block_until(f"block-{process_id}")


@step("Block in a child task")
async def block_in_a_child_task(process_id: UUID) -> None:
    await asyncio.gather(asyncio.create_task(block_as_a_child(process_id)))


@step("Fail after blocking")
async def fail_after_blocking(process_id: UUID) -> None:
    note(process_id, "blocking")
    block_until(f"block-{process_id}")
    raise ValueError("no such device")


@step("Block in a thread")
def block_in_a_thread(process_id: UUID) -> None:
    note(process_id, "held")
    block_until(f"hold-{process_id}")


@step("Block for ever", timeout=0.5)
async def block_for_ever(process_id: UUID) -> None:
    note(process_id, "blocking")
    block_until(f"block-{process_id}")


@workflow("Blocks the event loop of its consumer")
def blocks() -> StepList:
    return init >> block_the_loop >> done


@workflow("Blocks the event loop in a task of its own")
def blocks_in_child() -> StepList:
    return init >> block_in_a_child_task >> done


@workflow("Blocks and fails")
def blocks_and_fails() -> StepList:
    return init >> fail_after_blocking >> done


@workflow("Blocks a thread")
def blocks_thread() -> StepList:
    return init >> block_in_a_thread >> done


@workflow("Blocks beyond its timeout")
def blocks_for_ever() -> StepList:
    return init >> block_for_ever >> done


class NoPage(FormPage):
    """Nothing to fill in."""


async def blocking_form() -> AsyncFormGenerator:
    """Block the coordinator."""
    note("form", "blocking")
    block_until("form")
    yield NoPage
    yield {}


@workflow("Its form blocks the event loop", initial_input_form=blocking_form)
def asks_and_blocks() -> StepList:
    return init >> done
