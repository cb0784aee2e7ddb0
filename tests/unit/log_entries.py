"""Log entries for tests that read logs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from orchestrator.engine.log import LogEntry
from orchestrator.types import State

NOW = datetime(2026, 11, 23, tzinfo=UTC)


def entry(
    sequence: int, name: str, attempt: int, *, kind: str = "step", delta: State | None = None, removed: str = ""
) -> LogEntry:
    """Return an entry; ``removed`` has keys of the state between spaces."""
    return LogEntry(
        sequence=sequence,
        kind=kind,
        name=name,
        position=None,
        attempt=attempt,
        status="success",
        delta=delta or {},
        removed=tuple(removed.split()),
        failure=None,
        note=None,
        author="alice",
        consumer="host:1",
        started_at=NOW,
        finished_at=NOW + timedelta(milliseconds=5),
    )
