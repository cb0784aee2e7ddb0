"""Workflows for the tests of the API."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from pydantic import field_validator
from sqlalchemy import select
from sqlalchemy.orm import Session

from orchestrator import registry
from orchestrator.db.session import Database
from orchestrator.forms import FormGenerator, FormPage, SubmitFormPage
from orchestrator.workflow import StepList, Workflow, begin, done, init, inputstep, step, workflow


class Who(FormPage):
    name: str
    count: int = 0


class How(SubmitFormPage):
    tone: str


def greeting_form(session: Session) -> FormGenerator:
    who = yield Who
    assert session.scalar(select(1)) == 1
    how = yield How
    return {**who.model_dump(), **how.model_dump()}


@step("Greet")
async def greet() -> None: ...


@workflow("Greets", initial_input_form=greeting_form)
def greeting() -> StepList:
    return begin >> greet >> done


@inputstep("Approve", assignee="NOC")
def approve(session: Session) -> FormGenerator:
    class Approval(SubmitFormPage):
        approved: bool

        @field_validator("approved")
        @classmethod
        def ask(cls, approved: bool) -> bool:
            return approved and session.scalar(select(1)) == 1

    page = yield Approval
    return page.model_dump()


@workflow("Asks")
def asking() -> StepList:
    return init >> approve >> greet >> done


@workflow("Refuses", run_predicate=lambda: "not on Fridays")
def refusing() -> StepList:
    return begin >> greet >> done


@workflow("Is for nobody", authorize_callback=lambda: False)
def forbidden() -> StepList:
    return begin >> greet >> done


SCHEDULE = {
    "name": "greet at night",
    "workflow_name": "greeting",
    "trigger": "cron",
    "trigger_kwargs": {"hour": "2", "minute": "30"},
    "zone": "Europe/Amsterdam",
    "user_inputs": [{"name": "ana"}, {"tone": "kind"}],
}
"""The body that makes one."""

FLOWS = (greeting, asking, refusing, forbidden)


async def register(
    database: Database, monkeypatch: pytest.MonkeyPatch, flows: Iterable[Workflow] = FLOWS, module: str = __name__
) -> None:
    """Make code and database know these workflows, and no others, for one test."""
    monkeypatch.setattr(registry, "_instances", {})
    for one in flows:
        registry.LazyWorkflowInstance(module, one.name)
        await database.pool.execute("INSERT INTO workflows (name, target) VALUES ($1, 'SYSTEM')", one.name)
