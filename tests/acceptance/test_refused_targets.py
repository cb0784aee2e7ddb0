"""A target that refuses messages: its own wait in the rows, everything else goes on, and the log stays short."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

import aio_pika
import pytest

from tests.acceptance.conftest import MakeInstallation
from tests.acceptance.installation import Installation
from tests.acceptance.waiting import until
from tests.servers import Servers

QUEUE = "orchestrator.steps.ims"
NUMBER = 20
EVERYTHING = {"exchange": "orchestrator.events", "write": ".*", "read": ".*"}


def _vhost(engine: Installation) -> str:
    return engine.amqp_url.rsplit("/", 1)[1]


def _lines(engine: Installation, text: str) -> list[str]:
    return [line for line in engine.logs().splitlines() if text in line]


def _limit(engine: Installation, servers: Servers) -> Callable[[], None]:
    """Let the queue take one message; return what ends that."""
    path = f"policies/{_vhost(engine)}/full"
    limits = {"max-length": 1, "overflow": "reject-publish"}
    servers.call("PUT", path, {"pattern": f"^{QUEUE}$", "definition": limits, "apply-to": "queues"})
    return lambda: _delete(servers, path)


def _declare_otherwise(engine: Installation, servers: Servers) -> Callable[[], None]:
    """Let another program have declared the queue, its own way; return what ends that."""

    async def declare() -> None:
        async with await aio_pika.connect(engine.amqp_url) as connection:
            await (await connection.channel()).declare_queue(QUEUE, durable=True, arguments={"x-max-priority": 3})

    engine.background.run(declare())
    return lambda: _delete(servers, f"queues/{_vhost(engine)}/{QUEUE}")


def _unconfirmed(engine: Installation) -> int:
    """Return how many processes have events that the broker has not confirmed."""
    found: int = engine.json("status")["unconfirmed_events"]["processes"]
    return found


def _delete(servers: Servers, path: str) -> None:
    servers.call("DELETE", path)


@pytest.mark.parametrize("refuse", [_limit, _declare_otherwise])
def test_the_commands_that_a_queue_refuses_wait_in_the_rows_and_all_others_go_on(
    installations: MakeInstallation, servers: Servers, refuse: Callable[[Installation, Servers], Callable[[], None]]
) -> None:
    engine = installations()
    engine.coordinator().ready()
    engine.consumer().ready()
    end = refuse(engine, servers)
    held_up = [engine.start("other_queue") for _ in range(NUMBER)]
    others = [engine.start("chain") for _ in range(NUMBER)]
    for process_id in others:
        engine.wait_for(process_id, "completed")
    until(lambda: _lines(engine, "messages are refused"), "the log names the queue")
    assert len(_lines(engine, "messages are refused")) < NUMBER / 2
    assert [engine.status(one) for one in held_up] == ["running"] * NUMBER
    assert not _lines(engine, "message kept")

    end()
    engine.consumer("--queue", "ims").ready()
    for process_id in held_up:
        engine.wait_for(process_id, "completed")


def test_a_target_to_which_access_is_refused_holds_up_nothing_else(
    installations: MakeInstallation, servers: Servers
) -> None:
    """The broker closes the channel for such a message, and with it fails all that are in flight there."""
    engine = installations()
    path = f"topic-permissions/{_vhost(engine)}/{quote(servers.user)}"
    engine.coordinator().ready()
    servers.call("PUT", path, EVERYTHING | {"write": r"^(?!.*\.one_step\.).*$"})
    engine.consumer().ready()
    process_ids = [engine.start(workflow) for _ in range(NUMBER) for workflow in ("one_step", "chain")]
    for process_id in process_ids:
        engine.wait_for(process_id, "completed")
    until(lambda: _lines(engine, "messages are refused"), "the log names the target")
    assert len(_lines(engine, "messages are refused")) < NUMBER
    for text in ("broker connection lost", "message kept", "the broker is away"):
        assert not _lines(engine, text)
    until(lambda: _unconfirmed(engine) == NUMBER, "status counts the processes")

    servers.call("PUT", path, EVERYTHING)
    until(lambda: _unconfirmed(engine) == 0, "the events are published")
