"""What the pages of settings of a user interface show: who runs steps, the program's settings, labels of fields."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Annotated, Any, Final

from fastapi import Path
from pydantic import BaseModel

from orchestrator.api.bodies import Router
from orchestrator.api.callers import Caller, Role, requires
from orchestrator.api.context import Context
from orchestrator.broker.connection import BrokerAddress
from orchestrator.operations.workers import read_worker_status

router = Router(tags=["settings"])

EXECUTOR: Final = "celery"
"""The word by which the field's user interface knows that steps run in other programs: it draws its panel for no other."""

Reader = Annotated[Caller, requires(Role.READ)]


class WorkerQueue(BaseModel):
    """A queue as the broker has it."""

    name: str
    ready: int
    consumers: int


class Worker(BaseModel):
    """A consumer; ``blocked_for`` is set while its event loop does not respond, ``alive`` false when it is presumed dead."""

    name: str
    queues: list[str]
    concurrency: int
    running: int
    seen_at: datetime
    silent_for: float
    alive: bool
    blocked_for: float | None


class WorkerStatusDocument(BaseModel):
    """Who runs steps, and how much waits. The first four fields are those of the field's user interface.

    ``queues`` and ``unacked`` are null while the broker is away. ``unacked`` counts the commands of steps that are in no queue
    and not claimed: a consumer holds them, or they are lost and are published again.
    """

    executor_type: str
    number_of_workers_online: int
    number_of_queued_jobs: int
    number_of_running_jobs: int
    consumers: list[Worker]
    queues: list[WorkerQueue] | None
    ready: int | None
    unacked: int | None
    at: datetime


class Variable(BaseModel):
    """A setting by its environment variable; secrets are hidden."""

    env_name: str
    env_value: str


class VariableGroup(BaseModel):
    """Settings of one part."""

    name: str
    variables: list[Variable]


@router.get("/settings/worker-status", operation_id="get_worker_status")
async def worker_status(context: Context, caller: Reader) -> WorkerStatusDocument:
    """Say which consumers run steps, and how much waits in which queue."""
    del caller
    async with context.database.pool.acquire() as connection:
        found = await read_worker_status(connection, BrokerAddress.of(context.settings, "orchestrator api"))
    queues = (
        None
        if found.queues is None
        else [WorkerQueue.model_validate(one, from_attributes=True) for one in found.queues]
    )
    return WorkerStatusDocument(
        executor_type=EXECUTOR,
        number_of_workers_online=found.online,
        number_of_queued_jobs=found.queued,
        number_of_running_jobs=found.running,
        consumers=[Worker.model_validate(one, from_attributes=True) for one in found.consumers],
        queues=queues,
        ready=None if queues is None else sum(one.ready for one in queues),
        unacked=found.unacked,
        at=found.at,
    )


@router.get("/settings/overview", operation_id="get_settings_overview")
async def overview(context: Context, caller: Reader) -> list[VariableGroup]:
    """List the settings of this program; passwords and secrets are hidden."""
    del caller
    values = context.settings.list_values()
    variables = [Variable(env_name=name, env_value=value) for name, value in values.items()]
    return [VariableGroup(name="orchestrator", variables=variables)]


@router.get("/settings/cache-names", operation_id="get_cache_names")
async def cache_names(caller: Reader) -> dict[str, str]:
    """List the caches that can be emptied: there are none."""
    del caller
    return {}


@router.get("/translations/{locale}", operation_id="get_translations")
async def translations(
    context: Context,
    caller: Reader,
    locale: Annotated[str, Path(pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$", max_length=35, examples=["en-GB"])],
) -> dict[str, Any]:
    """Return the project's labels of forms' fields in a language; where there are none, the titles in the forms are shown."""
    del caller
    return await asyncio.to_thread(context.translations.read, locale)
