"""Decide which slots of a schedule start now, which are missed, and when it is due next: pure, given definition and time.

A schedule has a cursor: slots up to it are settled, whether they started or not. Everything here concerns the slots after it,
and takes bounded time however many there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import islice
from typing import Final
from uuid import UUID

from orchestrator.engine.schedule import Missed, Overlap, ScheduleDefinition
from orchestrator.engine.triggers import IntervalTrigger, Trigger
from orchestrator.types import ProcessStatus

TOLERANCE: Final = timedelta(seconds=60)
"""A slot that is this late, or later, is missed; an earlier one starts as usual."""

MOST_COUNTED: Final = 1000
"""Missed slots of cron expressions are counted up to here. Those of intervals are calculated, however many they are."""

RUNNING: Final = frozenset(
    {
        ProcessStatus.CREATED,
        ProcessStatus.RUNNING,
        ProcessStatus.RESUMED,
        ProcessStatus.SUSPENDED,
        ProcessStatus.WAITING,
        ProcessStatus.AWAITING_CALLBACK,
    }
)
"""The statuses of a process that keeps later slots of its schedule from starting.

One that has failed does not: a nightly job must not stop for good, silently, because of one bad night.
"""

_ON_TIME = int(TOLERANCE.total_seconds()) + 1
"""The most slots that can be on time at once: no trigger has two within a second."""


@dataclass(frozen=True, slots=True)
class Standing:
    """The next slot, and when it is to start: later by the jitter. Both are ``None`` when there is no slot any more."""

    slot: datetime | None
    due_at: datetime | None


@dataclass(frozen=True, slots=True)
class MissedSlots:
    """Slots in a row that do not start, because they are too late.

    Args:
        is_exact: whether ``count`` is all of them; otherwise they are more.
    """

    first: datetime
    last: datetime
    count: int
    is_exact: bool = True


@dataclass(frozen=True, slots=True)
class Verdict:
    """What happens to the slots that are due.

    Args:
        missed: those that do not start; all are earlier than those that do.
        starts: those that start, in order.
    """

    missed: MissedSlots | None = None
    starts: tuple[datetime, ...] = ()


def find_standing(schedule_id: UUID, trigger: Trigger, jitter: timedelta, after: datetime) -> Standing:
    """Return the first slot after an instant, and when it is due.

    The cursor of a schedule that is created, enabled, or gets another trigger is set to that moment, so that no earlier slot
    starts. Every other change leaves the cursor: ``after`` is what it has settled.
    """
    slots = list(trigger.slots(after, count=2))
    if not slots:
        return Standing(None, None)
    return Standing(slots[0], compute_due_at(schedule_id, jitter, slots[0], slots[1] if slots[1:] else None))


def compute_due_at(schedule_id: UUID, jitter: timedelta, slot: datetime, following: datetime | None) -> datetime:
    """Return when a slot is to start: the same in each program, and always before the slot that follows."""
    if following is not None:
        jitter = min(jitter, following - slot)
    if not jitter:
        return slot
    digest = sha256(schedule_id.bytes + slot.astimezone(UTC).isoformat().encode()).digest()
    part = int.from_bytes(digest[:8]) * (jitter // timedelta.resolution) >> 64
    return slot + part * timedelta.resolution


def judge_slots(schedule_id: UUID, schedule: ScheduleDefinition, settled: datetime, now: datetime) -> Verdict:
    """Decide about all slots after ``settled`` that are due at ``now``."""
    trigger = schedule.trigger
    made_up = {Missed.SKIP: 0, Missed.ONCE: 1, Missed.ALL: schedule.missed_limit}[schedule.missed]
    slots = _list_newest(trigger, settled, now, max(made_up, _ON_TIME) + 2)
    following = [*slots[1:], trigger.next_slot(slots[-1])] if slots else []
    due = [
        (slot, due_at)
        for slot, after in zip(slots, following, strict=True)
        if (due_at := compute_due_at(schedule_id, schedule.jitter, slot, after)) <= now
    ]
    on_time = sum(now - due_at < TOLERANCE for _, due_at in due)
    # A slot that is on time replaces the missed ones before it. So all policies treat the newest slot in the same way.
    kept = max(on_time, made_up)
    starts = tuple(slot for slot, _ in due[max(0, len(due) - kept) :]) if kept else ()
    late = due[: len(due) - len(starts)]
    return Verdict(_count(trigger, settled, late[-1][0]) if late else None, starts)


def may_start(overlap: Overlap, last: ProcessStatus | None) -> bool:
    """Return whether a slot may start beside the last process of its schedule; ``None`` when there is none."""
    return overlap is Overlap.ALLOW or last not in RUNNING


def _list_newest(trigger: Trigger, after: datetime, until: datetime, count: int) -> list[datetime]:
    """Return the newest slots after one instant up to another, in order, by halving the time between them."""
    found = list(trigger.slots(after, until=until, count=count + 1))
    if len(found) <= count:
        return found
    middle = after + (until - after) / 2
    newest = _list_newest(trigger, middle, until, count)
    return newest if len(newest) == count else _list_newest(trigger, after, middle, count - len(newest)) + newest


def _count(trigger: Trigger, after: datetime, last: datetime) -> MissedSlots:
    first = trigger.next_slot(after)
    assert first is not None, "the last one is after it"  # noqa: S101 - a programming error, not a user's
    if isinstance(trigger, IntervalTrigger):
        return MissedSlots(first, last, (last - first) // trigger.every + 1)
    count = sum(1 for _ in islice(trigger.slots(after, until=last), MOST_COUNTED + 1))
    return MissedSlots(first, last, min(count, MOST_COUNTED), count <= MOST_COUNTED)
