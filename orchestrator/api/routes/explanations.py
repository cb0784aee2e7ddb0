"""Why a process does not go on, and what this program's code would do to the processes that there are."""

from __future__ import annotations

from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import Path, Query
from pydantic import BaseModel

from orchestrator.api.bodies import Router
from orchestrator.api.callers import Caller, Role, requires
from orchestrator.api.context import Context
from orchestrator.api.problems import Responses
from orchestrator.operations.explain import explain_process
from orchestrator.operations.explanation import Kind
from orchestrator.services.upgrade_check import check_upgrade

router = Router(tags=["processes"])

_NOT_FOUND: Final[Responses] = {404: {"description": "There is no such process."}}


class ExplanationDocument(BaseModel):
    """Why a process does not go on: ``summary`` and ``details`` for people, ``kind`` and ``data`` for programs."""

    kind: Kind
    summary: str
    details: list[str]
    data: dict[str, Any]


class UpgradeFinding(BaseModel):
    """What the code would do to processes that stand at one step, how many they are, and which (the first hundred)."""

    key: str
    breaks: bool
    workflow: str
    step: str | None
    what: str
    todo: str
    count: int
    process_ids: list[UUID]


class UpgradeDocument(BaseModel):
    """What the code of this program would do to all unfinished processes; ``models`` is null when they were not compared."""

    breaks: bool
    unfinished: int
    findings: list[UpgradeFinding]
    models: list[str] | None


@router.get("/processes/{process_id}/explain", operation_id="explain_process", responses=_NOT_FOUND)
async def explain(
    context: Context,
    caller: Annotated[Caller, requires(Role.READ)],
    process_id: Annotated[UUID, Path(description="The process.")],
) -> ExplanationDocument:
    """Say why a process does not go on: what it waits for, since when, and what to do."""
    del caller
    async with context.database.pool.acquire() as connection:
        found = await explain_process(connection, process_id)
    return ExplanationDocument(**found.document())


@router.get("/check", operation_id="check_upgrade", tags=["settings"])
async def check(
    context: Context,
    caller: Annotated[Caller, requires(Role.OPERATE)],
    *,
    models: Annotated[bool, Query(description="Whether to compare the models with the subscriptions, too.")] = False,
) -> UpgradeDocument:
    """Say which unfinished processes the code of this program would break, and what to do about each.

    Before a deployment ask a program that has the new code, or run `orchestrator check` there.
    """
    del caller
    # It makes the forms of all workflows.
    report = await context.run_author_code("", lambda session: check_upgrade(session, models=models))
    return UpgradeDocument(**report.document())
