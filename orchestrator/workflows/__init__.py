"""What users import to register their workflows."""

from __future__ import annotations

from orchestrator.registry import LazyWorkflowInstance

__all__ = ["LazyWorkflowInstance"]
