"""Plain steps that never end, or compute for long."""

from __future__ import annotations

import os
import threading
from uuid import UUID

from orchestrator import user_code
from orchestrator.forms import FormPage
from orchestrator.workflow import Step, StepList, done, init, step, workflow
from tests.acceptance.workflows.lab import is_open, note

if "FORM_SECONDS" in os.environ:
    # What a form gets otherwise is half a minute, and it takes many of them to use up a program's threads.
    user_code.HOOK_TIMEOUT = float(os.environ["FORM_SECONDS"])


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


def form_that_hangs() -> type[FormPage]:
    """Keep a thread of the program for ever."""
    note("form", "hangs")
    threading.Event().wait()
    return FormPage


@workflow("Its form hangs", initial_input_form=form_that_hangs)
def asks_and_hangs() -> StepList:
    return init >> done
