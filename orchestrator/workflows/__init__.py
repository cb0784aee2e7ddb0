"""What ships: the workflow types, their steps, and the workflows that every project has.

Users import :class:`LazyWorkflowInstance` from here to register theirs, and :class:`Schedule` to let them start by themselves.
"""

from __future__ import annotations

from orchestrator.declared_schedules import Schedule
from orchestrator.registry import LazyWorkflowInstance

__all__ = ["LazyWorkflowInstance", "Schedule"]
