"""A PostgreSQL primary and its synchronous standby, both in the URL: the primary is lost while processes run.

``scripts/chaos-cluster`` does more of this, with a cluster of RabbitMQ nodes, on demand.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, suppress
from uuid import uuid4

import asyncpg
import pytest

from tests.acceptance.chaos import PATIENT, all_done, flood, half_done
from tests.acceptance.installation import Installation
from tests.acceptance.waiting import until
from tests.cluster.machine import Machine
from tests.cluster.postgres import Pair
from tests.servers import Servers, drop_vhost, make_vhost


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Provide a primary and a standby of the test's own."""
    machine = Machine()
    try:
        made = Pair(machine)
        made.start()
        yield made
    finally:
        machine.close(keep=False)


@pytest.fixture
def engine(pair: Pair, servers: Servers) -> Iterator[Installation]:
    """Provide a running installation on both: two coordinators and two consumers."""
    vhost = f"test-{uuid4().hex[:12]}"
    make_vhost(servers, vhost)
    url = pair.url(pair.primary.port, pair.standby.port)
    settings = PATIENT | {"ORCHESTRATOR_CONNECT_TIMEOUT": "3"}
    with closing(Installation(pair.machine.folder / "engine", url, servers.amqp_url(vhost), **settings)) as made:
        made.migrate()
        programs = [made.coordinator(), made.coordinator(), made.consumer("--concurrency", "4"), made.consumer()]
        for program in programs:
            program.ready()
        yield made
        assert made.defects() == []
    drop_vhost(servers, vhost)


def test_a_standby_takes_the_place_of_a_primary_that_closes_no_connection(engine: Installation, pair: Pair) -> None:
    """Nothing that was committed is lost, nothing is done twice, and nothing waits for the machine that has no power."""
    process_ids = flood(engine)
    half_done(engine)
    pair.primary.freeze()
    pair.fail_over()
    engine.database_url = pair.url(pair.primary.port)
    engine.disconnect()

    def answers() -> bool:
        with suppress(OSError, asyncpg.PostgresError):
            return bool(engine.value("SELECT NOT pg_is_in_recovery()"))
        return False

    until(answers, "the standby is the primary")
    all_done(engine, process_ids)
    assert all(program.runs for program in engine.programs)
    engine.finish("one_step")
