"""What is deleted in the broker under running programs comes back, and the broker's reasons are in the log."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

from tests.acceptance.conftest import MakeInstallation
from tests.acceptance.installation import Installation
from tests.acceptance.waiting import until
from tests.servers import Servers

COMMANDS = "orchestrator.commands"


def _vhost(engine: Installation) -> str:
    return engine.amqp_url.rsplit("/", 1)[1]


def _bindings(engine: Installation, servers: Servers) -> Callable[[], set[str]]:
    """Return a function that asks for the keys by which commands reach their queue."""

    def ask() -> set[str]:
        found = servers.call("GET", f"bindings/{_vhost(engine)}/e/{COMMANDS}/q/{COMMANDS}")
        assert isinstance(found, list)
        return {one["routing_key"] for one in found}

    return ask


def test_bindings_exchanges_and_queues_that_are_deleted_come_back_by_themselves(
    installations: MakeInstallation, servers: Servers
) -> None:
    engine = installations()
    engine.coordinator().ready()
    engine.consumer().ready()
    bindings, vhost = _bindings(engine, servers), _vhost(engine)
    before = bindings()
    assert "workflow.start" in before

    servers.call("DELETE", f"bindings/{vhost}/e/{COMMANDS}/q/{COMMANDS}/workflow.start")
    until(lambda: bindings() == before, "the binding is there again")
    engine.finish("chain")

    servers.call("DELETE", f"exchanges/{vhost}/orchestrator.steps")
    servers.call("DELETE", f"exchanges/{vhost}/orchestrator.events")
    servers.call("DELETE", f"queues/{vhost}/orchestrator.results")
    engine.finish("chain")
    assert "message kept" not in engine.logs()


def test_the_reason_for_which_the_broker_closes_a_connection_is_logged(
    installations: MakeInstallation, servers: Servers
) -> None:
    engine = installations()
    coordinator = engine.coordinator().ready()

    def names() -> list[str]:
        found = servers.call("GET", f"vhosts/{_vhost(engine)}/connections")
        assert isinstance(found, list)
        return [one["name"] for one in found if "coordinator" in one.get("user_provided_name", "")]

    until(lambda: len(names()) >= 2, "the broker shows the connections")
    for name in names():
        servers.call("DELETE", f"connections/{quote(name, safe='')}")
    for loop in ("publisher", "deliveries"):
        until(
            lambda loop=loop: [  # type: ignore[misc]
                line
                for line in coordinator.output().splitlines()
                if "broker connection lost" in line and f"loop={loop}" in line and "CONNECTION_FORCED" in line
            ],
            f"the log of the {loop} has the broker's reason",
        )
