"""Plain steps that never end."""

from __future__ import annotations

import threading
from uuid import UUID

from orchestrator.workflow import Step, StepList, done, init, step, workflow
from tests.acceptance.workflows.lab import note


def hanging(timeout: float) -> Step:
    """Return a step whose thread nothing can end."""

    @step("Hang", timeout=timeout)
    def hang(process_id: UUID) -> None:
        note(process_id, "hangs")
        threading.Event().wait()

    return hang


@workflow("Hangs beyond its timeout")
def hangs() -> StepList:
    return init >> hanging(2) >> done


@workflow("Hangs within its timeout")
def hangs_for_long() -> StepList:
    return init >> hanging(3600) >> done
