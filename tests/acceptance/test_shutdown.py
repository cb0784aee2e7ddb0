"""Programs end when they are told to, whatever authors' code does."""

from __future__ import annotations

import signal

from tests.acceptance.conftest import MakeInstallation
from tests.acceptance.waiting import until


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
