"""Errors that authors raise, where orchestrator-core has them, so that ports need no other import.

Only for ports; new code imports them from :mod:`orchestrator.errors`.
"""

from __future__ import annotations

from orchestrator.errors import ProcessFailureError

__all__ = ["ProcessFailureError"]
