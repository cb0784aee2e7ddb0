"""A process's log as it is read back, and what can be computed from it alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from orchestrator.types import JSON, State

_BETWEEN_TRIES = {"waiting", "due again"}
"""The names of the log entries of a process between two automatic tries."""


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One entry of a process's log: an attempt of a step, or something done to the process.

    Args:
        attempt: the engine's fencing number, which counts over the whole process.
        consumer: who ran it; ``None`` for entries about which no function ran.
    """

    sequence: int
    kind: str
    name: str
    position: int | None
    attempt: int
    status: str
    delta: State
    removed: tuple[str, ...]
    failure: dict[str, JSON] | None
    note: str | None
    author: str
    consumer: str | None
    started_at: datetime
    finished_at: datetime


class EntryName(NamedTuple):
    """The fields of an entry from which the try of its step is computed."""

    sequence: int
    kind: str
    name: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Repeats:
    """A run of automatic tries of a step that failed with the same error.

    Args:
        first, last: the same for an entry that stands alone.
    """

    first: LogEntry
    last: LogEntry
    count: int


def is_repeated(before: LogEntry, after: LogEntry) -> bool:
    """Return whether an entry repeats an earlier one: its step has failed again with the same error."""
    if before.failure is None or after.failure is None or before.kind != after.kind or before.name != after.name:
        return False
    unchanged = ("type", "message", "details")
    return [before.failure.get(one) for one in unchanged] == [after.failure.get(one) for one in unchanged] and (
        before.note == after.note and not after.delta and not after.removed
    )


def is_between_tries(entry: LogEntry) -> bool:
    """Return whether an entry only says that a step waits for its next try, or that it has come."""
    return entry.kind != "step" and entry.name in _BETWEEN_TRIES and entry.note is None


def fold_repeats(entries: Sequence[LogEntry]) -> list[Repeats]:
    """Return the entries with repeated tries folded into one, without the entries between these."""
    found: list[Repeats] = []
    failed: int | None = None
    """Where in it the failure stands that the next one may repeat."""
    for entry in entries:
        if failed is not None and is_repeated(found[failed].last, entry):
            found[failed:] = [Repeats(found[failed].first, entry, found[failed].count + 1)]
            continue
        if entry.failure is not None and entry.kind == "step":
            failed = len(found)
        elif not is_between_tries(entry):
            failed = None
        found.append(Repeats(entry, entry, 1))
    return found


def state_after(entries: Sequence[LogEntry], sequence: int) -> State:
    """Return the process's state after entry number ``sequence``: its log folded up to there."""
    state: State = {}
    for entry in entries:
        if entry.sequence > sequence:
            break
        state.update(entry.delta)
        for key in entry.removed:
            state.pop(key, None)
    return state


def count_tries(entries: Sequence[LogEntry | EntryName]) -> dict[int, int]:
    """Return which try of its step each entry is: sequence → 1, 2, …; entries about which nothing ran are left out.

    Each claim has a new attempt number, so the first entry with a new number stands for a new try. A lost attempt is logged
    for the process, not for its step, and counts for the step that comes next in the log.
    """
    numbers: dict[int, int] = {}
    counted: dict[str, int] = {}
    newest = pending = 0
    for entry in entries:
        is_new, newest = entry.attempt > newest, max(newest, entry.attempt)
        if entry.kind != "step":
            pending += is_new
            continue
        counted[entry.name] = counted.get(entry.name, 0) + pending + is_new
        pending = 0
        if is_new:
            numbers[entry.sequence] = counted[entry.name]
    return numbers
