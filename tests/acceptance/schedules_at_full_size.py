"""What users of schedulers have reported, at its full size and with real programs.

``python -m tests.acceptance.schedules_at_full_size [coordinators] [outage] [starts]``, with the servers that ``scripts/services
env`` names. It takes some ten minutes. The suite has the same in a smaller size.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from uuid import UUID, uuid4

from orchestrator.engine.schedule import write_trigger
from orchestrator.engine.triggers import DateTrigger, IntervalTrigger, Trigger
from tests.acceptance.conftest import MakeInstallation, make_installations
from tests.acceptance.installation import Installation
from tests.acceptance.programs import Program
from tests.acceptance.waiting import until
from tests.databases import Databases
from tests.forwarder import Forwarder, place_of, through
from tests.servers import Servers

ADD = """
INSERT INTO schedules (schedule_id, name, origin, workflow, inputs, trigger, enabled, missed, missed_limit, overlap, jitter,
                       settled_through, next_slot, due_at, zone_rules, created_by, changed_by)
VALUES ($1, $2, 'person', $3, '[]', $4::text::jsonb, true, $6, 1000, 'allow', 0, $5::timestamptz - interval '1 second', $5, $5,
        'some', 'ann', 'ann')
"""
HOLD = "SELECT 1 FROM workflows WHERE name = $1 FOR UPDATE"
DECLARED = """
import os
from orchestrator.workflows import Schedule

for name in ("first", "second", "third"):
    Schedule(name, workflow="one_step", cron="0 3 1 1 *", note=os.environ["VERSION"], enabled=False)
