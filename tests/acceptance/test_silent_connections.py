"""Connections that go silent: a proxy drops what a coordinator and a consumer send and are sent, and closes nothing.

Healthy programs take over, the silent ones say what has happened and end when they are told to, and go on when they are heard.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http import HTTPStatus
from uuid import UUID

import httpx
import pytest

from tests.acceptance.chaos import all_done, flood, half_done
from tests.acceptance.conftest import MakeInstallation
from tests.acceptance.installation import Installation
from tests.acceptance.programs import Program
from tests.acceptance.proxy import Proxy, proxied
from tests.acceptance.waiting import until

GRACE = 2
PRESUMED_DEAD_AFTER = 6
SETTINGS = {
    "ORCHESTRATOR_CONNECT_TIMEOUT": "3",
    "ORCHESTRATOR_PRESUMED_DEAD_AFTER": str(PRESUMED_DEAD_AFTER),
    "ORCHESTRATOR_DRAIN_GRACE": str(GRACE),
}
MARGIN = 4.0
"""Seconds for the next round of a coordinator, and what comes after it."""

SOON = 120.0
"""Seconds for what used to take for ever. Where the machine is idle it takes ten."""

CLOSING = 18.0
"""Seconds beyond the grace that a program may take to end; see orchestrator/runtime.py."""

SERVERS = {
    "PostgreSQL": ("ORCHESTRATOR_DATABASE_URL", "PostgreSQL is silent; connections thrown away"),
    "RabbitMQ": ("ORCHESTRATOR_AMQP_URL", "RabbitMQ is silent; connection thrown away"),
}


class Halves:
    """An installation of which one coordinator and one consumer reach a server through a proxy only."""

    def __init__(self, engine: Installation, proxy: Proxy, variable: str, url: str) -> None:
        self.engine = engine
        self.proxy = proxy
        self.behind = [engine.coordinator(**{variable: url}), engine.consumer(**{variable: url})]
        for program in self.behind:
            program.ready()
        engine.client.listen()

    def start_healthy(self) -> list[Program]:
        """Start a coordinator and a consumer without a proxy."""
        programs = [self.engine.coordinator(), self.engine.consumer()]
        for program in programs:
            program.ready()
        return programs

    def all_say(self, words: str, since: list[int] | None = None) -> None:
        """Wait until both programs behind the proxy have logged something (after having written so many characters)."""
        for program, start in zip(self.behind, since or [0, 0], strict=True):
            until(partial(_says, program, words, start), f"{program.name} logs {words!r}", SOON)

    def written(self) -> list[int]:
        """Return how many characters each of them has logged."""
        return [len(program.output()) for program in self.behind]


def all_end(programs: Sequence[Program]) -> None:
    """Send SIGTERM to programs; each must end in its time."""
    for program in programs:
        program.signal(signal.SIGTERM)
    began = time.monotonic()
    codes = [program.exit_code(SOON) for program in programs]
    assert set(codes) <= {0, os.EX_SOFTWARE}, "in an orderly way, or at the end of its time"
    assert time.monotonic() - began < GRACE + CLOSING + 5, "a busy machine is late"


def _says(program: Program, words: str, start: int) -> bool:
    return words in program.output()[start:]


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> str:
    """Provide the name of the server whose connections go silent."""
    return str(request.param)


@pytest.fixture
def halves(installations: MakeInstallation, server: str) -> Iterator[Halves]:
    """Provide the installation, with the programs behind the proxy running."""
    engine = installations(**SETTINGS)
    variable, _ = SERVERS[server]
    with proxied(engine.environment[variable]) as (proxy, url):
        yield Halves(engine, proxy, variable, url)
        engine.kill_all()


def test_others_take_over_and_the_silent_programs_end_or_go_on(halves: Halves, server: str) -> None:
    engine, proxy = halves.engine, halves.proxy
    _, silent = SERVERS[server]
    held = engine.start("holds")
    engine.wait_for_note(held, "held")
    process_ids: list[UUID] = [held]
    healthy = halves.start_healthy()
    process_ids += flood(engine, 15, key="before")
    half_done(engine)

    # Nothing of theirs arrives any more.
    before = halves.written()
    began = time.monotonic()
    process_ids.append(engine.finish("one_step"))
    pace = time.monotonic() - began
    silent_since = engine.value("SELECT clock_timestamp()")
    proxy.swallow()
    engine.open_gate(f"hold-{held}")
    process_ids += flood(engine, 10, key="meanwhile")
    all_done(engine, process_ids, SOON)
    lost = [entry for entry in engine.log(held, "attempt lost") if entry.finished_at > silent_since]
    assert bool(lost) == (server == "PostgreSQL"), "a consumer that only the broker does not hear commits its step"
    for entry in lost:
        # By the server's clock; what the machine is slow in it is slow in for a process of one step as well.
        assert (entry.finished_at - silent_since).total_seconds() < PRESUMED_DEAD_AFTER + MARGIN + 20 * pace
    halves.all_say(silent, before)
    if server == "PostgreSQL":
        halves.all_say("consuming nothing; the broker gives our messages to others", before)
    assert all(program.runs for program in halves.behind)

    # They are heard again, and alone.
    before = halves.written()
    proxy.pass_on()
    halves.all_say("consuming ", before)
    assert [program.stop() for program in healthy] == [0, 0]
    process_ids += flood(engine, 10, key="afterwards")
    all_done(engine, process_ids, SOON)

    # They are told to end in the moment in which they fall silent again, with a step that runs.
    running = engine.start("holds")
    engine.wait_for_note(running, "held")
    proxy.swallow()
    all_end(halves.behind)
    engine.open_gate(f"hold-{running}")
    halves.start_healthy()
    all_done(engine, [*process_ids, running], SOON)


def test_programs_that_answer_requests_end_although_both_servers_are_silent(installations: MakeInstallation) -> None:
    """The API with a request in progress, and 'dev', which is all programs in one, with a step that runs."""
    engine = installations(**SETTINGS)
    with (
        proxied(engine.database_url) as (database, database_url),
        proxied(engine.amqp_url) as (broker, amqp_url),
        ThreadPoolExecutor(1) as threads,
    ):
        behind = {"ORCHESTRATOR_DATABASE_URL": database_url, "ORCHESTRATOR_AMQP_URL": amqp_url}
        api = engine.api(**behind)
        dev = engine.run("dev", "dev", "--port", "0", **behind).ready()
        engine.client.listen()
        engine.wait_for_note(engine.start("holds"), "held")
        assert api.call("GET", "/processes").status_code == HTTPStatus.OK
        database.swallow()
        broker.swallow()
        dropped = database.dropped
        asking = threads.submit(api.call, "GET", "/processes")
        until(lambda: database.dropped > dropped, "the request waits for the database")
        all_end([api, dev])
        with contextlib.suppress(httpx.HTTPError):
            assert asking.result().status_code >= HTTPStatus.INTERNAL_SERVER_ERROR
        engine.kill_all()
