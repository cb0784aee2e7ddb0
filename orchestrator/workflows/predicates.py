"""Run predicates that ship: conditions for a start that many tasks have."""

from __future__ import annotations

from orchestrator.services.predicates import no_uncompleted_instance

__all__ = ["no_uncompleted_instance"]
