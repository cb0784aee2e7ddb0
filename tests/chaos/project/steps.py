"""The steps: each leaves a row in ``effects``, in its own transaction, so that one that was stored twice would show."""

from __future__ import annotations

import asyncio
import os
import random
import time
from typing import Any
from uuid import UUID

import tenacity
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from orchestrator.forms import FormPage
from orchestrator.retry import RetryPolicy
from orchestrator.types import State
from orchestrator.workflow import (
    Step,
    StepList,
    begin,
    callback_step,
    done,
    init,
    inputstep,
    retrystep,
    step,
    workflow,
)
from orchestrator.workflows.steps import start_processes
from orchestrator.workflows.utils import create_workflow, modify_workflow
from tests.acceptance.journal import lab
from tests.chaos.project.products import Thing, ThingInactive

LINKS = 5
CHILDREN = 3
NEW = os.environ.get("CHAOS_CODE") == "new"
"""Whether this program has the later version of the code, in which ``chain`` has one step more."""

INSERT = text("INSERT INTO effects (process_id, step) VALUES (:process_id, :step)")


async def effect(session: AsyncSession, process_id: UUID, name: str) -> None:
    """Write, and then take a while: what is not committed must not stay."""
    await session.execute(INSERT, {"process_id": process_id, "step": name})
    await asyncio.sleep(random.uniform(0, 0.15))


def link(name: str) -> Step:
    """Return a step that does nothing else."""

    @step(name)
    async def run(session: AsyncSession, process_id: UUID) -> None:
        await effect(session, process_id, name)

    return run


@workflow("Five steps, and six in the new version")
def chain() -> StepList:
    steps: StepList = begin
    for number in range(LINKS):
        steps = steps >> link(f"Link {number}")
        if NEW and number == LINKS // 2:
            steps = steps >> link("Link of the new version")
    return init >> steps >> done


@step("Plain")
def plain_step(session: Session, process_id: UUID) -> None:
    """Run in a thread."""
    session.execute(INSERT, {"process_id": process_id, "step": "Plain"})
    time.sleep(random.uniform(0, 0.15))


@workflow("A plain function between async ones")
def plain() -> StepList:
    return init >> link("Before") >> plain_step >> link("After") >> done


class AnswerPage(FormPage):
    """What a person says."""

    yes: bool


@inputstep("Ask")
def ask() -> type[FormPage]:
    return AnswerPage


@workflow("Asks a person")
def asks() -> StepList:
    return init >> link("Before") >> ask >> link("After") >> done


@step("Order")
async def order(session: AsyncSession, process_id: UUID, callback_token: str) -> None:
    """Hand the token to the external system, which is the load."""
    await effect(session, process_id, "Order")
    with (lab() / f"tokens-{process_id}").open("a") as file:
        file.write(f"{callback_token}\n")


@step("Check")
async def check(session: AsyncSession, process_id: UUID, callback_result: dict[str, Any]) -> None:
    await effect(session, process_id, f"Check {callback_result['ok']}")


@workflow("Calls an external system")
def calls_out() -> StepList:
    return init >> callback_step("Await the order", order, check) >> done


@retrystep("Try", retry=RetryPolicy(tenacity.wait_fixed(0.2)))
async def attempt(session: AsyncSession, process_id: UUID) -> None:
    await effect(session, process_id, "Try")
    if random.random() < 0.5:
        raise ConnectionError("the device does not answer")


@workflow("Tries until it succeeds")
def flaky() -> StepList:
    return init >> attempt >> done


@step("Start children")
async def start_children(session: AsyncSession, process_id: UUID) -> None:
    await effect(session, process_id, "Start children")
    await start_processes(session, "child", [[] for _ in range(CHILDREN)])


@workflow("Starts others")
def parent() -> StepList:
    return init >> start_children >> done


@workflow("Is started by another")
def child() -> StepList:
    return init >> link("Child") >> done


@step("Make the thing")
async def make(session: AsyncSession, product: UUID) -> State:
    return {"subscription": await ThingInactive.from_product_id(session, product, "acme", description="a thing")}


@create_workflow("Make a thing")
def create_thing() -> StepList:
    return begin >> make


@step("Count")
async def count(session: AsyncSession, subscription: Thing, process_id: UUID) -> State:
    subscription.thing.changed += 1
    await effect(session, process_id, "Count")
    return {"subscription": subscription}


@modify_workflow("Change a thing")
def modify_thing() -> StepList:
    return begin >> link("Before") >> count >> link("After")
