"""Load all workflows of a program: those that ship with the engine and those of the user's project."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.declared_schedules import check_workflows
from orchestrator.registry import LazyWorkflowInstance, import_modules, known_workflows


def load_workflows(modules: Sequence[str]) -> None:
    """Register what ships, import the user's modules, and check the schedules that they declare and the rules they change.

    Raises:
        DefinitionError: a module cannot be imported, or a schedule or rule is invalid; the text names it.
    """
    LazyWorkflowInstance("orchestrator.workflows.modify_note", "modify_note")
    LazyWorkflowInstance("orchestrator.workflows.tasks.cleanup_tasks_log", "task_clean_up_tasks")
    if modules:
        import_modules(modules)
        # Its import takes longer than everything else here, and no project means no changed rules.
        from orchestrator.services.subscriptions import check_rules

        check_rules()
    check_workflows(known_workflows())
