"""Select processes by an operator's conditions, for the list and for bulk commands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

# Includes removed workflows, because the processes of a workflow that was registered again belong to several rows.
_OF_WORKFLOW = "workflow_id IN (SELECT workflow_id FROM workflows WHERE name = {})"
_OF_SUBSCRIPTION = (
    "process_id IN (SELECT process_id FROM processes_subscriptions WHERE subscription_id BETWEEN {} AND {})"
)
_OF_CUSTOMER = (
    "process_id IN (SELECT process_id FROM processes_subscriptions JOIN subscriptions USING (subscription_id)"
    " WHERE customer_id = {})"
)
_ID_DIGITS = 32


@dataclass(frozen=True, slots=True)
class ProcessFilter:
    """Conditions on processes; all that are given must hold.

    Args:
        step: the present step.
        since, until: when it changed last.
        subscription: the hexadecimal digits, without hyphens, with which the id of a subscription begins that it has touched.
        customer: the ``customer_id`` of such a subscription.
        assignee: who must act on it.
    """

    statuses: Sequence[str] = ()
    workflow: str | None = None
    step: str | None = None
    is_task: bool | None = None
    since: datetime | None = None
    until: datetime | None = None
    subscription: str | None = None
    customer: str | None = None
    assignee: str | None = None

    @property
    def is_empty(self) -> bool:
        """Whether every process matches."""
        return self == ProcessFilter()

    def where(self) -> tuple[str, list[object]]:
        """Return the SQL condition about a row of ``processes``, and the values of its parameters, from ``$1`` on."""
        parts: list[tuple[str, list[object]]] = []
        if self.statuses:
            parts.append(("status = ANY({}::text[])", [list(self.statuses)]))
        if self.workflow is not None:
            parts.append((_OF_WORKFLOW, [self.workflow]))
        if self.step is not None:
            parts.append(("step = {}", [self.step]))
        if self.is_task is not None:
            parts.append(("is_task = {}", [self.is_task]))
        if self.since is not None:
            parts.append(("updated_at >= {}", [self.since]))
        if self.until is not None:
            parts.append(("updated_at < {}", [self.until]))
        if self.subscription is not None:
            bounds: list[object] = [self.subscription.ljust(_ID_DIGITS, filler) for filler in "0f"]
            parts.append((_OF_SUBSCRIPTION, bounds))
        if self.customer is not None:
            parts.append((_OF_CUSTOMER, [self.customer]))
        if self.assignee is not None:
            parts.append(("assignee = {}", [self.assignee]))
        conditions: list[str] = []
        values: list[object] = []
        for sql, given in parts:
            conditions.append(sql.format(*(f"${len(values) + number}" for number in range(1, len(given) + 1))))
            values += given
        return " AND ".join(conditions) or "true", values
