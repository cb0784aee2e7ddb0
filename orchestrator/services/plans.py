"""Register the plans that a program has, and find out whether it may move a process to its own."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.plans import Numbered, add_plans, find_registered, read_registered, read_steps
from orchestrator.engine.events import PlanChanged
from orchestrator.engine.plan import Plan
from orchestrator.engine.process import Process
from orchestrator.errors import PlanMismatchError
from orchestrator.registry import find_abilities, plan_of

logger = structlog.get_logger(__name__)


class ProgramPlans:
    """The plans of all workflows of a program, and which of them are the registered ones.

    Others may register newer ones at any time: what is known here saves reading, and decides nothing. Whoever moves a process
    asks the database, in the transaction in which it moves.
    """

    def __init__(self, plans: Mapping[str, Plan]) -> None:
        self._plans = dict(plans)
        self._registered: dict[str, Numbered] = {}

    @classmethod
    def load(cls) -> ProgramPlans:
        """Import the modules of all workflows that the code registers. Broken ones are left out."""
        return cls({workflow: plan_of(workflow) for workflow in find_abilities().knows})

    @property
    def fingerprints(self) -> list[str]:
        """The fingerprints of all plans of the program."""
        return sorted({plan.fingerprint for plan in self._plans.values()})

    @property
    def workflows(self) -> list[str]:
        """The workflows that the program can start."""
        return sorted(self._plans)

    @property
    def current(self) -> list[str]:
        """The workflows whose registered plan the program had when that was last read."""
        return [workflow for workflow in self._plans if self._is_registered(workflow)]

    def has(self, workflow: str, fingerprint: str | None) -> bool:
        """Return whether a plan is the program's own."""
        plan = self._plans.get(workflow)
        return plan is not None and plan.fingerprint == fingerprint

    def may_move(self, workflow: str, fingerprint: str | None) -> bool:
        """Return whether a process with another plan is probably to be moved to the program's own."""
        return fingerprint is not None and not self.has(workflow, fingerprint) and self._is_registered(workflow)

    async def register(self, session: AsyncSession, author: str) -> None:
        """Append the plans that no program has registered before, and read which are the registered ones; log what is wrong."""
        _report_broken_workflows()
        for workflow, added in (await add_plans(session, self._plans, author)).items():
            logger.info("plan registered", workflow=workflow, number=added.number, plan=added.fingerprint)
        await self.refresh(session)
        for workflow, registered in self._registered.items():
            if workflow in self._plans and not self._is_registered(workflow):
                logger.warning(
                    "this program has another plan of the workflow than the registered one: it only serves processes that"
                    " have its plan",
                    workflow=workflow,
                    plan=self._plans[workflow].fingerprint,
                    registered=registered.fingerprint,
                    number=registered.number,
                )

    async def refresh(self, session: AsyncSession) -> None:
        """Read which plans are the registered ones."""
        self._registered = await read_registered(session)

    def _is_registered(self, workflow: str) -> bool:
        registered = self._registered.get(workflow)
        return registered is not None and self.has(workflow, registered.fingerprint)


@cache
def _report_broken_workflows() -> None:
    """Log what keeps workflows from being used here, once in a program, even if it is coordinator and consumer."""
    for workflow, reason in find_abilities().broken.items():
        logger.error("this program cannot use a workflow: its code is broken", workflow=workflow, reason=reason)


async def find_move(session: AsyncSession, plan: Plan, process: Process) -> PlanChanged | None:
    """Return the event that moves a process to the plan of this program; ``None`` when it needs none.

    Without a plan in its row, which an older engine has stored, it is taken over without a word.

    Raises:
        PlanMismatchError: the process has another plan, and the plan of this program is not the registered one.
    """
    if process.plan == plan.fingerprint:
        return None
    registered = await find_registered(session, process.workflow)
    if registered is None and process.plan is None:
        return None
    if registered is None or registered.fingerprint != plan.fingerprint:
        raise PlanMismatchError(await _explain(session, plan, process, registered))
    if process.plan is None:
        return None
    stored = await read_steps(session, process.workflow, process.plan)
    return PlanChanged(None if stored is None else stored[1], registered.number)


async def _explain(session: AsyncSession, plan: Plan, process: Process, registered: Numbered | None) -> str:
    workflow = process.workflow
    has, own = [await _name(session, workflow, one) for one in (process.plan, plan.fingerprint)]
    text = f"the process has {has} of the workflow {workflow!r}, and this program has {own}"
    if registered is None:
        return f"{text}; none is registered yet: start a coordinator or consumer"
    if registered.fingerprint == process.plan:
        return f"{text}: use a program with the code of plan {registered.number}, which is the registered one"
    return (
        f"{text}; the registered one is plan {registered.number}: use a program with that code, or make plan"
        f" {own.removeprefix('plan ')} the registered one ('orchestrator plans activate')"
    )


async def _name(session: AsyncSession, workflow: str, fingerprint: str | None) -> str:
    if fingerprint is None:
        return "no plan"
    stored = await read_steps(session, workflow, fingerprint)
    return f"the unregistered plan {fingerprint}" if stored is None else f"plan {stored[0]}"
