"""For how long finished tasks are kept: what authors may say, and what it means for the rows of the table of workflows."""

from __future__ import annotations

import sys
from datetime import timedelta
from types import ModuleType
from uuid import uuid4

import pytest

from orchestrator import registry
from orchestrator.db.retention import StoredWorkflow
from orchestrator.engine.plan import Plan
from orchestrator.errors import DefinitionError
from orchestrator.registry import LazyWorkflowInstance
from orchestrator.services.retention import find_rules
from orchestrator.workflow import KEEP_FOREVER, StepList, Workflow, begin, step, workflow
from orchestrator.workflows.utils import task, validate_workflow

MODULE = "a_module_of_tasks"
DAY = 86_400.0


@step("a")
def _a() -> None:
    """Do nothing."""


def steps() -> StepList:
    return begin >> _a


def make(name: str, retention: timedelta | None) -> Workflow:
    """Return a task of this name."""

    def function() -> StepList:
        return steps()

    function.__name__ = name
    return task(retention=retention)(function)


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register four tasks, one of them broken."""
    module = ModuleType(MODULE)
    for name, retention in (("plain", None), ("short", timedelta(hours=2)), ("precious", KEEP_FOREVER)):
        setattr(module, name, make(name, retention))
    monkeypatch.setitem(sys.modules, MODULE, module)
    monkeypatch.setattr(registry, "_instances", {})
    for name in ("plain", "short", "precious", "broken"):
        LazyWorkflowInstance(MODULE, name)


@pytest.mark.parametrize(
    ("rows", "seconds", "unknown"),
    [
        ([("plain", False)], [3 * DAY], []),
        ([("short", False)], [7200], []),
        ([("precious", False)], [], []),
        ([("broken", False)], [], ["broken"]),
        ([("another", False)], [], ["another"]),
        ([("another", True)], [3 * DAY], []),
        ([("another", True), ("another", False)], [], ["another"]),
        ([("short", True), ("short", False)], [7200, 7200], []),
        ([("precious", True)], [], []),
    ],
)
def test_what_the_code_says_counts_and_without_code_only_removed_workflows_expire(
    rows: list[tuple[str, bool]], seconds: list[float], unknown: list[str]
) -> None:
    found = find_rules([StoredWorkflow(uuid4(), *row) for row in rows], 3)
    assert [one.seconds for one in found.rules] == seconds
    assert list(found.unknown) == unknown


@pytest.mark.parametrize("retention", [3, 0.5, "3 days", timedelta(seconds=-1)])
def test_a_retention_that_is_no_time_is_refused(retention: object) -> None:
    with pytest.raises(DefinitionError, match=r"the retention of the task 'steps' is a timedelta of at least 0"):
        task(retention=retention)(steps)  # type: ignore[arg-type]


def test_only_tasks_have_a_retention() -> None:
    with pytest.raises(DefinitionError, match=r"the workflow 'steps' has a retention, but only tasks are ever deleted"):
        workflow(retention=timedelta(days=1))(steps)
    assert validate_workflow(retention=timedelta(days=1))(steps).retention == timedelta(days=1)


def test_a_retention_is_no_part_of_the_plan() -> None:
    """Who changes it moves no process to another plan."""
    assert Plan.of(make("same", None)).fingerprint == Plan.of(make("same", KEEP_FOREVER)).fingerprint