"""
SCHEDULES, SLOTS, EVERY = 40, 50, timedelta(seconds=2)
OUTAGE = STANDS_STILL = 60.0
STARTS = 20


def add(engine: Installation, name: str, workflow: str, first: datetime, trigger: Trigger, missed: str = "all") -> UUID:
    schedule_id = uuid4()
    engine.write(ADD, schedule_id, name, workflow, json.dumps(write_trigger(trigger)), first, missed)
    return schedule_id


def read_clock(engine: Installation, ahead: float) -> datetime:
    now: datetime = engine.value("SELECT date_trunc('second', clock_timestamp())")
    return now + timedelta(seconds=ahead)


def with_clock(seconds: int) -> dict[str, str]:
    """Return the environment of a program whose clock is wrong by as many seconds."""
    (library,) = Path("/usr/lib").glob("*/faketime/libfaketime.so.1")
    return {"LD_PRELOAD": str(library), "FAKETIME": f"{seconds:+d}", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


def run_coordinators(make: MakeInstallation) -> str:
    """Run five on one host: one 90 s ahead, one 90 s behind, one that stands still in its commit for a minute."""
    engine = make()
    engine.installed = True
    first = engine.coordinator().ready()
    with engine.holding(HOLD, "one_step") as holder:
        now = read_clock(engine, 1)
        frozen = add(engine, "frozen", "one_step", now, DateTrigger(now))
        until(lambda: engine.waits_for(holder), "the coordinator is about to store the process")
        first.signal(signal.SIGSTOP)
    stood_still = time.monotonic()
    others = [engine.coordinator(), engine.coordinator()]
    others += [engine.coordinator(**with_clock(seconds)) for seconds in (90, -90)]
    for one in others:
        one.ready()
    begin = read_clock(engine, 3)
    trigger = IntervalTrigger(EVERY, begin, begin + (SLOTS - 1) * EVERY)
    for number in range(SCHEDULES):
        add(engine, f"s{number}", "chain", begin, trigger)
    query = "SELECT count(*) FROM schedules WHERE name LIKE 's%' AND next_slot IS NULL"
    until(lambda: time.monotonic() - stood_still > STANDS_STILL, "it has stood still for a minute", 2 * STANDS_STILL)
    first.signal(signal.SIGCONT)
    until(lambda: engine.value(query) == SCHEDULES, "all slots have come", 600)
    every = "FROM schedule_slots JOIN schedules USING (schedule_id) WHERE name LIKE 's%'"
    started = engine.value(f"SELECT count(*) {every} AND result = 'started'")
    processes = engine.value("SELECT count(*) FROM processes WHERE workflow = 'chain'")
    distinct = engine.value(f"SELECT count(DISTINCT process_id) {every}")
    early = engine.value(f"SELECT count(*) {every} AND at < slot")
    late = engine.value(f"SELECT max(extract(epoch FROM at - slot))::float8 {every}")
    assert (started, processes, distinct, early) == (SCHEDULES * SLOTS,) * 3 + (0,), (
        started,
        processes,
        distinct,
        early,
    )
    assert (
        engine.value("SELECT count(*) FROM schedule_slots WHERE schedule_id = $1 AND result = 'started'", frozen) == 1
    )
    return f"{started} slots, each one process, none early, the latest {late:.1f} s after its time"


def run_outage(make: MakeInstallation) -> str:
    """Take the database away for a minute."""
    engine = make()
    engine.installed = True
    engine.consumer().ready()
    forwarder = Forwarder(lambda: place_of(engine.database_url))
    engine.background.run(forwarder.listen(0))
    port = forwarder.port
    place = through(engine.database_url, port)
    coordinators = [engine.coordinator(ORCHESTRATOR_DATABASE_URL=place).ready() for _ in range(2)]
    during, after = read_clock(engine, 20), read_clock(engine, OUTAGE + 20)
    for name, moment in (("during", during), ("after", after)):
        add(engine, name, "one_step", moment, DateTrigger(moment), "once")
    until(lambda: read_clock(engine, 0) > during - timedelta(seconds=15), "some seconds pass")
    engine.background.run(forwarder.close())
    gone = time.monotonic()
    until(lambda: time.monotonic() - gone > OUTAGE, "a minute passes", 2 * OUTAGE)
    engine.background.run(forwarder.listen(port))
    back = time.monotonic()
    count = (
        "SELECT count(*) FROM schedule_slots JOIN schedules USING (schedule_id) WHERE result = 'started' AND name = $1"
    )
    until(lambda: engine.value(count, "during") == 1, "the slot of the outage starts", 120)
    took = time.monotonic() - back
    until(lambda: engine.value(count, "after") == 1, "the next slot starts", 120)
    late = engine.value(
        "SELECT extract(epoch FROM at - slot)::float8 FROM schedule_slots JOIN schedules USING (schedule_id) WHERE name = 'after'"
    )
    until(
        lambda: engine.value("SELECT count(*) FROM processes WHERE status = 'completed'") == 2,
        "both are completed",
        120,
    )
    assert all(one.runs for one in coordinators)
    return f"its slot started {took:.1f} s after the outage, the next one {late:.1f} s after its time"


def stored(engine: Installation) -> list[tuple[str, str]]:
    rows = engine.query("SELECT name, note FROM schedules WHERE workflow = 'one_step' ORDER BY name")
    return [(row["name"], row["note"]) for row in rows]


def run_starts(make: MakeInstallation) -> str:
    """Start four API programs and two coordinators at once, each time with other declarations."""
    engine = make()
    (engine.folder / "declared.py").write_text(DECLARED)
    engine.environment["ORCHESTRATOR_WORKFLOWS"] += ",declared"
    for number in range(STARTS):
        engine.environment["VERSION"] = str(number)
        programs: Sequence[Program] = [
            *(engine.run("api", "api", "--port", "0") for _ in range(4)),
            *(engine.coordinator() for _ in range(2)),
        ]
        for one in programs[4:]:
            one.ready()
        wanted = [(name, str(number)) for name in ("first", "second", "third")]
        until(lambda wanted=wanted: stored(engine) == wanted, f"version {number} is stored")  # type: ignore[misc]
        assert [one.stop() for one in programs] == [0] * 6
    lines = [line for line in engine.logs().splitlines() if "[error" in line or "Traceback" in line]
    errors = [line for line in lines if "its code is broken" not in line]  # three workflows are, on purpose
    assert errors == [], errors[:5]
    changes = engine.value("SELECT count(*) FROM schedule_changes")
    return f"{STARTS} times six programs, three rows, {changes} changes, no error in a log"


VECTORS: dict[str, Callable[[MakeInstallation], str]] = {
    "coordinators": run_coordinators,
    "outage": run_outage,
    "starts": run_starts,
}


def main(names: Sequence[str]) -> None:
    """Run these, or all."""
    assert shutil.which("faketime") or "coordinators" not in (names or VECTORS), "apt-get install faketime"
    with (
        TemporaryDirectory() as folder,
        closing(Databases(Servers.from_environment())) as databases,
        make_installations(databases, lambda name: Path(mkdtemp(prefix=name, dir=folder))) as make,
    ):
        for name in names or VECTORS:
            began = time.monotonic()
            print(f"{name}: {VECTORS[name](make)} ({time.monotonic() - began:.0f} s)", flush=True)


if __name__ == "__main__":
    os.environ.pop("COLUMNS", None)
    main(sys.argv[1:])
