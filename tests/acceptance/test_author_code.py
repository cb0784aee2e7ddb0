"""What authors' forms do to the coordinator and the API that call them: nothing but to their own requests."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.acceptance.conftest import MakeInstallation
from tests.acceptance.waiting import until
from tests.acceptance.workflows.author_code import LOCK

MANY, FLOOD = 8, 70
"""Starts of a form that waits: more than there are connections, and more than a coordinator holds."""


@pytest.mark.parametrize(("workflow", "what"), [("asks_for_long", "waits"), ("asks_in_a_query", "queries")])
def test_forms_that_wait_delay_neither_deadlines_nor_retries_nor_lost_steps_nor_other_starts(
    installations: MakeInstallation, workflow: str, what: str
) -> None:
    engine = installations(ORCHESTRATOR_DATABASE_POOL_SIZE="4")
    coordinator = engine.coordinator().ready()
    doomed = engine.consumer().ready()
    engine.client.listen()
    waits, dies, tried = (engine.start(name) for name in ("calls_out_late", "holds", "tried_again"))
    engine.wait_for_note(waits, "order")
    engine.wait_for_note(dies, "held")
    engine.consumer().ready()
    with engine.holding(f"SELECT pg_advisory_xact_lock({LOCK})"):
        for number in range(MANY):
            request = {"workflow": workflow, "inputs": [{}]}
            engine.client.send("orchestrator.commands", "workflow.start", request, message_id=f"{number}")
        engine.wait_for_note("form", what)
        engine.open_gate(f"order-{waits}")
        until(lambda: engine.status(waits) in ("awaiting_callback", "failed"), "its deadline runs")
        doomed.kill()
        engine.finish("two_pages", {"node": "ams-1"}, {"port": 7})
        tries = len(engine.journal(tried, "try"))
        engine.wait_for_note(tried, "try", tries + 3)
        engine.wait_for(waits, "failed")
        until(lambda: "attempt lost" in coordinator.output(), "the dead consumer is noticed")
        assert engine.abort(dies).type == "process.aborted"
        # Had one of them been given up after its time, another one would have had its turn.
        assert len(engine.journal("form", what)) == 1
        engine.open_gate("form")
    started = "SELECT count(*) FROM processes WHERE workflow = $1 AND status = 'completed'"
    until(lambda: engine.value(started, workflow) == MANY, "the starts that have waited are done")
    assert engine.client.dead_letters() == []


def test_a_flood_of_starts_whose_form_hangs_does_not_keep_out_others(installations: MakeInstallation) -> None:
    """They fill what a coordinator holds of the queue; those that cannot have a turn for long go to its end, and none is lost."""
    engine = installations()
    coordinator = engine.coordinator().ready()
    engine.consumer().ready()
    engine.client.listen()
    for number in range(FLOOD):
        request = {"workflow": "asks_for_long", "inputs": [{}]}
        message_id = None if number % 10 == 9 else f"flood-{number}"
        engine.client.send("orchestrator.commands", "workflow.start", request, message_id=message_id)
    engine.finish("two_pages", {"node": "ams-1"}, {"port": 7})
    # Three run at once, for up to 30 s: it has not waited for many of them.
    assert len(engine.journal("form", "waits")) <= 9
    assert "command put back: its workflow is busy" in coordinator.output()
    engine.open_gate("form")
    ended = "SELECT count(*) FROM processes WHERE workflow = 'asks_for_long' AND status = 'completed'"
    # A form that has waited for 30 s is refused, whoever has sent it.
    until(lambda: engine.value(ended) + len(engine.client.dead_letters()) == FLOOD, "each is started or refused")
    # Without a key nobody could tell that two copies are one start.
    busy = [one for one in engine.client.dead_letters() if "WorkflowBusyError" in str(one.headers["x-reason"])]
    assert all(letter.message_id is None for letter in busy)


@pytest.mark.parametrize(("workflow", "what"), [("loses_its_connection", "loses"), ("hides_its_loss", "hides")])
def test_a_form_that_loses_its_connection_is_refused_after_a_second_try(
    installations: MakeInstallation, workflow: str, what: str
) -> None:
    engine = installations()
    engine.coordinator().ready()
    engine.consumer().ready()
    engine.client.listen()
    answer = engine.client.ask("workflow.start", {"workflow": workflow, "inputs": [{}]})
    assert (answer.type, answer.body["error"]) == ("workflow.refused", "ConnectionLostError")
    assert workflow in answer.body["detail"]
    assert len(engine.journal("form", what)) == 2
    engine.finish("one_step")
    assert len(engine.journal("form", what)) == 2


def test_the_api_reads_and_starts_other_workflows_while_forms_wait(installations: MakeInstallation) -> None:
    engine = installations(ORCHESTRATOR_DATABASE_POOL_SIZE="4")
    api = engine.api()
    with ThreadPoolExecutor(MANY) as clients:
        waiting = [clients.submit(api.call, "POST", "/processes/asks_for_long", json=[{}]) for _ in range(MANY)]
        engine.wait_for_note("form", "waits")
        pages = [{"node": "ams-1"}, {"port": 7}]
        started = api.call("POST", "/processes/two_pages", json=pages)
        read = api.call("GET", f"/processes/{started.json()['id']}")
        lost = api.call("POST", "/processes/loses_its_connection", json=[{}])
        assert len(engine.journal("form", "waits")) == 1  # as above
        engine.open_gate("form")
        assert {one.result().status_code for one in waiting} == {201}
    assert (started.status_code, read.status_code, lost.status_code) == (201, 200, 500)
    assert "has lost its database connection twice" in lost.json()["detail"]
    assert len(engine.journal("form", "loses")) == 2
