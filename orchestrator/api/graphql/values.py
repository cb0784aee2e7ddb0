"""The types of the schema that refer to no others."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import strawberry

from orchestrator.db.schedules.rows import StoredSchedule
from orchestrator.engine.trigger_input import write_fields
from orchestrator.services.customers import Customer
from orchestrator.services.schedule_reading import ListedSchedule, ScheduleState, describe


@strawberry.type(description="A customer, by the names that the project's function knows; else by its id.")
class CustomerType:
    """A customer."""

    customer_id: str
    fullname: str
    shortcode: str

    @classmethod
    def of(cls, customer: Customer) -> CustomerType:
        """Return a customer."""
        return cls(customer_id=customer.customer_id, fullname=customer.fullname, shortcode=customer.shortcode)


@strawberry.type(description="A property of a product that no subscription changes.")
class FixedInput:
    """A property of a product that no subscription changes."""

    name: str
    value: str


@strawberry.type(description="What the caller may do with a process, as far as roles and the project's callbacks say.")
class UserPermissions:
    """What the caller may do with a process."""

    retry_allowed: bool
    resume_allowed: bool


@strawberry.type(description="How a customer describes a subscription; the engine stores none.")
class CustomerDescription:
    """A description by a customer."""

    id: str | None
    subscription_id: str | None
    customer_id: str | None
    description: str | None


@strawberry.type(description="A step of a workflow, and who is to act on it.")
class WorkflowStep:
    """A step of a workflow."""

    name: str
    assignee: str | None


@strawberry.type(description="A task that starts by itself.")
class ScheduledTask:
    """A task that starts by itself."""

    id: str
    name: str
    next_run_time: datetime | None
    trigger: str
    workflow_id: str | None

    @classmethod
    def of(cls, stored: StoredSchedule) -> ScheduledTask:
        """Return a schedule. One that starts nothing has no next time, and its state stands with the trigger."""
        listed = describe(stored)
        workflow_id = stored.workflow_id
        return cls(
            id=str(stored.schedule_id),
            name=stored.name,
            next_run_time=stored.next_slot if listed.state is ScheduleState.ENABLED else None,
            trigger=_write_trigger(stored.trigger, listed),
            workflow_id=None if workflow_id is None else str(workflow_id),
        )


@strawberry.type(description="What answers.")
class VersionType:
    """What answers."""

    application_versions: list[str]


def _write_trigger(trigger: Mapping[str, Any], listed: ListedSchedule) -> str:
    """Return a trigger as people read it; its kind, which the field's user interface draws, comes first."""
    kind, fields, zone = write_fields(trigger)
    words = [kind, *(f"{name}={value}" for name, value in fields.items())]
    if kind == "cron":
        words.append(zone)
    if listed.state is not ScheduleState.ENABLED:
        words.append(f"({listed.state.value})")
    return " ".join(words)
