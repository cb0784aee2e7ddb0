"""The language in which workflows are written: steps, and lists of them, as frozen values.

Nothing here runs anything. A decorated function becomes a :class:`Step`; ``>>`` joins steps into a :class:`StepList`;
``@workflow`` gives the list a name. The engine flattens the list (``orchestrator.engine.plan``) and runs its steps in order::

    @step("Reserve a VLAN")
    async def reserve_vlan(session: AsyncSession, node: str) -> dict[str, int]:
        ...
        return {"vlan": 142}

    @workflow("Create a port")
    def create_port() -> StepList:
        return init >> reserve_vlan >> configure_port >> done

Because steps are values they can be shared between workflows, kept in constants and produced by functions.
"""

from __future__ import annotations

from orchestrator.workflow.conditions import conditional
from orchestrator.workflow.language import (
    begin,
    callback_step,
    done,
    init,
    inputstep,
    retrystep,
    step,
    step_group,
    workflow,
)
from orchestrator.workflow.repetition import again
from orchestrator.workflow.values import (
    DEFAULT_QUEUE,
    KEEP_FOREVER,
    MAX_NAME_LENGTH,
    TASK_QUEUE,
    Block,
    BlockKind,
    CallbackTerms,
    FormFunction,
    Predicate,
    RunPredicate,
    Step,
    StepFunction,
    StepKind,
    StepList,
    StepReturn,
    Workflow,
    leaves,
)

__all__ = [
    "DEFAULT_QUEUE",
    "KEEP_FOREVER",
    "MAX_NAME_LENGTH",
    "TASK_QUEUE",
    "Block",
    "BlockKind",
    "CallbackTerms",
    "FormFunction",
    "Predicate",
    "RunPredicate",
    "Step",
    "StepFunction",
    "StepKind",
    "StepList",
    "StepReturn",
    "Workflow",
    "again",
    "begin",
    "callback_step",
    "conditional",
    "done",
    "init",
    "inputstep",
    "leaves",
    "retrystep",
    "step",
    "step_group",
    "workflow",
]
