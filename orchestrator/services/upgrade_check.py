"""Check before a deployment what this program's code would do to the processes and subscriptions that there are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.plans import list_plans
from orchestrator.db.processes.unfinished import iterate_unfinished
from orchestrator.engine.plan import Outline
from orchestrator.engine.process import Process
from orchestrator.engine.upgrade_check import Finding, Trouble, check_process
from orchestrator.errors import ConfigurationError, ConflictError, DefinitionError, InvalidInputError, NotFoundError
from orchestrator.registry import plan_of
from orchestrator.services.control import try_form
from orchestrator.services.model_comparison import compare_models
from orchestrator.types import ProcessStatus

MAX_FORMS = 5
"""Suspended processes of one step whose forms are made: that runs user code, which may take its time."""

MAX_IDS = 100
"""Processes that a finding names; it counts the others."""


@dataclass(slots=True)
class Group:
    """A finding, and the processes that it is about: all their number, and the first ids."""

    finding: Finding
    count: int = 0
    process_ids: list[UUID] = field(default_factory=list)

    def add(self, process_id: UUID) -> None:
        """Count a process."""
        self.count += 1
        if len(self.process_ids) < MAX_IDS:
            self.process_ids.append(process_id)

    def document(self) -> dict[str, Any]:
        """Return it as JSON."""
        one = self.finding
        return {
            "key": one.trouble.value,
            "breaks": one.breaks,
            "workflow": one.workflow,
            "step": one.step,
            "what": one.what,
            "todo": one.todo,
            "count": self.count,
            "process_ids": self.process_ids,
        }


@dataclass(frozen=True, slots=True)
class UpgradeReport:
    """What this code would do.

    Args:
        unfinished: how many processes were checked.
        groups: by workflow and step; what breaks comes first.
        models: why subscriptions could not be loaded, with what to do; ``None`` when that was not compared.
    """

    unfinished: int
    groups: Sequence[Group]
    models: Sequence[str] | None

    @property
    def breaks(self) -> bool:
        """Return whether something must be dealt with before the code is deployed."""
        return bool(self.models) or any(one.finding.breaks for one in self.groups)

    def document(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "breaks": self.breaks,
            "unfinished": self.unfinished,
            "findings": [one.document() for one in self.groups],
            "models": None if self.models is None else list(self.models),
        }


async def check_upgrade(session: AsyncSession, *, models: bool = True) -> UpgradeReport:
    """Return what the code of this program would do to all unfinished processes. Nothing is changed or locked.

    Args:
        models: whether to compare the models with the subscriptions, too.
    """
    outlines = {(one.workflow, one.fingerprint): tuple(one.steps) for one in await list_plans(session)}
    groups: dict[Finding, Group] = {}
    suspended: dict[tuple[str, str | None], list[Process]] = {}
    unfinished = 0
    async for process in iterate_unfinished(session):
        unfinished += 1
        before = outlines.get((process.workflow, process.plan or ""))
        findings = list(_check(process, before))
        for finding in findings:
            groups.setdefault(finding, Group(finding)).add(process.process_id)
        if process.status is ProcessStatus.SUSPENDED and not any(one.breaks for one in findings):
            some = suspended.setdefault((process.workflow, process.step), [])
            some += [process] if len(some) < MAX_FORMS else []
    for process in (one for some in suspended.values() for one in some):
        async for finding in _check_form(session, process):
            groups.setdefault(finding, Group(finding)).add(process.process_id)
    ordered = sorted(groups.values(), key=_order)
    return UpgradeReport(unfinished, ordered, await _check_models(session) if models else None)


def _check(process: Process, before: Outline | None) -> Iterator[Finding]:
    try:
        plan = plan_of(process.workflow)
    except NotFoundError:
        yield Finding(
            Trouble.WORKFLOW_GONE,
            process.workflow,
            process.step,
            "the code does not register this workflow: no program with this code goes on with the process",
            "keep its module and its LazyWorkflowInstance until its last process has ended, or abort these processes",
        )
    except DefinitionError as error:
        yield Finding(
            Trouble.WORKFLOW_BROKEN,
            process.workflow,
            process.step,
            f"the module of this workflow is broken: {error}",
            "correct it, or install what it needs",
        )
    else:
        yield from check_process(plan, process, before)


async def _check_form(session: AsyncSession, process: Process) -> AsyncIterator[Finding]:
    """Yield why the form that a process waits for cannot be made."""
    try:
        async with session.begin_nested():
            await try_form(session, process)
    except (ConflictError, DefinitionError, NotFoundError) as error:
        yield Finding(
            Trouble.FORM,
            process.workflow,
            process.step,
            f"the form cannot be shown: {error}",
            "correct the form: nobody can give input to these processes",
        )


async def _check_models(session: AsyncSession) -> list[str]:
    """Return why the code's models cannot load all subscriptions, with what to do."""
    try:
        return [str(one) for one in (await compare_models(session, {}, drop_values=False)).drift]
    except (ConfigurationError, InvalidInputError) as error:
        return [f"{error} ('orchestrator db migrate-domain-models')"]


def _order(group: Group) -> tuple[bool, str, str, str, str]:
    one = group.finding
    return not one.breaks, one.workflow, one.step or "", one.trouble.value, one.what
