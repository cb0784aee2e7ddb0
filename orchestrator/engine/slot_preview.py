"""Show the coming slots of a trigger in wall time, with the effects of clock changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Final
from zoneinfo import ZoneInfo

from orchestrator.engine.cron import Change
from orchestrator.engine.triggers import CronTrigger, IntervalTrigger, Trigger

_LISTED: Final = 3
"""The most wall times that a remark lists; of more it names the first and the last."""


@dataclass(frozen=True, slots=True)
class SlotPreview:
    """A slot as people read it.

    Args:
        at: the instant, in UTC.
        local: the same instant in the requested zone.
        remarks: effects of clock changes on it, and slots that they dropped before it.
    """

    at: datetime
    local: datetime
    remarks: tuple[str, ...] = ()


def preview_slots(trigger: Trigger, zone: ZoneInfo, after: datetime, count: int) -> list[SlotPreview]:
    """Return the first slots after an instant; fewer than ``count`` when the trigger ends."""
    found = _preview_cron(trigger, after) if isinstance(trigger, CronTrigger) else _preview(trigger, zone, after)
    return list(islice(found, count))


def _preview(trigger: Trigger, zone: ZoneInfo, after: datetime) -> Iterator[SlotPreview]:
    for slot in trigger.slots(after):
        local, remark = slot.astimezone(zone), ""
        if isinstance(trigger, IntervalTrigger) and slot > trigger.start:
            previous = (slot - trigger.every).astimezone(zone)
            if previous.utcoffset() != local.utcoffset():
                remark = f"the clock has changed since {previous:%Y-%m-%d %H:%M:%S}; an interval is elapsed time"
        yield SlotPreview(slot, local, (remark,) if remark else ())


def _preview_cron(trigger: CronTrigger, after: datetime) -> Iterator[SlotPreview]:
    slot: datetime | None = None
    moved: list[datetime] = []
    dropped: list[datetime] = []
    remarks: list[str] = []

    def finish(at: datetime) -> SlotPreview:
        if moved:
            remarks.append(f"{_write(moved)} does not exist that day: due at the clock change")
        return SlotPreview(at, at.astimezone(trigger.zone), tuple(remarks))

    for one in trigger.list_occurrences(after):
        if slot is not None and one.at != slot:
            yield finish(slot)
            slot, moved, remarks = None, [], []
        if one.change is Change.DROPPED:
            dropped.append(one.wall)
            continue
        slot = one.at
        if dropped:
            remarks.append(f"left out before it, because that day does not have them: {_write(dropped)}")
            dropped = []
        if one.change is Change.MOVED:
            moved.append(one.wall)
        elif one.change is not None:
            remarks.append(f"{one.wall:%H:%M} comes twice that day: {one.change}")
    if slot is not None:
        yield finish(slot)


def _write(walls: Sequence[datetime]) -> str:
    if len(walls) <= _LISTED:
        return ", ".join(f"{wall:%H:%M}" for wall in walls)
    return f"{walls[0]:%H:%M} to {walls[-1]:%H:%M} ({len(walls)} times)"
