"""Programs end when they are told to, whatever authors' code does."""

from __future__ import annotations

import signal

from tests.acceptance.conftest import MakeInstallation
from tests.acceptance.proxy import proxied
from tests.acceptance.waiting import until

LOST = 20
"""Attempts whose commands the coordinator publishes in one round, two at once, and waits for each."""


def test_a_form_that_never_ends_does_not_keep_the_coordinator_from_ending(installations: MakeInstallation) -> None:
    """B32: it keeps its thread, and not the program."""
    engine = installations(ORCHESTRATOR_DRAIN_GRACE="1")
    engine.installed = True
    coordinator = engine.coordinator().ready()
    engine.client.send("orchestrator.commands", "workflow.start", {"workflow": "asks_for_ever"})
    until((engine.lab / "asked for ever").exists, "the form is asked")
    coordinator.signal(signal.SIGTERM)
    assert coordinator.exit_code() == 0
    assert "coordinator stopped" in coordinator.output()


def test_a_coordinator_ends_although_its_round_waits_for_the_broker(installations: MakeInstallation) -> None:
    """B32, B42: what is left of the round is done by the next coordinator."""
    engine = installations(
        ORCHESTRATOR_DRAIN_GRACE="1", ORCHESTRATOR_PRESUMED_DEAD_AFTER="2", ORCHESTRATOR_DATABASE_POOL_SIZE="30"
    )
    with proxied(engine.environment["ORCHESTRATOR_AMQP_URL"]) as (proxy, url):
        coordinator = engine.coordinator(ORCHESTRATOR_AMQP_URL=url).ready()
        consumer = engine.consumer("--queue", "default", "--concurrency", str(LOST)).ready()
        process_ids = [engine.start("holds") for _ in range(LOST)]
        until(lambda: len(engine.journal(what="held")) == LOST, "all steps are running")
        proxy.refuse()
        consumer.kill()
        until(lambda: coordinator.output().count("attempt lost") == LOST, "all attempts are lost")
        coordinator.signal(signal.SIGTERM)
        assert coordinator.exit_code() == 0
    for process_id in process_ids:
        engine.open_gate(f"hold-{process_id}")
    engine.coordinator().ready()
    engine.consumer("--queue", "default", "--concurrency", str(LOST)).ready()
    until(
        lambda: engine.value("SELECT count(*) FROM processes WHERE status = 'completed'") == LOST, "all are completed"
    )
