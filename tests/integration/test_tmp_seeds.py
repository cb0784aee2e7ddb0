"""Whatever schedules, clocks, restarts and kills: each slot has started once, or a record says why not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import datetime, timedelta
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from orchestrator.coordinator import scheduler as scheduler_module
from orchestrator.db.session import Database
from orchestrator.engine.schedule import Missed, Overlap
from orchestrator.engine.triggers import CronTrigger, IntervalTrigger, Trigger
from orchestrator.services.firing import fire
from tests.integration import api_flows
from tests.integration.schedule_rounds import Published, Rounds
from tests.unit.wall_clock import utc, walls, watch

BEFORE_CHANGES = [
    ("Europe/Amsterdam", "2026-10-24T21:00"),
    ("Europe/Amsterdam", "2026-03-28T21:00"),
    ("America/New_York", "2026-11-01T02:00"),
    ("Australia/Lord_Howe", "2026-04-04T11:00"),
    ("America/Santiago", "2026-04-04T22:00"),
    ("UTC", "2026-11-25T11:30"),
]
"""Zones, and a time some hours before their clocks change."""

EXPRESSIONS = (
    "*/20 * * * *",
    "30 * * * *",
    "30 2 * * *",
    "0 1-4 * * *",
    "15 0,2,3 * * *",
    "5 */2 * * *",
    "45 1 * * 0,1",
)
LATE = timedelta(minutes=2)
"""So long after its time every slot is settled."""


class Killed:
    """Kills a program now and then: before its transaction, in it, or after it and before it has published."""

    def __init__(self, chance: Random) -> None:
        self.chance = chance
        self.is_calm = False
        self.kills = 0

    def here(self) -> None:
        if not self.is_calm and self.chance.random() < 0.12:
            self.kills += 1
            raise asyncio.CancelledError

    async def fire(self, *given: Any) -> Any:
        self.here()
        fired = await fire(*given)
        self.here()
        return fired


class _Broker(Published):
    def __init__(self, killed: Killed) -> None:
        super().__init__()
        self.killed = killed

    async def try_publish(self, message: Any) -> None:
        self.killed.here()
        await super().try_publish(message)


def list_slots(trigger: Trigger, after: datetime, until: datetime) -> list[datetime]:
    """Return the slots in the time between, without the code that is tested."""
    if isinstance(trigger, CronTrigger):
        # From a day before on, because a time of day may have been passed by then.
        minutes = walls(trigger.zone, after - timedelta(days=1), until)
        return [one for one in watch(trigger.expression, minutes) if after < one <= until]
    assert isinstance(trigger, IntervalTrigger)
    count = (until - trigger.start) // trigger.every + 1
    return [one for number in range(count) if after < (one := trigger.start + number * trigger.every) <= until]


def make_trigger(chance: Random, zone: str, now: datetime) -> Trigger:
    if chance.random() < 0.7:
        return CronTrigger(chance.choice(EXPRESSIONS), ZoneInfo(zone))
    every = timedelta(minutes=chance.choice((17, 45, 60, 90)))
    return IntervalTrigger(every, now - timedelta(minutes=chance.randrange(600)))


def pass_time(chance: Random, now: datetime) -> Iterator[datetime]:
    """Yield times of rounds: soon after each other mostly, sometimes after hours, sometimes back."""
    newest = now
    for _ in range(22):
        minutes = chance.choice((0.5, 5, 10, 20, 20, 45, 90, 300, -60))
        now += timedelta(minutes=minutes)
        newest = max(newest, now)
        yield now
    yield newest + LATE


@pytest.mark.parametrize("seed", range(100, 140))
async def test_each_slot_has_started_once_or_its_record_says_why_not(
    database: Database, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    await api_flows.register(database, monkeypatch)
    chance = Random(seed)
    killed = Killed(chance)
    monkeypatch.setattr(scheduler_module, "fire", killed.fire)
    zone, begin = chance.choice(BEFORE_CHANGES)
    rounds = Rounds(database, utc(begin), _Broker(killed))
    made: dict[str, Trigger] = {}
    for number in range(5):
        missed = chance.choice(list(Missed))
        overlap = Overlap.ALLOW if missed is Missed.ALL else chance.choice(list(Overlap))
        made[f"s{number}"] = make_trigger(chance, zone, rounds.now)
        jitter = timedelta(seconds=chance.choice((0, 0, 40)))
        await rounds.add(
            f"s{number}", made[f"s{number}"], "asking", inputs=(), missed=missed, overlap=overlap, jitter=jitter
        )
    programs = [rounds.make_scheduler() for _ in range(2)]
    for now in pass_time(chance, rounds.now):
        programs[chance.randrange(2)] = rounds.make_scheduler()
        if chance.random() < 0.5:
            await rounds.set_status("completed")
        await rounds.at(now.isoformat()[:19], *programs)
    killed.is_calm = True
    await rounds.at(rounds.now.isoformat()[:19])

    for name, trigger in made.items():
        expected = list_slots(trigger, utc(begin), rounds.now - LATE)
        records = await database.pool.fetch(
            "SELECT r.* FROM schedule_slots r JOIN schedules USING (schedule_id) WHERE name = $1 AND slot <= $2 ORDER BY slot",
            name,
            rounds.now - LATE,
        )
        told: list[datetime] = []
        for record in records:
            told += [one for one in expected if one <= record["slot"]][-record["slots"] :]
        assert told == expected, (name, trigger, zone, begin)
        assert [record["slot"] for record in records if record["slot"] not in expected] == []
    started = await database.pool.fetch(
        "SELECT process_id FROM schedule_slots WHERE result = 'started' ORDER BY process_id"
    )
    processes = await database.pool.fetch("SELECT process_id FROM processes ORDER BY process_id")
    assert started == processes
    assert killed.kills > 0
