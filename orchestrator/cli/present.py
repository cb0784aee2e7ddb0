"""Show the processes, coordinators and running steps of this moment, as parts of ``orchestrator status``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from orchestrator.cli.output import Output, clean
from orchestrator.cli.render import clock, fields_of, short
from orchestrator.db.present import (
    ConnectedProgram,
    RunningStep,
    count_by_status,
    list_connected,
    list_running_steps,
)
from orchestrator.registry import timeout_of
from orchestrator.text import format_span

if TYPE_CHECKING:
    from orchestrator.db.session import Driver

SHOWN = 20
"""Running steps that are shown to people, the oldest."""

LISTED = 1000
"""Running steps that the document has, the oldest."""


@dataclass(frozen=True, slots=True)
class Present:
    """What there is at this moment.

    Args:
        default_timeout: seconds of a step that sets no timeout itself.
    """

    by_status: Mapping[str, int]
    coordinators: Sequence[ConnectedProgram]
    steps: Sequence[RunningStep]
    default_timeout: float

    @classmethod
    async def read(cls, connection: Driver, default_timeout: float) -> Present:
        """Read it."""
        return cls(
            await count_by_status(connection),
            await list_connected(connection, "coordinator"),
            await list_running_steps(connection, LISTED),
            default_timeout,
        )

    def document(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "processes": dict(self.by_status),
            "coordinators": [fields_of(one) for one in self.coordinators],
            "running_steps": [fields_of(one) | {"until": self._end_of(one)} for one in self.steps],
        }

    def show_counts(self, output: Output) -> None:
        """Print how many processes there are, and which coordinators."""
        counts = ", ".join(f"{number} {clean(status)}" for status, number in self.by_status.items())
        output.line(f"processes: {counts or 'none'}")
        names = ", ".join(
            clean(one.name)
            + (f" (connected since {clock(one.connected_since)})" if one.connected_since is not None else "")
            for one in self.coordinators
        )
        output.line(f"coordinators: {names or 'none is connected to PostgreSQL'}")

    def show_steps(self, output: Output) -> None:
        """Print which steps run, where, since when, and until when at the latest."""
        if not self.steps:
            return
        output.line()
        output.table(
            ("process", "workflow", "running step", "consumer", "since", "for", "timeout at"),
            [
                (
                    short(one.process_id),
                    clean(one.workflow),
                    clean(one.step or ""),
                    clean(one.consumer or "gone"),
                    clock(one.claimed_at),
                    format_span(one.running_for),
                    clock(self._end_of(one)),
                )
                for one in self.steps[:SHOWN]
            ],
        )
        more = len(self.steps) - SHOWN
        if more > 0:
            several = f"{more} more" if len(self.steps) < LISTED else f"more than {more} others"
            output.line((f"and {several}, which began later", "dim"))

    def _end_of(self, one: RunningStep) -> datetime:
        own = timeout_of(one.workflow, one.step)
        return one.claimed_at + timedelta(seconds=self.default_timeout if own is None else own)
