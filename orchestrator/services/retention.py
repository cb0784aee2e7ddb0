"""Decide what has expired: for how long finished tasks of each workflow are kept, and records of other kinds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from orchestrator.db.retention import RecordKind, Rule, StoredWorkflow
from orchestrator.errors import DefinitionError, NotFoundError
from orchestrator.registry import plan_of, ships_with_engine
from orchestrator.workflow import KEEP_FOREVER

RECORDS: Final = (
    RecordKind("schedule_slots", "at", 30),
    RecordKind("deleted_processes", "deleted_at", 365),
)
"""What a clean-up deletes besides tasks. The times of slots are not what keeps a slot from being started twice."""


@dataclass(frozen=True, slots=True)
class Rules:
    """For how long finished tasks are kept.

    Args:
        rules: one for each workflow whose tasks expire.
        unknown: workflows whose tasks are kept, because this program cannot say for how long: it lacks their code.
    """

    rules: tuple[Rule, ...]
    unknown: tuple[str, ...]


def find_rules(stored: Iterable[StoredWorkflow], days: int) -> Rules:
    """Return for how long finished tasks of the stored workflows are kept.

    Args:
        days: for workflows that do not say it themselves, and for those that were removed from the code and the database.
    """
    rules: list[Rule] = []
    unknown: list[str] = []
    rows = list(stored)
    present = {one.name for one in rows if not one.is_removed}
    for one in rows:
        try:
            span = _find_own(one.name)
        except (NotFoundError, DefinitionError):
            if one.name in present:
                unknown.append(one.name)
                continue
            span = None
        if span != KEEP_FOREVER:
            seconds = days * 86_400.0 if span is None else span.total_seconds()
            rules.append(Rule(one.workflow_id, one.name, seconds))
    return Rules(tuple(rules), tuple(dict.fromkeys(unknown)))


def _find_own(workflow: str) -> timedelta | None:
    # None of those that ship says it, and their modules need not be imported for that.
    return None if ships_with_engine(workflow) else plan_of(workflow).workflow.retention
