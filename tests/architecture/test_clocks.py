"""Whether a slot is due is for the database's clock to say: the programs' clocks differ."""

from __future__ import annotations

import ast

from tests.architecture.repository import tree

DECIDES = [
    *(f"engine/{name}.py" for name in ("cron", "due_slots", "firing", "schedule", "slot_preview", "triggers", "zones")),
    *(f"db/schedules/{name}.py" for name in ("changes", "declarations", "firing", "overdue", "rows")),
    *(f"services/{name}.py" for name in ("firing", "schedule_reading", "schedule_store", "schedules")),
    "coordinator/scheduler.py",
]
CLOCKS = {f"{owner}.{name}" for owner in ("datetime", "date") for name in ("now", "utcnow", "today")}


def test_what_decides_about_slots_never_reads_the_programs_clock() -> None:
    """Durations are measured by the event loop's clock, which knows no time of day."""
    found = []
    for name in DECIDES:
        for node in ast.walk(tree(f"orchestrator/{name}")):
            if isinstance(node, ast.Import):
                found += [f"{name}: import time" for one in node.names if one.name == "time"]
            elif isinstance(node, ast.ImportFrom) and node.module == "time":
                found.append(f"{name}: from time import")
            elif isinstance(node, ast.Call) and ast.unparse(node.func) in CLOCKS:
                found.append(f"{name}:{node.lineno}: {ast.unparse(node)}")
    assert found == []
