"""Load all workflows of a program: those that ship with the engine and those of the user's project."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.declared_schedules import Schedule, check_workflows
from orchestrator.registry import LazyWorkflowInstance, import_modules, known_workflows


def load_workflows(modules: Sequence[str], *, shipped_schedules: bool = True) -> None:
    """Register what ships, import the user's modules, and check the schedules that they declare and the rules they change.

    Args:
        shipped_schedules: whether the schedules that ship start anything, if they are meant to by default.

    Raises:
        DefinitionError: a module cannot be imported, or a schedule or rule is invalid; the text names it.
    """
    LazyWorkflowInstance("orchestrator.workflows.modify_note", "modify_note")
    LazyWorkflowInstance("orchestrator.workflows.tasks.cleanup_tasks_log", "task_clean_up_tasks")
    LazyWorkflowInstance("orchestrator.workflows.tasks.resume_workflows", "task_resume_workflows")
    LazyWorkflowInstance("orchestrator.workflows.tasks.validate_product_type", "task_validate_product_type")
    LazyWorkflowInstance("orchestrator.workflows.tasks.validate_products", "task_validate_products")
    LazyWorkflowInstance("orchestrator.workflows.tasks.validate_subscriptions", "task_validate_subscriptions")
    _declare_schedules(enabled=shipped_schedules)
    if modules:
        import_modules(modules)
        # Its import takes longer than everything else here, and no project means no changed rules.
        from orchestrator.services.subscriptions import check_rules

        check_rules()
    check_workflows(known_workflows())


def _declare_schedules(*, enabled: bool) -> None:
    """Declare when the tasks that ship start. Off, they are still there, so that a person can enable one of them."""
    Schedule("Clean up finished tasks", "task_clean_up_tasks", cron="20 2 * * *", enabled=enabled)
    Schedule("Validate products", "task_validate_products", cron="40 2 * * *", enabled=enabled)
    # Processes that wait are tried again by themselves, when their author's retry policy says. Sooner is a decision.
    Schedule("Resume waiting workflows", "task_resume_workflows", cron="0 * * * *", enabled=False)
    # It looks at the network once for each subscription, and what that costs only its owner knows.
    Schedule("Validate all subscriptions", "task_validate_subscriptions", cron="10 0 * * *", enabled=False)
