"""Write one process as JSON: put together from the texts that the database has written, in a thread.

A state may have megabytes. Reading and writing it again would hold the event loop, and with it every other request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

from pydantic_core import from_json, to_json

from orchestrator.db.processes.detail import ProcessDetail
from orchestrator.errors import DefinitionError, NotFoundError
from orchestrator.registry import plan_of
from orchestrator.types import JSON, ProcessStatus

_NO_ENTRY: Final[Mapping[str, None]] = dict.fromkeys(
    (
        "sequence",
        "attempt",
        "position",
        "started_at",
        "completed_at",
        "created_by",
        "consumer",
        "state_delta",
        "removed",
        "failure",
        "note",
    )
)


def write_process(detail: ProcessDetail, form: JSON, explanation: Mapping[str, Any] | None) -> bytes:
    """Return the document of a process.

    Args:
        form: what the process waits for.
        explanation: why it does not go on.
    """
    subscriptions: list[dict[str, Any]] = from_json(detail.subscriptions)
    first = subscriptions[0] if subscriptions else {}
    to_come = [to_json(step).decode() for step in list_steps_to_come(detail)]
    more = to_json(
        {
            "product_id": first.get("product", {}).get("product_id"),
            "customer_id": first.get("customer_id"),
            "form": form,
            "waits_for": explanation,
        }
    ).decode()
    steps = ",".join([detail.steps, *to_come] if detail.steps else to_come)
    return (
        f'{detail.head[:-1]},{more[1:-1]},"subscriptions":{detail.subscriptions},"callback":{detail.callback or "null"},'
        f'"steps":[{steps}],"current_state":{detail.state}}}'
    ).encode()


class Stands(Protocol):
    """Where a process stands."""

    @property
    def workflow(self) -> str:
        """Its name."""

    @property
    def status(self) -> str:
        """Of the process."""

    @property
    def step(self) -> str | None:
        """The step that is next, or under way."""

    @property
    def position(self) -> int:
        """Of that step."""

    @property
    def claimed_at(self) -> Any:
        """Since when a consumer runs it."""

    @property
    def has_entry(self) -> bool:
        """Whether the newest entry about a step is about this one."""


def list_steps_to_come(detail: Stands) -> list[dict[str, Any]]:
    """Return the steps that have no entry in the log yet, as entries; none when this program lacks the workflow."""
    status = ProcessStatus(detail.status)
    if status.is_final:
        return []
    try:
        leaves = plan_of(detail.workflow).leaves
    except (NotFoundError, DefinitionError):
        return []
    names = [leaf.step.name for leaf in leaves]
    current = names.index(detail.step) if detail.step in names else detail.position
    first = current + 1 if detail.has_entry and status is not ProcessStatus.RUNNING else current
    found = [{**_NO_ENTRY, "kind": "step", "name": name, "status": "pending"} for name in names[first:]]
    if found and first == current and detail.claimed_at is not None:
        found[0] |= {"status": "running", "started_at": detail.claimed_at}
    return found
