"""Decide what a schedule does now: start a slot, skip it, let it wait, or nothing. One slot at a time: each is a commit."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from orchestrator.engine.due_slots import MissedSlots, judge_slots, may_start
from orchestrator.engine.schedule import Overlap, ScheduleDefinition
from orchestrator.engine.triggers import CronTrigger, Trigger
from orchestrator.engine.zones import to_instants, to_wall
from orchestrator.types import ProcessStatus


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far the slots of a schedule are settled, and which one waits for the process of an earlier one."""

    settled: datetime
    queued: datetime | None = None


class Action(StrEnum):
    """What happens to a slot now."""

    START = "start"
    START_QUEUED = "start the queued slot"
    SKIP = "skip"
    QUEUE = "queue"


@dataclass(frozen=True, slots=True)
class Firing:
    """What a schedule does now.

    Args:
        missed: slots that do not start, because they are too late; all before ``slot``.
        slot: the one that ``action`` is about; ``None`` when there is none.
    """

    missed: MissedSlots | None = None
    action: Action | None = None
    slot: datetime | None = None

    @property
    def starts(self) -> bool:
        """Whether a process starts."""
        return self.action in {Action.START, Action.START_QUEUED}

    def settle(self, cursor: Cursor) -> Cursor:
        """Return the cursor after this action."""
        if self.action is Action.START_QUEUED:
            return Cursor(cursor.settled)
        settled = cursor.settled if self.missed is None else self.missed.last
        return Cursor(self.slot or settled, self.slot if self.action is Action.QUEUE else cursor.queued)


def decide_firing(
    schedule_id: UUID, schedule: ScheduleDefinition, cursor: Cursor, last: ProcessStatus | None, now: datetime
) -> Firing:
    """Decide what a schedule does.

    Args:
        last: the status of the process that it has started last; ``None`` when there is none any more.
    """
    if cursor.queued is not None and may_start(Overlap.QUEUE, last):
        return Firing(None, Action.START_QUEUED, cursor.queued)
    verdict = judge_slots(schedule_id, schedule, cursor.settled, now)
    if not verdict.starts:
        return Firing(verdict.missed)
    action = Action.START
    if not may_start(schedule.overlap, last):
        action = Action.QUEUE if schedule.overlap is Overlap.QUEUE else Action.SKIP
    return Firing(verdict.missed, action, verdict.starts[0])


def carry_over(trigger: Trigger, settled: datetime, wall: datetime | None) -> datetime:
    """Return the cursor by this program's time zone rules, when another program with different rules has stored it.

    Args:
        wall: what the clock on the wall showed at ``settled`` by the other rules. Whatever it showed until then is settled.
    """
    if wall is None or not isinstance(trigger, CronTrigger):
        return settled
    return max(settled, *to_instants(wall, trigger.zone))


def read_wall(trigger: Trigger, instant: datetime) -> datetime | None:
    """Return what the clock on the wall shows at an instant, for triggers that follow one."""
    return to_wall(instant, trigger.zone) if isinstance(trigger, CronTrigger) else None
