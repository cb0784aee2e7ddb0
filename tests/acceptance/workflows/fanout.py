"""A task whose step starts many processes."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.forms import FormGenerator, FormPage
from orchestrator.workflow import StepList, done, init, step, workflow
from orchestrator.workflows.steps import start_processes
from tests.acceptance.workflows.lab import effect, note, wait_at


class NumberPage(FormPage):
    """Asks how many."""

    number: int


def number_form() -> FormGenerator:
    """One page."""
    page = yield NumberPage
    return page.model_dump()


@step("Leave a row")
async def leave_a_row(session: AsyncSession, process_id: UUID, number: int) -> None:
    await effect(session, process_id, f"Row {number}")


@workflow("Leaves a row", initial_input_form=number_form, is_task=True)
def task_row() -> StepList:
    return init >> leave_a_row >> done


@step("Start half of them, wait, and start all")
async def start_them(session: AsyncSession, process_id: UUID, number: int) -> dict[str, Any]:
    pages: list[list[dict[str, Any]]] = [[{"number": one}] for one in range(number)]
    await start_processes(session, "task_row", pages[: number // 2])
    note(process_id, "half")
    await wait_at(f"start-{process_id}")
    return {"result": await start_processes(session, "task_row", pages)}


@workflow("Starts many", initial_input_form=number_form, is_task=True)
def task_starts_many() -> StepList:
    return init >> start_them >> done
