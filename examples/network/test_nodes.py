"""A node from its order to its end, with a network controller and field engineers that live in memory."""

from __future__ import annotations

import json
from types import TracebackType
from typing import Any, Self
from uuid import UUID

import aio_pika
import pytest

from examples.network import controller
from examples.network.products.node import Node
from orchestrator.errors import ProcessFailureError, WorkflowNotUsableError
from orchestrator.testing import (
    Engine,
    ProcessUnderTest,
    assert_awaiting_callback,
    assert_complete,
    assert_failed,
    assert_state,
    assert_status,
    assert_suspended,
    assert_waiting,
)
from orchestrator.types import ProcessStatus

REPORT = {"engineer": "Noor", "light": -3.5}


class Controller:
    """The network controller: it knows an order that comes twice by its key, and is busy as often as a test says."""

    def __init__(self) -> None:
        self.services: dict[UUID, controller.Configuration] = {}
        self.orders: dict[str, int] = {}
        self.busy = 0

    def put(self, service: UUID, configuration: controller.Configuration, idempotency_key: str) -> int:
        if self.busy:
            self.busy -= 1
            raise ProcessFailureError("the network controller is busy")
        self.services[service] = configuration
        return self.orders.setdefault(idempotency_key, len(self.orders) + 1)

    def read(self, service: UUID) -> controller.Configuration | None:
        return self.services.get(service)

    def delete(self, service: UUID, idempotency_key: str) -> None:
        self.services.pop(service, None)


class Jobs(list[dict[str, Any]]):
    """The jobs of the field engineers, and as much of a broker's client as the step uses."""

    async def connect(self, url: str, timeout: float) -> Self:  # noqa: ASYNC109 - as the client has it
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    async def channel(self, *, on_return_raises: bool) -> Self:
        return self

    @property
    def default_exchange(self) -> Self:
        return self

    async def publish(self, message: aio_pika.Message, queue: str, timeout: float) -> None:  # noqa: ASYNC109 - as above
        self.append(json.loads(message.body))


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Controller:
    made = Controller()
    for name in ("put", "read", "delete"):
        monkeypatch.setattr(controller, name, getattr(made, name))
    return made


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> Jobs:
    made = Jobs()
    monkeypatch.setattr(aio_pika, "connect", made.connect)
    monkeypatch.setenv("NETWORK_AMQP_URL", "amqp://engineers.invalid")
    monkeypatch.setenv("NETWORK_CONTROLLER_URL", "http://controller.invalid")
    return made


async def order_node(engine: Engine) -> ProcessUnderTest:
    page = {"customer_id": "NREN", "node_name": "ams-1", "role": "PE", "management_address": "2001:db8::1"}
    product = await engine.product_id("Node Nokia")
    return await engine.run_workflow("create_node", [{"product": product}, page], user="sales")


async def make_node(engine: Engine) -> UUID:
    process = await order_node(engine)
    await process.callback(REPORT)
    await process.resume({"accepted_by": "Noor"}, user="noc")
    assert_complete(process)
    return process.subscription_id


async def test_a_node_is_installed_accepted_and_configured(
    workflow_engine: Engine, network: Controller, jobs: Jobs
) -> None:
    process = await order_node(workflow_engine)
    assert_awaiting_callback(process, "Wait for the field engineer")
    assert jobs[0]["task"] == "install Node Nokia ams-1 (Nokia PE)"

    await workflow_engine.callback(jobs[0]["token"], REPORT)
    assert_suspended(process, "Accept the installation")
    assert_state(process, {"installed_by": "Noor"})
    await process.resume({"accepted_by": "Ada"}, user="noc")

    assert_complete(process)
    async with workflow_engine.transaction() as session:
        node = await Node.from_subscription(session, process.subscription_id)
    assert (node.status, node.insync, node.node.controller_id) == ("active", True, 1)
    assert list(network.services) == [node.subscription_id]


async def test_another_engineer_is_sent_when_too_little_light_arrives(
    workflow_engine: Engine, network: Controller, jobs: Jobs
) -> None:
    process = await order_node(workflow_engine)
    await process.callback({"engineer": "Noor", "light": -30})
    assert_failed(process, "Check the engineer's report", "only -30.0 dBm arrive")
    await process.retry(user="noc")
    assert_awaiting_callback(process)
    assert len({job["token"] for job in jobs}) == 2


async def test_a_busy_controller_is_asked_again(workflow_engine: Engine, network: Controller, jobs: Jobs) -> None:
    process = await order_node(workflow_engine)
    await process.callback(REPORT)
    network.busy = 2
    await process.resume({"accepted_by": "Ada"})
    assert_waiting(process, "Configure the network")
    await process.run_when_due()
    assert_waiting(process)
    await process.run_when_due()
    assert_complete(process)


async def test_a_consumer_may_die_at_any_step(workflow_engine: Engine, network: Controller, jobs: Jobs) -> None:
    with workflow_engine.assert_idempotent(
        observe=lambda: network.orders, ignoring=["subscription", "subscription_id"]
    ):
        await make_node(workflow_engine)
    assert list(network.orders.values()) == [1]


async def test_a_validation_finds_what_the_network_does_not_do(
    workflow_engine: Engine, network: Controller, jobs: Jobs
) -> None:
    subscription_id = await make_node(workflow_engine)
    pages = {"subscription_id": subscription_id}
    assert_complete(await workflow_engine.run_workflow("validate_node", pages))
    network.services.clear()
    process = await workflow_engine.run_workflow("validate_node", pages)
    assert_status(process, ProcessStatus.INCONSISTENT_DATA, step="Compare with the network")
    with pytest.raises(WorkflowNotUsableError):
        await workflow_engine.run_workflow("terminate_node", pages)
