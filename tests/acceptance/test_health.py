"""Probes of coordinators and consumers: ready, waiting for a server, not responding."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import Any

import pytest
from servers.system import choose_ports

from tests.acceptance.conftest import MakeInstallation
from tests.acceptance.programs import measured
from tests.acceptance.proxy import proxied
from tests.acceptance.waiting import until


@pytest.mark.parametrize("name", ["coordinator", "consumer"])
def test_a_program_says_whether_it_is_ready_and_if_not_why(installations: MakeInstallation, name: str) -> None:
    engine = installations(**measured(), ORCHESTRATOR_RECONCILE_INTERVAL="0.5", ORCHESTRATOR_HEARTBEAT_INTERVAL="0.5")
    address = f"127.0.0.1:{choose_ports(1)[0]}"

    def ask() -> Any:
        found = engine.command("health", address, "--json", exit_code=None)
        answer = json.loads(found.stdout)
        assert found.returncode == (0 if answer["ready"] else 1)
        return answer

    def becomes(reason: str | None) -> None:
        until(lambda: ask()["reason"] == reason, f"the {name} says {reason!r}", 90)

    with ExitStack() as stack:
        database, database_url = stack.enter_context(proxied(engine.environment["ORCHESTRATOR_DATABASE_URL"]))
        broker, broker_url = stack.enter_context(proxied(engine.environment["ORCHESTRATOR_AMQP_URL"]))
        program = engine.run(
            name,
            name,
            ORCHESTRATOR_METRICS_ADDRESS=address,
            ORCHESTRATOR_DATABASE_URL=database_url,
            ORCHESTRATOR_AMQP_URL=broker_url,
        )
        becomes(None)
        assert ask() == {"address": address, "ready": True, "reason": None}
        database.refuse()
        becomes("PostgreSQL cannot be reached")
        database.pass_on()
        becomes(None)
        broker.refuse()
        becomes("RabbitMQ cannot be reached")
        broker.pass_on()
        becomes(None)
        assert engine.command("health", ORCHESTRATOR_METRICS_ADDRESS=address).stdout == "ready\n"
        program.kill()
        until(lambda: "nothing answers" in ask()["reason"], "nobody answers for a dead program")
