"""The users of deploy/rabbitmq/definitions.json can do what deploy/README.md says, and nothing else."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import secrets
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel
from aiormq.exceptions import ChannelAccessRefused, ChannelPreconditionFailed

from orchestrator.broker.topology import EXCHANGES, Topology

pytestmark = pytest.mark.timeout(120)
DEFINITIONS: dict[str, list[dict[str, Any]]] = json.loads(
    (Path(__file__).resolve().parents[2] / "deploy" / "rabbitmq" / "definitions.json").read_text()
)
EXCHANGE_NAMES = [exchange["name"] for exchange in DEFINITIONS["exchanges"]]
CALLBACK_KEYS = ["callback.completed", "callback.failed", "callback.progress"]

Act = Callable[[AbstractChannel], Awaitable[object]]


@dataclass
class Management:
    """The management HTTP API, as the broker's administrator."""

    url: str
    login: str

    def call(self, method: str, path: str, body: object = None) -> None:
        request = urllib.request.Request(
            f"{self.url}/api/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Basic {self.login}", "Content-Type": "application/json"},
        )
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60):
            pass


@dataclass
class Broker:
    """A virtual host of its own with the shipped topology and users."""

    vhost: str
    scheme: str
    address: str
    password: str

    def act(self, user: str, action: Act) -> None:
        """Do something on a channel of this user. What the broker refuses is raised here."""

        async def connect_and_act() -> None:
            url = f"{self.scheme}://{user}-{self.vhost}:{self.password}@{self.address}/{self.vhost}"
            async with await aio_pika.connect(url, timeout=60) as connection:
                await action(await connection.channel(publisher_confirms=True, on_return_raises=True))

        asyncio.run(connect_and_act())

    def refuses(self, user: str, action: Act) -> None:
        with pytest.raises(ChannelAccessRefused):
            self.act(user, action)


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    """The broker of the test session, in a virtual host that is deleted afterwards."""
    management_url = os.environ.get("ORCHESTRATOR_MANAGEMENT_URL")
    if "ORCHESTRATOR_AMQP_URL" not in os.environ or not management_url:
        pytest.skip("needs ORCHESTRATOR_AMQP_URL and ORCHESTRATOR_MANAGEMENT_URL")
    url = urlsplit(os.environ["ORCHESTRATOR_AMQP_URL"])
    login = f"{unquote(url.username or 'guest')}:{unquote(url.password or 'guest')}"
    api = Management(management_url.rstrip("/"), base64.b64encode(login.encode()).decode())
    made = Broker(
        f"permissions-{secrets.token_hex(4)}", url.scheme, url.netloc.rpartition("@")[2], secrets.token_hex(8)
    )
    try:
        api.call("PUT", f"vhosts/{made.vhost}")
    except urllib.error.HTTPError as refusal:
        if refusal.code in (401, 403):
            pytest.skip("the user of ORCHESTRATOR_AMQP_URL may not administer this broker")
        raise
    try:
        parts = {part: _without_vhost(DEFINITIONS[part]) for part in ("exchanges", "queues", "bindings")}
        api.call("POST", f"definitions/{made.vhost}", parts)
        for user in DEFINITIONS["users"]:
            api.call("PUT", f"users/{user['name']}-{made.vhost}", {"password": made.password, "tags": ""})
        for kind in ("permissions", "topic_permissions"):
            for grant in DEFINITIONS[kind]:
                path = f"{kind.replace('_', '-')}/{quote(made.vhost)}/{grant['user']}-{made.vhost}"
                api.call("PUT", path, {name: value for name, value in grant.items() if name not in ("user", "vhost")})
        yield made
    finally:
        for user in DEFINITIONS["users"]:
            api.call("DELETE", f"users/{user['name']}-{made.vhost}")
        api.call("DELETE", f"vhosts/{made.vhost}")


def _without_vhost(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in item.items() if name != "vhost"} for item in items]


def publish(exchange: str, key: str) -> Act:
    async def act(channel: AbstractChannel) -> object:
        target = await channel.get_exchange(exchange, ensure=False) if exchange else channel.default_exchange
        return await target.publish(aio_pika.Message(b"{}"), key, mandatory=True, timeout=60)

    return act


def read(queue: str) -> Act:
    async def act(channel: AbstractChannel) -> object:
        found = await channel.get_queue(queue, ensure=False)
        return await found.get(no_ack=True, fail=False, timeout=60)

    return act


def purge(queue: str) -> Act:
    async def act(channel: AbstractChannel) -> object:
        return await (await channel.get_queue(queue, ensure=False)).purge(timeout=60)

    return act


def delete(queue: str) -> Act:
    return lambda channel: channel.queue_delete(queue, timeout=60)


def declare(queue: str) -> Act:
    return lambda channel: channel.declare_queue(queue, exclusive=True, timeout=60)


def test_an_external_system_can_answer_callbacks(broker: Broker) -> None:
    """All three kinds of answer reach the queue: each publish is mandatory and confirmed."""
    for key in CALLBACK_KEYS:
        broker.act("ext", publish("orchestrator.callbacks", key))


