"""A workflow with two steps of one name."""

from __future__ import annotations

from orchestrator.workflow import StepList, init, step, workflow


@step("Twin")
def one() -> None: ...


@step("Twin")
def other() -> None: ...


@workflow("Two steps of one name")
def twins() -> StepList:
    return init >> one >> other
