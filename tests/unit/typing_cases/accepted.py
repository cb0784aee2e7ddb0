"""What an author may write: no line here is an error to a type checker."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

import tenacity
from pydantic import BaseModel

from orchestrator.forms import FormPage
from orchestrator.retry import RetryPolicy
from orchestrator.targets import Target
from orchestrator.types import State
from orchestrator.workflow import (
    Block,
    Step,
    StepList,
    Workflow,
    begin,
    callback_step,
    conditional,
    done,
    init,
    inputstep,
    retrystep,
    step,
    step_group,
    workflow,
)
from orchestrator.workflows import Schedule


class Port(BaseModel):
    speed: int


@step("async with a dict")
async def reserve(process_id: UUID, node: str = "ams-1") -> dict[str, int]:
    return {"vlan": 142}


@step("plain with a state", timeout=30)
def configure(state: State) -> State:
    return {**state, "configured": True}


@step("nothing", timeout=timedelta(minutes=1), queue="ims")
def nothing() -> None: ...


@step("async nothing")
async def async_nothing(port: Port, ports: list[Port] | None) -> None: ...


@step("maybe")
def maybe() -> Mapping[str, Any] | None:
    return None


@retrystep("again", retry=RetryPolicy(wait=tenacity.wait_fixed(3), limit=2))
async def again() -> dict[str, str]:
    return {}


class Page(FormPage):
    node: str


@inputstep("plain form", assignee="NOC")
def plain_form(state: State) -> Generator[type[FormPage], FormPage, State]:
    page = yield Page
    return page.model_dump()


@inputstep("async form")
async def async_form() -> AsyncGenerator[type[FormPage] | State, FormPage]:
    page = yield Page
    yield page.model_dump()


@inputstep("one page")
def one_page() -> type[FormPage]:
    return Page


def wants_port(state: dict[str, Any]) -> bool:
    return bool(state.get("port"))


def in_the_lab() -> bool:
    return True


wrapped: Step = conditional(wants_port)(reserve)
wrapped_block: Block = conditional(in_the_lab)(step_group("group", reserve >> configure))
wrapped_list: StepList = conditional(lambda state: "x" in state)(reserve >> configure)
job: Block = callback_step("job", reserve, again, "result", "route", timeout=3600)
prepare: StepList = begin >> reserve >> configure


def check(name: str) -> Step:
    @step(f"check {name}")
    def check_it() -> None: ...

    return check_it


@workflow("Create a port", initial_input_form=one_page.form, target=Target.CREATE)
def create_port() -> StepList:
    return init >> prepare >> wrapped >> wrapped_list >> job >> plain_form >> check("x") >> done


made: Workflow = create_port


Schedule("nightly", "example", cron="30 2 * * *", zone="Europe/Amsterdam", inputs=[{"node": "ams-1"}], missed="skip")
Schedule("rhythm", "example", every=timedelta(hours=6), overlap="queue", jitter=timedelta(minutes=5), enabled=False)
