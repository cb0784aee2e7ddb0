"""Conditions, groups and shared steps."""

from __future__ import annotations

import os
from functools import singledispatch
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from orchestrator.workflow import Step, StepList, begin, conditional, done, init, step, step_group, workflow
from tests.acceptance.workflows.basic import name_form
from tests.acceptance.workflows.lab import is_open, note


def marked(name: str) -> Step:
    """Return a step for several workflows."""

    @step(name)
    async def mark(process_id: UUID) -> dict[str, bool]:
        note(process_id, name)
        return {name: True}

    return mark


@step("Decide")
async def decide_wanted(name: str) -> dict[str, bool]:
    return {"wanted": name == "wanted"}


@step("Change the mind")
async def change_mind(process_id: UUID, *, wanted: bool) -> dict[str, bool]:
    note(process_id, "change the mind")
    return {"wanted": not wanted}


@step("Fail once in the group")
async def fail_once(process_id: UUID) -> None:
    note(process_id, "fail once")
    if not is_open(f"mended-{process_id}"):
        raise RuntimeError("not mended")


def is_wanted(state: dict[str, Any]) -> bool:
    """Over the state."""
    return bool(state["wanted"])


@workflow("Conditions", initial_input_form=name_form)
def conditions() -> StepList:
    each = conditional(is_wanted)(begin >> marked("listed 1") >> marked("listed 2"))
    group = conditional(is_wanted)(step_group("Group", begin >> change_mind >> fail_once >> marked("grouped")))
    nested = conditional(lambda: True)(conditional(lambda state: "first" in state)(marked("never")))
    return init >> decide_wanted >> conditional(is_wanted)(marked("single")) >> each >> group >> nested >> done


@workflow("Depends on the environment")
def environment() -> StepList:
    allowed = conditional(lambda: os.environ.get("ALLOWED") == "yes")
    forbidden = conditional(lambda: os.environ.get("FORBIDDEN") == "yes")
    return init >> allowed(marked("allowed")) >> forbidden(marked("forbidden")) >> done


def _raise(state: dict[str, Any]) -> bool:
    if not is_open(f"mended-{state['name']}"):
        raise LookupError("cannot decide")
    return True


@workflow("A condition that raises", initial_input_form=name_form)
def raising_condition() -> StepList:
    return init >> marked("before") >> conditional(_raise)(marked("doubtful")) >> done


@workflow("Groups in groups")
def grouped() -> StepList:
    inner = step_group("Inner", begin >> marked("b") >> marked("c"))
    outer = step_group("Outer", begin >> marked("a") >> inner >> marked("d"))
    return init >> outer >> marked("e") >> done


class Fibre(BaseModel):
    """One kind of port."""

    colour: str


class Copper(BaseModel):
    """The other kind."""

    pairs: int


@singledispatch
def describe(port: object) -> str:
    """Treat each kind of model in its own way."""
    raise TypeError(f"no description of {port!r}")


@describe.register
def _(port: Fibre) -> str:
    return f"a {port.colour} fibre"


@describe.register
def _(port: Copper) -> str:
    return f"{port.pairs} pairs of copper"


@step("Describe the port")
async def describe_port(port: Fibre | Copper) -> dict[str, str]:
    return {"description": describe(port)}


@step("Make a fibre")
async def make_fibre() -> dict[str, Fibre]:
    return {"port": Fibre(colour="yellow")}


@step("Make copper")
async def make_copper() -> dict[str, Copper]:
    return {"port": Copper(pairs=4)}


COMMON = begin >> describe_port >> marked("common")


@workflow("A shared list with a fibre")
def ports_a() -> StepList:
    return init >> make_fibre >> COMMON >> done


@workflow("The same list with copper")
def ports_b() -> StepList:
    return init >> make_copper >> COMMON >> done
