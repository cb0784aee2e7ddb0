"""What a workflow is for. The strings are stored in the database and shown to people."""

from __future__ import annotations

from enum import StrEnum


class Target(StrEnum):
    """The kind of change a workflow makes; ``SYSTEM`` and ``VALIDATE`` workflows are tasks."""

    CREATE = "CREATE"
    MODIFY = "MODIFY"
    TERMINATE = "TERMINATE"
    SYSTEM = "SYSTEM"
    VALIDATE = "VALIDATE"
    RECONCILE = "RECONCILE"
