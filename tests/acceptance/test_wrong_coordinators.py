"""Coordinators that lack the workflows beside one that has them."""

from __future__ import annotations

from functools import partial

from tests.acceptance.conftest import MakeInstallation
from tests.acceptance.installation import Installation
from tests.acceptance.waiting import until


def numbers(engine: Installation, process_id: object) -> list[int]:
    """Return which entries of a process's log have come as events, in the order in which they came first."""
    return list(dict.fromkeys(one.body["sequence"] for one in engine.client.events_of(process_id)))


def has_all(engine: Installation, process_id: object, entries: int) -> bool:
    """Return whether each entry has come."""
    return len(numbers(engine, process_id)) == entries


def test_coordinators_that_lack_the_workflows_lose_no_answers_results_or_events(
    installations: MakeInstallation,
) -> None:
    """Issue 9.4: what needs the code they leave to the other one at once, and publish what does not need it."""
    engine = installations()
    for program in (engine.coordinator(), engine.consumer()):
        program.ready()
    engine.client.listen()
    engine.open_gate("order")
    waiting = [engine.start("calls_out") for _ in range(6)]
    retried = engine.start("tried_again")
    for process_id in waiting:
        engine.wait_for(process_id, "awaiting_callback")
    wrong = [engine.coordinator(ORCHESTRATOR_WORKFLOWS="").ready() for _ in range(2)]

    for process_id in waiting:
        engine.answer(engine.token(process_id), {"ok": True})
    engine.open_gate(f"mended-{retried}")
    for process_id in (*waiting, retried):
        engine.wait_for(process_id, "completed")
        entries = [one.sequence for one in engine.log(process_id)]
        until(partial(has_all, engine, process_id, len(entries)), "every entry is an event")
        assert numbers(engine, process_id) == entries, "in order"
    assert all(program.runs for program in wrong)
