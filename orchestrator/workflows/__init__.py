"""What ships: the workflow types, their steps, and the workflows that every project has.

Users import :class:`LazyWorkflowInstance` from here to register theirs.
"""

from __future__ import annotations

from orchestrator.registry import LazyWorkflowInstance

__all__ = ["LazyWorkflowInstance"]
