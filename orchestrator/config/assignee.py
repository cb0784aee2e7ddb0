"""Who is asked by an input step, where orchestrator-core has it, so that ports need no other import.

Only for ports; new code imports it from :mod:`orchestrator.types`.
"""

from __future__ import annotations

from orchestrator.types import Assignee

__all__ = ["Assignee"]
