"""Use steps a second time in one workflow."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from orchestrator.errors import DefinitionError
from orchestrator.workflow.values import Block, Step, StepKind, StepList

Repeated = TypeVar("Repeated", Step, Block, Step | Block, StepList)


def again(steps: Repeated, what: str) -> Repeated:
    """Return steps under names of their own, to be used a second time in one workflow: ``"Configure (R7.1)"``.

    Args:
        steps: a step, a group, a callback step, or a list of them; they use the same keys of the state as the first time.
        what: appended to each name in parentheses. As with all names, running processes depend on it.

    Raises:
        DefinitionError: nothing is given to tell them apart, a name becomes too long, or ``init`` or ``done`` is among the steps.
    """
    if not isinstance(what, str) or not what.strip():
        raise DefinitionError(f"again(...) needs a text that tells the steps from the first ones, not {what!r}")
    if isinstance(steps, StepList):
        return StepList([again(item, what) for item in steps])
    if isinstance(steps, Block):
        return replace(steps, name=_rename(steps, what), steps=again(steps.steps, what))
    if not isinstance(steps, Step):
        raise DefinitionError(f"again(...) takes steps and step lists, not {steps!r}")
    if steps.kind in {StepKind.START, StepKind.DONE}:
        raise DefinitionError(
            f"again(...) got the step {steps.name!r}, which a workflow has once: repeat those between"
        )
    return replace(steps, name=_rename(steps, what))


def _rename(step: Step | Block, what: str) -> str:
    return f"{step.name} ({what})"