@pytest.mark.parametrize("exchange", [name for name in EXCHANGE_NAMES if name != "orchestrator.callbacks"])
def test_an_external_system_cannot_publish_anywhere_else(broker: Broker, exchange: str) -> None:
    """Not a start command, a step, a result, an event or a dead letter."""
    for key in (*CALLBACK_KEYS, "workflow.start", "default", "result"):
        broker.refuses("ext", publish(exchange, key))


def test_an_external_system_cannot_reach_queues_by_name(broker: Broker) -> None:
    """The default exchange leads into every queue, past all other permissions."""
    for queue in DEFINITIONS["queues"]:
        broker.refuses("ext", publish("", queue["name"]))


def test_an_external_system_cannot_use_other_routing_keys(broker: Broker) -> None:
    """The entry under topic_permissions is what limits the keys."""
    for key in ("callback", "callback.completed.x", "workflow.start", "#"):
        broker.refuses("ext", publish("orchestrator.callbacks", key))


def test_an_external_system_can_read_and_declare_nothing(broker: Broker) -> None:
    """Tokens of other systems' callbacks pass through the callback queue."""
    for queue in DEFINITIONS["queues"]:
        broker.refuses("ext", read(queue["name"]))
    for name in ("orchestrator.mine", "svc.mine", "mine"):
        broker.refuses("ext", declare(name))


def test_a_service_can_start_workflows_and_read_its_own_answers(broker: Broker) -> None:
    """Its reply queue is its own, and the engine can write there through the default exchange."""
    broker.act("svc", publish("orchestrator.commands", "workflow.start"))

    async def ask(channel: AbstractChannel) -> None:
        replies = await channel.declare_queue("svc.crm.replies", exclusive=True, timeout=60)
        await asyncio.to_thread(broker.act, "engine", publish("", "svc.crm.replies"))
        await replies.get(no_ack=True, timeout=60)

    broker.act("svc", ask)


def test_a_service_can_do_nothing_else(broker: Broker) -> None:
    """It neither answers callbacks nor reads what others send."""
    for exchange in EXCHANGE_NAMES:
        if exchange != "orchestrator.commands":
            broker.refuses("svc", publish(exchange, "workflow.start"))
    broker.refuses("svc", publish("", "orchestrator.commands"))
    broker.refuses("svc", publish("orchestrator.commands", "workflow.anything"))
    for queue in DEFINITIONS["queues"]:
        broker.refuses("svc", read(queue["name"]))
    broker.refuses("svc", declare("orchestrator.mine"))


def test_no_service_can_send_in_the_name_of_another(broker: Broker) -> None:
    """Whose an idempotency key is, and who stands in the log as the sender, the engine takes from the property user_id."""

    def publish_as(user: str) -> Act:
        async def act(channel: AbstractChannel) -> object:
            target = await channel.get_exchange("orchestrator.commands", ensure=False)
            message = aio_pika.Message(b"{}", user_id=f"{user}-{broker.vhost}")
            return await target.publish(message, "workflow.start", mandatory=True, timeout=60)

        return act

    broker.act("svc", publish_as("svc"))
    with pytest.raises(ChannelPreconditionFailed):
        broker.act("svc", publish_as("engine"))


def test_an_operator_can_look_at_dead_letters_only(broker: Broker) -> None:
    """B41: at the copies; letters that the broker makes of callbacks have their token until a coordinator takes them."""
    broker.act("operator", read("orchestrator.dead"))
    broker.refuses("operator", read("orchestrator.letters"))
    broker.refuses("operator", read("orchestrator.commands"))
    broker.refuses("operator", publish("orchestrator.dead", ""))


def test_who_may_read_the_copies_of_dead_letters_may_purge_them_and_nothing_else(broker: Broker) -> None:
    """The broker has one right for both. The letters themselves are rows; those that are not yet are out of reach."""
    broker.act("engine", publish("", "orchestrator.dead"))
    broker.act("operator", purge("orchestrator.dead"))
    for queue in DEFINITIONS["queues"]:
        if queue["name"] != "orchestrator.dead":
            broker.refuses("operator", purge(queue["name"]))
    broker.refuses("operator", delete("orchestrator.dead"))


def test_the_shipped_topology_is_the_one_that_the_engine_declares() -> None:
    """Otherwise the engine would be refused at its start: arguments of a queue cannot be changed."""
    assert {item["name"]: item["type"] for item in DEFINITIONS["exchanges"]} == {
        exchange.name.value: exchange.type for exchange in EXCHANGES
    }
    queues = Topology().queues
    assert {item["name"]: item["arguments"] for item in DEFINITIONS["queues"]} == {
        str(queue.name): queue.arguments("quorum") for queue in queues
    }
    assert {(item["source"], item["destination"], item["routing_key"]) for item in DEFINITIONS["bindings"]} == {
        (queue.exchange.value, str(queue.name), key) for queue in queues for key in queue.keys
    }
