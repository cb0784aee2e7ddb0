"""Provision a line: from an order to a tested port in service.

Read it from the bottom: ``provision_line`` lists the steps in order. Each step is a function that gets what it asks for by
name – from the state, or from the engine (``session``, ``process_id``, ``idempotency_key``, …) – and returns what later
steps need. What a step writes through ``session`` is committed together with its entry in the log, or not at all.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
from typing import Annotated, Any
from urllib.parse import urlsplit
from uuid import UUID

import aio_pika
from pydantic import BaseModel, Field
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from tenacity import wait_fixed

from orchestrator.errors import ProcessFailureError
from orchestrator.forms import FormGenerator, FormPage
from orchestrator.retry import RetryPolicy
from orchestrator.targets import Target
from orchestrator.workflow import (
    StepList,
    callback_step,
    conditional,
    done,
    init,
    inputstep,
    retrystep,
    step,
    workflow,
)

from ..inventory import BurnIn, Line, Node  # noqa: TID252 - works wherever this folder is copied to

FIELD_QUEUE = "field.jobs"
BURN_IN_ROUNDS = 10


class Order(FormPage):
    """What the customer wants. Whoever starts the workflow fills this in; wrong input never becomes a process."""

    customer: Annotated[str, Field(min_length=1, max_length=100)]
    node: Annotated[str, Field(pattern=r"^[a-z]{3}-\d+$")]
    bandwidth: Annotated[int, Field(ge=100, le=100_000)]
    protection: bool = False


def order_form() -> FormGenerator:
    """Ask for one page; what it returns is the first state of the process."""
    order = yield Order
    return order.model_dump()


@step("Reserve a port")
async def reserve_port(
    session: AsyncSession, process_id: UUID, customer: str, node: str, bandwidth: int
) -> dict[str, Any]:
    """Take the first free port of the node. The engine commits; a step cannot."""
    # Locked, so that two processes on one node do not choose the same port.
    router = await session.get(Node, node, with_for_update=True)
    if router is None:
        raise ProcessFailureError(f"the inventory has no node {node!r}", details={"node": node})
    taken = set(await session.scalars(select(Line.port).where(Line.node == node)))
    port = next((number for number in range(1, router.ports + 1) if number not in taken), None)
    if port is None:
        raise ProcessFailureError(f"all {router.ports} ports of {node} are taken", details={"node": node})
    line = Line(process_id=process_id, node=node, port=port, customer=customer, bandwidth=bandwidth)
    session.add(line)
    await session.flush()
    return {"line_id": line.line_id, "port": port}


@retrystep("Configure the node", retry=RetryPolicy(wait=wait_fixed(0.5), limit=10), timeout=60)
def configure_node(idempotency_key: str, node: str, port: int, bandwidth: int) -> dict[str, Any]:
    """Ask the provisioning service, which is not always well: then the engine tries again by itself.

    A plain function: it runs in a thread and holds up nobody. The key is the same on every attempt of this step, so the
    service can tell a repetition from a new order.
    """
    service = urlsplit(_setting("DEMO_PROVISIONING_URL"))
    connection = http.client.HTTPConnection(service.hostname or "", service.port, timeout=10)
    try:
        order = json.dumps({"node": node, "port": port, "bandwidth": bandwidth})
        connection.request("PUT", f"/orders/{idempotency_key}", order, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    if answer.status not in (http.HTTPStatus.OK, http.HTTPStatus.CREATED):
        raise ProcessFailureError(f"the provisioning service answers {answer.status} {answer.reason}")
    return {"configuration": json.loads(body)["configuration"]}


def wants_protection(state: dict[str, Any]) -> bool:
    """Return whether the step runs. A condition is evaluated once, when the process arrives at the step; it must be quick."""
    return bool(state["protection"])


@step("Order DDoS protection")
async def order_protection(session: AsyncSession, line_id: UUID) -> None:
    """Run only for customers who want it; for the others the log says ``skipped``."""
    line = await session.get_one(Line, line_id)
    line.protected = True


@inputstep("Choose the patch position", assignee="NOC")
def patch_position(node: str, port: int) -> FormGenerator:
    """Ask a person. The process rests in the database meanwhile; no program waits."""

    class Position(FormPage):
        patch_position: Annotated[
            str, Field(title=f"Where does the cable to {node}, port {port}, start?", pattern=r"^[A-Z]\d{1,3}$")
        ]

    position = yield Position
    return position.model_dump()


@step("Send a field engineer", timeout=60)
async def send_engineer(
    callback_token: str, callback_exchange: str, idempotency_key: str, node: str, port: int, patch_position: str
) -> None:
    """Give the job to another system, with the token by which it will answer and the exchange to answer on."""
    task = f"connect {patch_position} with {node}, port {port}"
    job = {"token": callback_token, "exchange": callback_exchange, "where": node, "task": task}
    message = aio_pika.Message(
        json.dumps(job).encode(),
        content_type="application/json",
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        message_id=idempotency_key,  # should this step be run again, the worker knows the job already
    )
    async with await aio_pika.connect(_setting("DEMO_AMQP_URL")) as connection:
        channel = await connection.channel(on_return_raises=True)
        await channel.default_exchange.publish(message, FIELD_QUEUE)


class Report(BaseModel):
    """What a field engineer reports. A step may ask for a model; the engine reads it from the state."""

    engineer: str
    light: float


@step("Check the engineer's report")
async def check_report(callback_result: Report) -> dict[str, Any]:
    """Judge the answer. If this raises, a retry sends another engineer."""
    weakest = -20.0
    if callback_result.light < weakest:
        raise ProcessFailureError(f"only {callback_result.light} dBm arrive", details=callback_result.model_dump())
    return {"patched_by": callback_result.engineer}


field_visit = callback_step("Wait for the field engineer", send_engineer, check_report, timeout=300)


@step("Burn in the line", timeout=60)
async def burn_in(session: AsyncSession, line_id: UUID) -> dict[str, Any]:
    """Test the line for some seconds. If the consumer dies half-way, the row written at its start was never there."""
    test = BurnIn(line_id=line_id)
    session.add(test)
    await session.flush()
    for _ in range(BURN_IN_ROUNDS):
        await asyncio.sleep(0.3)  # stands for sending traffic
        test.rounds += 1
    return {"burn_in_rounds": test.rounds}


@step("Put the line in service")
async def put_in_service(session: AsyncSession, line_id: UUID) -> dict[str, Any]:
    """Put the line in service."""
    line = await session.get_one(Line, line_id)
    line.status = "in service"
    return {"status": line.status}


@workflow("Provision a line", initial_input_form=order_form, target=Target.CREATE)
def provision_line() -> StepList:
    """Return the steps, in order."""
    return (
        init
        >> reserve_port
        >> configure_node
        >> conditional(wants_protection)(order_protection)
        >> patch_position
        >> field_visit
        >> burn_in
        >> put_in_service
        >> done
    )


def _setting(name: str) -> str:
    """Return a setting of this project; the engine reads its own."""
    try:
        return os.environ[name]
    except KeyError:
        raise ProcessFailureError(f"{name} is not set in the consumer's environment") from None
