"""Plain workflows."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.errors import ProcessFailureError
from orchestrator.forms import FormGenerator, FormPage
from orchestrator.workflow import Step, StepList, begin, done, init, step, workflow
from tests.acceptance.workflows.lab import Effect, effect, is_open, note, wait_at


class NamePage(FormPage):
    """Asks for a name."""

    name: str = "nobody"


def name_form() -> FormGenerator:
    """One page, all of it optional."""
    page = yield NamePage
    return page.model_dump()


@step("First")
def first(process_id: UUID) -> dict[str, int]:
    """Run as a plain function."""
    note(process_id, "first")
    return {"first": 1}


@step("Second")
async def second(session: AsyncSession, process_id: UUID, first: int) -> dict[str, int]:
    """Write into the tests' table."""
    note(process_id, "second")
    await effect(session, process_id, "Second")
    return {"second": first + 1}


@step("Third")
async def third(process_id: UUID, second: int) -> dict[str, int]:
    """Run as an async function without a session."""
    note(process_id, "third")
    return {"third": second + 1}


@workflow("Three steps", initial_input_form=name_form)
def three_steps() -> StepList:
    return init >> first >> second >> third >> done


@workflow("One step, and no markers")
def one_step() -> StepList:
    return begin >> first


@workflow("A task of one step", is_task=True)
def task_one() -> StepList:
    return init >> first >> done


@workflow("Known to the code only")
def only_in_code() -> StepList:
    return begin >> first


@workflow("Its row is deleted")
def removed() -> StepList:
    return begin >> first


def link(number: int) -> Step:
    """Return a step: each link sees what its predecessors have committed."""

    @step(f"Link {number}")
    async def run(session: AsyncSession, process_id: UUID) -> dict[str, int]:
        note(process_id, f"link {number}")
        seen = await session.scalar(select(func.count()).where(Effect.process_id == process_id))
        await asyncio.sleep(random.uniform(0, 0.15))
        await effect(session, process_id, f"Link {number}")
        return {f"seen_{number}": int(seen or 0)}

    return run


LINKS = 5


@workflow("Five steps that each leave one row")
def chain() -> StepList:
    steps: StepList = begin
    for number in range(LINKS):
        steps = steps >> link(number)
    return init >> steps >> done


@workflow("So many steps that nothing else is over before it")
def long_chain() -> StepList:
    steps: StepList = begin
    for number in range(200):
        steps = steps >> link(number)
    return init >> steps >> done


@step("Prepare")
async def prepare(process_id: UUID) -> dict[str, Any]:
    note(process_id, "prepare")
    return {"prepared": True, "kept": ["as it was"]}


@step("Break until mended")
async def break_until_mended(
    session: AsyncSession, process_id: UUID, idempotency_key: str, state: dict[str, Any]
) -> dict[str, Any]:
    """Leaves as much behind as it can, then fails."""
    note(process_id, "try", key=idempotency_key, state=state)
    state["kept"].append("changed in place")
    await effect(session, process_id, "flushed")
    await session.execute(text("INSERT INTO effects (process_id, step) VALUES (:p, 'raw')"), {"p": process_id})
    session.add(Effect(process_id=process_id, step="pending"))
    if not is_open(f"mended-{process_id}"):
        raise ProcessFailureError("the node does not answer", details={"node": "ams-1"})
    return {"mended": idempotency_key}


@step("Afterwards")
async def afterwards(process_id: UUID, idempotency_key: str) -> dict[str, str]:
    note(process_id, "afterwards", key=idempotency_key)
    return {"afterwards": idempotency_key}


@workflow("Fails until somebody mends it")
def mended() -> StepList:
    return init >> prepare >> break_until_mended >> afterwards >> done


def holding(name: str, gate: Callable[[UUID], str]) -> Step:
    """Write, and then wait for the test."""

    @step(name)
    async def hold(session: AsyncSession, process_id: UUID) -> dict[str, str]:
        note(process_id, "held")
        await effect(session, process_id, name)
        await wait_at(gate(process_id))
        note(process_id, "let go")
        return {"held": name}

    return hold


@step("After the hold")
async def after_hold(session: AsyncSession, process_id: UUID) -> None:
    note(process_id, "after the hold")
    await effect(session, process_id, "After the hold")


@workflow("Waits inside its step for the test")
def holds() -> StepList:
    return init >> holding("Hold", lambda process_id: f"hold-{process_id}") >> after_hold >> done


@step("Short wait")
async def short_wait(session: AsyncSession, process_id: UUID) -> dict[str, int]:
    note(process_id, "short wait")
    await effect(session, process_id, "Short wait")
    await asyncio.sleep(0.3)
    return {"short": 1}


@workflow("A step that takes a while, then two more")
def pauses_here() -> StepList:
    return init >> short_wait >> first >> after_hold >> done


def steady_link(number: int) -> Step:
    """Run without a session: the whole outcome is the log row."""

    @step(f"Beat {number}")
    async def run(process_id: UUID) -> dict[str, int]:
        note(process_id, f"beat {number}")
        await asyncio.sleep(0.05)
        return {f"beat_{number}": number}

    return run


@workflow("Steps that use no session")
def steady() -> StepList:
    return init >> steady_link(0) >> steady_link(1) >> steady_link(2) >> done
