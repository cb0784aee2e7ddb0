"""Plain steps that never end, or compute for long."""

from __future__ import annotations

import threading
from uuid import UUID

from orchestrator.workflow import Step, StepList, done, init, step, workflow
from tests.acceptance.workflows.lab import is_open, note


def hanging(timeout: float) -> Step:
    """Return a step whose thread nothing can end."""

    @step("Hang", timeout=timeout)
    def hang(process_id: UUID) -> None:
        note(process_id, "hangs")
        threading.Event().wait()

    return hang


@workflow("Hangs beyond its timeout")
def hangs() -> StepList:
    return init >> hanging(4) >> done


@workflow("Hangs within its timeout")
def hangs_for_long() -> StepList:
    return init >> hanging(3600) >> done


@step("Compute")
def compute(process_id: UUID) -> None:
    note(process_id, "computes")
    while not is_open("computed"):
        sum(number * number for number in range(200_000))


@workflow("Computes until the test is content")
def computes() -> StepList:
    return init >> compute >> done
