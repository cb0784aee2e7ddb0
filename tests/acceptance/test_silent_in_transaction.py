"""The network falls silent while a program is in a transaction: what it has locked in PostgreSQL is free again soon.

Each test lets a proxy swallow everything from one exact message on, and closes nothing. The server keeps such a session.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest

from tests.acceptance.conftest import MakeInstallation
from tests.acceptance.installation import Installation
from tests.acceptance.proxy import proxied
from tests.acceptance.waiting import until

PRESUMED_DEAD_AFTER = 6
MARGIN = 4.0
"""Seconds for the next round of a coordinator, and what comes after it."""
SETTINGS = {"ORCHESTRATOR_CONNECT_TIMEOUT": "3", "ORCHESTRATOR_PRESUMED_DEAD_AFTER": str(PRESUMED_DEAD_AFTER)}
COMMIT, INSERT = b"COMMIT;", b"INSERT INTO processes ("
DATABASE = "ORCHESTRATOR_DATABASE_URL"


def was_given_to_others_in_time(engine: Installation, process_id: UUID, silent_since: object, pace: float) -> bool:
    """Whether the claim of the silent consumer was released soon; what the machine is slow in it is slow in for all."""
    (lost,) = engine.log(process_id, "attempt lost")
    return bool((lost.finished_at - silent_since).total_seconds() < PRESUMED_DEAD_AFTER + MARGIN + 20 * pace)


def measure(engine: Installation) -> float:
    """Return how long a process of one step takes now, in seconds."""
    began = engine.value("SELECT clock_timestamp()")
    engine.finish("one_step")
    return float((engine.value("SELECT clock_timestamp()") - began).total_seconds())


def test_a_step_whose_consumer_falls_silent_before_its_commit_is_run_by_another(
    installations: MakeInstallation,
) -> None:
    engine = installations(**SETTINGS)
    with proxied(engine.database_url) as (proxy, url):
        engine.coordinator().ready()
        engine.consumer(**{DATABASE: url}).ready()
        engine.client.listen()
        pace = measure(engine)
        proxy.swallow_from(COMMIT)
        process_id = engine.start("three_steps", {})
        until(lambda: proxy.dropped, "the commit is lost")
        silent_since = engine.value("SELECT clock_timestamp()")
        engine.consumer().ready()
        engine.wait_for(process_id, "completed")
        assert was_given_to_others_in_time(engine, process_id, silent_since, pace)
        assert engine.effects(process_id) == ["Second"]
        assert [entry.status for entry in engine.log(process_id, "Second")] == ["success"]
        engine.kill_all()


def test_what_a_step_has_written_does_not_stay_locked_when_its_consumer_falls_silent(
    installations: MakeInstallation,
) -> None:
    """The next attempt wants the very row that the silent one has written and not committed."""
    engine = installations(**SETTINGS)
    with proxied(engine.database_url) as (proxy, url):
        engine.coordinator().ready()
        engine.consumer(**{DATABASE: url}).ready()
        engine.client.listen()
        process_id = engine.start("keeps_a_row")
        engine.wait_for_note(process_id, "written")
        proxy.swallow()
        engine.consumer().ready()
        engine.wait_for_note(process_id, "written", 2)
        engine.open_gate(f"row-{process_id}")
        engine.wait_for(process_id, "completed")
        assert engine.value("SELECT count(*) FROM strict_effects") == 1
        engine.kill_all()


def test_a_consumer_that_loses_one_connection_before_a_commit_repeats_the_step_itself(
    installations: MakeInstallation,
) -> None:
    """A NAT that has forgotten one connection. The consumer does not wait for its own lost session."""
    engine = installations(**SETTINGS)
    with proxied(engine.database_url) as (proxy, url):
        engine.coordinator().ready()
        engine.consumer(**{DATABASE: url}).ready()
        engine.client.listen()
        proxy.swallow_from(COMMIT)
        process_id = engine.start("three_steps", {})
        until(lambda: proxy.dropped, "the commit is lost")
        proxy.pass_on()
        engine.wait_for(process_id, "completed")
        assert engine.effects(process_id) == ["Second"]
        engine.kill_all()


@pytest.mark.parametrize(
    ("workflow", "pages", "lost", "after"),
    [
        ("two_pages", ({"node": "ams-1"}, {"port": 7}), COMMIT, INSERT),
        ("one_step", (), INSERT, b""),
    ],
    ids=["with a form", "in one statement"],
)
def test_a_start_whose_coordinator_falls_silent_before_its_commit_is_done_by_another(
    installations: MakeInstallation, workflow: str, pages: tuple[dict[str, object], ...], lost: bytes, after: bytes
) -> None:
    engine = installations(**SETTINGS)
    with proxied(engine.database_url) as (proxy, url), ThreadPoolExecutor(1) as threads:
        engine.coordinator(**{DATABASE: url}).ready()
        engine.client.listen()
        proxy.swallow_from(lost, after=after)
        starting = threads.submit(engine.start, workflow, *pages, key="once")
        until(lambda: proxy.dropped, "the commit is lost")
        engine.coordinator().ready()
        engine.consumer().ready()
        process_id = starting.result()
        engine.wait_for(process_id, "completed")
        assert engine.value("SELECT count(*) FROM processes") == 1
        engine.kill_all()
