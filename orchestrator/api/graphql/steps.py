"""The steps of a process as a timeline shows them: all attempts in their order, then the steps to come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import strawberry
from pydantic_core import from_json
from strawberry.scalars import JSON

from orchestrator.api.process_document import list_steps_to_come
from orchestrator.db.processes.logs import Place
from orchestrator.engine.state import read_leniently
from orchestrator.types import ProcessStatus, StepStatus

_ABORTED: Final = ProcessStatus.ABORTED.value


@strawberry.type(description="An attempt of a step, or a step to come.")
class ProcessStep:
    """An attempt of a step, or a step to come."""

    step_id: str | None
    name: str
    status: str
    started: datetime | None
    completed: datetime | None
    state_delta: JSON | None


def list_steps(place: Place | None, entries: Sequence[Mapping[str, Any]]) -> list[ProcessStep]:
    """Return the steps of a process. What was done to the process itself is none, but for its end by an abort."""
    found = [
        ProcessStep(
            step_id=str(one["sequence"]),
            name=one["name"],
            status=one["status"] if one["kind"] == "step" else StepStatus.ABORT.value,
            started=one["started_at"],
            completed=one["finished_at"],
            state_delta=JSON(_read_delta(one["delta"], one["failure"])),
        )
        for one in entries
        if one["kind"] == "step" or one["status"] == _ABORTED
    ]
    to_come = [] if place is None else list_steps_to_come(place)
    return found + [
        ProcessStep(
            step_id=None,
            name=one["name"],
            status=one["status"],
            started=one["started_at"],
            completed=None,
            state_delta=None,
        )
        for one in to_come
    ]


def _read_delta(delta: str | None, failure: str | None) -> dict[str, Any]:
    """Return what a step has changed, and what its failure says under names that user interfaces show."""
    found = read_leniently(delta)
    if failure is not None:
        said: dict[str, Any] = from_json(failure) or {}
        shown = {"class": said.get("type"), "error": said.get("message"), "details": said.get("details")}
        found = {name: value for name, value in shown.items() if value is not None} | found
    return found
