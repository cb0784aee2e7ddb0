"""What a request says about a schedule: as the field's user interface writes it, and as programs do."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from orchestrator.engine.schedule import LONGEST_JITTER, MISSED_LIMIT, MOST_MADE_UP, Missed, Overlap, ScheduleDefinition
from orchestrator.engine.trigger_input import build_trigger, write_fields
from orchestrator.engine.triggers import Trigger
from orchestrator.engine.zones import find_zone
from orchestrator.messages import Name
from orchestrator.services.schedules import ScheduleChanges
from orchestrator.text import MAX_NOTE, MAX_REASON

Kind = Literal["cron", "interval", "date"]

_KWARGS: Final = (
    "cron: any of minute, hour, day, month, day_of_week (0 and 7 are Sunday), start_date, end_date; interval: weeks, days,"
    " hours, minutes, seconds, start_date, end_date; date: run_date. Times have an offset."
)


class _Options(BaseModel):
    """What a schedule has beside its trigger and its pages."""

    model_config = ConfigDict(extra="forbid")

    missed: Missed = Field(Missed.ONCE, description="What becomes of slots at which no coordinator ran.")
    missed_limit: int = Field(
        MISSED_LIMIT, ge=1, le=MOST_MADE_UP, description="For `missed` = `all`: the newest ones are made up for."
    )
    overlap: Overlap = Field(
        Overlap.SKIP, description="What becomes of a slot while the process of an earlier one is still running."
    )
    jitter: float = Field(
        0,
        ge=0,
        le=LONGEST_JITTER,
        description="Seconds by which a start is late at most; how late follows from the slot.",
    )
    note: str | None = Field(None, max_length=MAX_NOTE)
    enabled: bool = Field(True, description="`false` is the same as paused.")


class ScheduleCreation(_Options):
    """A new schedule. The workflow is named by its id, by its name, or by both."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "name": "check ports at night",
                    "workflow_name": "check_ports",
                    "trigger": "cron",
                    "trigger_kwargs": {"hour": "2", "minute": "30"},
                    "zone": "Europe/Amsterdam",
                    "user_inputs": [{"site": "ams"}],
                }
            ]
        },
    )

    scheduled_type: Literal["create"] = "create"
    name: str = Field(max_length=200, description="Unique.")
    workflow_id: UUID | None = None
    workflow_name: Name | None = None
    trigger: Kind
    trigger_kwargs: dict[str, Any] = Field(description=_KWARGS)
    zone: str = Field("UTC", max_length=200, description="The time zone of a cron expression.")
    user_inputs: list[dict[str, Any]] = Field(default_factory=list, description="The pages of the workflow's form.")

    def define(self, workflow: str, now: datetime) -> ScheduleDefinition:
        """Return the schedule.

        Args:
            workflow: the name of the workflow.
            now: where an interval without a start begins.

        Raises:
            InvalidInputError: a field cannot be used; the text names it.
        """
        return ScheduleDefinition(
            self.name,
            workflow,
            _build(self.trigger, self.trigger_kwargs, self.zone, now),
            tuple(self.user_inputs),
            self.enabled,
            self.missed,
            self.missed_limit,
            self.overlap,
            timedelta(seconds=self.jitter),
            self.note,
        )


class ScheduleChange(_Options):
    """What is to be different; what is not given stays. Name and workflow cannot be changed."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"trigger_kwargs": {"hour": "3", "minute": "0"}}]}
    )

    trigger: Kind | None = Field(None, description="With another one, give `trigger_kwargs` as well.")
    trigger_kwargs: dict[str, Any] | None = Field(None, description=_KWARGS)
    zone: str | None = Field(None, max_length=200, description="The time zone of a cron expression.")
    user_inputs: list[dict[str, Any]] | None = Field(None, description="The pages of the workflow's form.")

    def list_changes(self, stored: Mapping[str, Any], now: datetime) -> ScheduleChanges:
        """Return the changes.

        Args:
            stored: the trigger that the schedule has, as the database keeps it.

        Raises:
            InvalidInputError: a field cannot be used; the text names it.
        """
        given = self.model_fields_set
        found = ScheduleChanges()
        if given & {"trigger", "trigger_kwargs", "zone"}:
            found["trigger"] = self._build_trigger(stored, now)
        if self.user_inputs is not None:
            found["inputs"] = self.user_inputs
        if "missed" in given:
            found["missed"] = self.missed
        if "missed_limit" in given:
            found["missed_limit"] = self.missed_limit
        if "overlap" in given:
            found["overlap"] = self.overlap
        if "jitter" in given:
            found["jitter"] = timedelta(seconds=self.jitter)
        if "note" in given:
            found["note"] = self.note
        return found

    def _build_trigger(self, stored: Mapping[str, Any], now: datetime) -> Trigger:
        kind, kwargs, zone = write_fields(stored)
        chosen = self.trigger or kind
        given = kwargs if self.trigger_kwargs is None else self.trigger_kwargs
        if chosen == kind == "interval" and given.get("start_date") is None:
            # Its slots are counted from there: a change of something else does not move them.
            given = {**given, "start_date": kwargs.get("start_date")}
        return _build(chosen, given, zone if self.zone is None else self.zone, now)


class ScheduleUpdate(ScheduleChange):
    """A change of a schedule, as the field's user interface names it."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "scheduled_type": "update",
                    "schedule_id": "3f2a9c41-5b7e-4c1d-9f2a-8e6d4b3c2a10",
                    "trigger": "interval",
                    "trigger_kwargs": {"hours": 6},
                }
            ]
        },
    )

    scheduled_type: Literal["update"] = "update"
    schedule_id: UUID


class ScheduleRemoval(BaseModel):
    """A schedule that is to be removed, as the field's user interface names it."""

    model_config = ConfigDict(extra="forbid")

    scheduled_type: Literal["delete"] = "delete"
    schedule_id: UUID
    workflow_id: UUID | None = Field(None, description="If given, it must be the schedule's workflow.")


class PauseReason(BaseModel):
    """Why a schedule is paused; the body may be left out."""

    model_config = ConfigDict(extra="forbid")

    reason: str | None = Field(None, max_length=MAX_REASON)


def _build(kind: str, kwargs: Mapping[str, object], zone: str, now: datetime) -> Trigger:
    return build_trigger(kind, kwargs, zone=find_zone(zone), now=now)
