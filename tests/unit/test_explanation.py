"""Why a process does not go on: a table of what is known, and what is said."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from orchestrator.db.standing import AwaitedCallback, Entry, LastFailure, Standing
from orchestrator.db.status import ConsumerSighting, EngineStatus
from orchestrator.operations.explanation import Facts, Kind, explain
from orchestrator.operations.waiting import Wait

TEN = datetime(2026, 11, 26, 10, 2, tzinfo=UTC)
ELEVEN = TEN + timedelta(hours=1)
NEWEST = Entry("running", "ana", None, TEN)
AT_PORT = Standing(
    process_id=UUID(int=1),
    workflow="port",
    status="running",
    step="Configure",
    assignee="SYSTEM",
    plan="aa",
    plans=("aa",),
    since=TEN,
    due_at=None,
    late=None,
    claimed_by=None,
    claimed_at=None,
    tries=0,
    newest=NEWEST,
    failure=None,
    callback=None,
)
ERROR = LastFailure("Configure", "TimeoutError", "no answer\nfrom 10.0.0.1")
VM = ConsumerSighting("vm:4", ("ims",), 10, TEN, TEN, 2, 10, 0.5, True, 1, {"port": "aa"}, {})
LACKS = replace(VM, name="vm:17128", knows={})
OLD = replace(VM, name="vm:5", knows={"port": "bb"})
ON = EngineStatus(paused=False, running=0)
OFF = EngineStatus(paused=True, running=0, changed_by="ana", changed_at=TEN, reason="new line card")
PAUSED = "the engine is paused by ana since 2026-11-26 10:02:00 UTC: new line card"

CALLBACK = AwaitedCallback("Send", ELEVEN, {"percent": 60}, 2, TEN)
AWAITS = replace(AT_PORT, status="awaiting_callback", step="Send", callback=CALLBACK, due_at=ELEVEN, late=-60)
WAITS = replace(AT_PORT, status="waiting", tries=3, failure=ERROR, due_at=ELEVEN, late=-60)
FAILED = replace(AT_PORT, status="failed", tries=2, failure=ERROR)
SUSPENDED = replace(AT_PORT, status="suspended", step="Approve", assignee="NOC")
CLAIMED = replace(AT_PORT, claimed_by=UUID(int=2), claimed_at=TEN, tries=2)
DONE = replace(AT_PORT, status="completed", step=None, newest=Entry("completed", "ana", None, ELEVEN))
ABORTED = replace(DONE, status="aborted", newest=Entry("aborted", "bo", "wrong port", ELEVEN))


def waits_in(*consumers: ConsumerSighting, ahead: int | None = 12, paused: bool = False) -> Wait:
    return Wait.of("port", "ims", consumers, paused=paused, plans=("aa",), ahead=ahead)


@pytest.mark.parametrize(
    ("facts", "kind", "summary", "details"),
    [
        (
            Facts(AWAITS, ON),
            Kind.CALLBACK,
            "awaits the callback of 'Send' since 2026-11-26 10:02:00 UTC, expires 2026-11-26 11:02:00 UTC, 2 progress messages",
            ['the newest progress, 2026-11-26 10:02:00 UTC: {"percent":60}'],
        ),
        (
            Facts(replace(AWAITS, callback=replace(CALLBACK, deadline=None, progress=None, reports=1)), ON),
            Kind.CALLBACK,
            "awaits the callback of 'Send' since 2026-11-26 10:02:00 UTC, no deadline, 1 progress message",
            [],
        ),
        (
            Facts(replace(AWAITS, callback=None), ON),
            Kind.CALLBACK,
            "awaits the callback of 'Send' since 2026-11-26 10:02:00 UTC",
            [],
        ),
        (
            Facts(replace(AWAITS, callback=replace(CALLBACK, answered_at=TEN)), ON),
            Kind.CALLBACK,
            "the callback of 'Send' was answered 2026-11-26 10:02:00 UTC",
            ["a coordinator that has its plan"],
        ),
        (
            Facts(AWAITS, OFF),
            Kind.CALLBACK,
            "awaits the callback of 'Send'",
            ["the newest progress", PAUSED],
        ),
        (
            Facts(replace(AWAITS, late=40), ON),
            Kind.NO_COORDINATOR,
            "no coordinator has looked at it, although it has been due for 40 s",
            ["the callback of 'Send' since", "the process has the plan aa of 'port': start a coordinator"],
        ),
        (
            Facts(WAITS, ON),
            Kind.RETRY,
            "try 4 of 'Configure' at 2026-11-26 11:02:00 UTC, the last error: TimeoutError: no answer from 10.0.0.1",
            [],
        ),
        (
            Facts(replace(WAITS, failure=None, newest=Entry("attempt lost", "SYSTEM", "vm:4 is gone", TEN)), ON),
            Kind.RETRY,
            "try 4 of 'Configure' at 2026-11-26 11:02:00 UTC, the last error: vm:4 is gone",
            [],
        ),
        (Facts(replace(WAITS, late=1), ON), Kind.RETRY, "try 4 of 'Configure' is due now", []),
        (
            Facts(replace(WAITS, late=3600), ON),
            Kind.NO_COORDINATOR,
            "no coordinator has looked at it, although it has been due for 1 h 00 min",
            ["try 4 of 'Configure' has been due since", "the process has the plan aa", "the last error: TimeoutError"],
        ),
        (
            Facts(replace(WAITS, late=3600), OFF),
            Kind.PAUSED,
            PAUSED,
            ["try 4 of 'Configure' comes once it is unpaused", "the last error: TimeoutError"],
        ),
        (
            Facts(FAILED, ON),
            Kind.FAILED,
            "failed at 'Configure' since 2026-11-26 10:02:00 UTC, try 2: TimeoutError: no answer from 10.0.0.1",
            ["retry it"],
        ),
        (
            Facts(replace(FAILED, status="inconsistent_data", tries=1), OFF, is_known=False),
            Kind.FAILED,
            "inconsistent data at 'Configure' since 2026-11-26 10:02:00 UTC: TimeoutError",
            ["retry it", "the code of this program has no step 'Configure' of 'port'", PAUSED],
        ),
        (
            Facts(SUSPENDED, ON),
            Kind.INPUT,
            "waits for input of 'Approve' from NOC since 2026-11-26 10:02:00 UTC",
            [],
        ),
        (Facts(SUSPENDED, OFF), Kind.INPUT, "waits for input of 'Approve' from NOC", [PAUSED]),
        (
            Facts(AT_PORT, ON, wait=waits_in()),
            Kind.NO_CONSUMER,
            "no consumer is running",
            ["'Configure' waits since 2026-11-26 10:02:00 UTC"],
        ),
        (
            Facts(AT_PORT, ON, wait=waits_in(replace(VM, queues=("default",)))),
            Kind.NO_CONSUMER,
            "no consumer reads the queue 'ims': 'orchestrator consumer --queue ims' starts one; 12 ahead",
            ["'Configure' waits since"],
        ),
        (
            Facts(AT_PORT, ON, wait=waits_in(LACKS, OLD)),
            Kind.NO_CONSUMER,
            "no consumer of the queue 'ims' can run it; 12 ahead",
            [
                "'Configure' waits since",
                "vm:17128 reads this queue, but does not know 'port'",
                "vm:5 reads this queue, but has another plan of 'port' than the process, and not the registered one",
            ],
        ),
        (
            Facts(AT_PORT, ON, wait=waits_in(VM, ahead=0)),
            Kind.QUEUED,
            "waits in the queue 'ims' for its turn; 0 ahead, 1 consumer reads it",
            ["'Configure' waits since"],
        ),
        (
            Facts(AT_PORT, ON, wait=waits_in(replace(VM, running=10), LACKS)),
            Kind.QUEUED,
            "waits in the queue 'ims': every consumer that can run it is busy; 12 ahead, 2 consumers read it",
            ["'Configure' waits since", "vm:4 reads this queue, but runs 10 steps, at most 10", "vm:17128 reads"],
        ),
        (
            Facts(replace(AT_PORT, late=31), ON, wait=waits_in(VM)),
            Kind.NO_COORDINATOR,
            "no coordinator has looked at it, although it has been due for 31 s",
            ["'Configure' waits since", "the process has the plan aa"],
        ),
        (
            Facts(AT_PORT, OFF, wait=waits_in(VM, paused=True)),
            Kind.PAUSED,
            PAUSED,
            ["'Configure' is next"],
        ),
        (
            Facts(CLAIMED, ON, claimant=VM),
            Kind.RUNNING,
            "'Configure' runs on vm:4 since 2026-11-26 10:02:00 UTC, try 2",
            [],
        ),
        (
            Facts(CLAIMED, OFF, claimant=VM),
            Kind.RUNNING,
            "'Configure' runs on vm:4",
            [f"{PAUSED}; this step finishes, the next one waits until it is unpaused"],
        ),
        (
            Facts(CLAIMED, ON, claimant=replace(VM, silent_for=7.2)),
            Kind.CONSUMER_SILENT,
            "its consumer vm:4 has been silent for 7 s",
            ["'Configure' runs on vm:4", "it is presumed dead after 10 s: then a coordinator"],
        ),
        (
            Facts(CLAIMED, ON, claimant=replace(VM, silent_for=61, alive=False)),
            Kind.CONSUMER_SILENT,
            "its consumer vm:4 has been silent for 1 min 01 s",
            ["'Configure' runs on vm:4", "it is presumed dead: a coordinator"],
        ),
        (
            Facts(CLAIMED, ON, claimant=replace(VM, blocked_for=9, blocked_by={"by": "Configure", "at": "ims.py:7"})),
            Kind.CONSUMER_BLOCKED,
            "its consumer vm:4 does not respond: its event loop has been blocked for 9 s",
            ["'Configure' runs on vm:4", "blocked by Configure at ims.py:7"],
        ),
        (
            Facts(CLAIMED, ON),
            Kind.CONSUMER_SILENT,
            "the consumer that has claimed 'Configure' since 2026-11-26 10:02:00 UTC is not known any more",
            ["a coordinator gives the step to another one"],
        ),
        (Facts(DONE, ON), Kind.FINAL, "completed since 2026-11-26 11:02:00 UTC by ana", []),
        (Facts(ABORTED, OFF), Kind.FINAL, "aborted since 2026-11-26 11:02:00 UTC by bo", ["wrong port"]),
    ],
)
def test_why_a_process_does_not_go_on_is_said_in_words(
    facts: Facts, kind: Kind, summary: str, details: list[str]
) -> None:
    found = explain(facts)
    assert found.kind is kind
    assert found.summary.startswith(summary)
    assert len(found.details) == len(details), found.details
    assert all(line.startswith(part) for line, part in zip(found.details, details, strict=True)), found.details
    assert found.document()["kind"] == kind.value


def test_a_long_error_is_cut() -> None:
    found = explain(Facts(replace(FAILED, failure=LastFailure("Configure", None, "x" * 5000)), ON))
    assert len(found.summary) < 500
    assert "error: xxx" in found.summary


def test_an_error_of_an_earlier_step_is_not_taken_for_that_of_the_present_one() -> None:
    found = explain(Facts(replace(WAITS, failure=replace(ERROR, step="Reserve"), newest=NEWEST), ON))
    assert "TimeoutError" not in found.summary
