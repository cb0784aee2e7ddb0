"""Brings a program all its workflows: those that ship with the engine and those of the user's project."""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.registry import LazyWorkflowInstance, import_modules
from orchestrator.services.subscriptions import check_rules


def load_workflows(modules: Iterable[str]) -> None:
    """Register what ships, import the user's modules, and look at the rules that these have changed.

    Raises:
        DefinitionError: a module cannot be imported, or a rule can never be right; the text names it.
    """
    LazyWorkflowInstance("orchestrator.workflows.modify_note", "modify_note")
    import_modules(modules)
    check_rules()
