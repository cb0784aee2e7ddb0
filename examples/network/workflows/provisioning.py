"""Steps that the workflows of all products share, and lists of them.

A step gets what it asks for by name: ``subscription`` is loaded from the database, fresh for each step, as the class that its
product and status ask for. What a step returns under that name is saved, in the same commit as the step's entry in the log.
"""

from __future__ import annotations

import json
from typing import Annotated

import aio_pika
from pydantic import BaseModel, Field
from tenacity import wait_random_exponential

from examples.network import controller
from examples.network.settings import NetworkSettings
from examples.network.workflows.by_product import configuration, description, root_block
from orchestrator.domain import SubscriptionModel
from orchestrator.errors import ProcessFailureError
from orchestrator.forms import FormGenerator, FormPage
from orchestrator.retry import RetryPolicy
from orchestrator.types import State, SubscriptionLifecycle
from orchestrator.workflow import StepList, begin, callback_step, inputstep, retrystep, step
from orchestrator.workflows.steps import set_status

FIELD_QUEUE = "field.jobs"
WEAKEST = -20.0
"""dBm. Less light than this does not carry."""

PATIENT = RetryPolicy(wait=wait_random_exponential(multiplier=0.2, max=60), limit=30)
"""For the controller, which is often busy: soon at first, then up to a minute apart; a person looks after thirty tries."""


@step("Describe the subscription")
async def describe(subscription: SubscriptionModel) -> State:
    """Write the description that lists and choices show."""
    subscription.description = description(subscription)
    return {"subscription": subscription}


@retrystep("Configure the network", retry=PATIENT, timeout=30)
def configure(subscription: SubscriptionModel, idempotency_key: str) -> State:
    """Make the network what the subscription says, and note the number that the controller gives it.

    The key is the same on every attempt of this step, so the controller can tell a repetition from a new wish.
    """
    root_block(subscription).controller_id = controller.put(
        subscription.subscription_id, configuration(subscription), idempotency_key
    )
    return {"subscription": subscription}


@retrystep("Remove from the network", retry=PATIENT, timeout=30)
def remove(subscription: SubscriptionModel, idempotency_key: str) -> None:
    """Leave nothing of the subscription behind. Its own rows stay: they are its history."""
    controller.delete(subscription.subscription_id, idempotency_key)


@step("Compare with the network")
def compare(subscription: SubscriptionModel) -> None:
    """Raise if the network is not what the subscription says. An ``assert`` in a validation is a finding for the NOC."""
    found, wanted = controller.read(subscription.subscription_id), configuration(subscription)
    assert found == wanted, f"the network has {found}, but {subscription.description} is {wanted}"  # noqa: S101


@step("Send a field engineer", timeout=20)
async def send_engineer(
    subscription: SubscriptionModel, callback_token: str, callback_exchange: str, idempotency_key: str
) -> None:
    """Give the job to another system, with the token by which it will answer and the exchange to answer on."""
    job = {
        "token": callback_token,
        "exchange": callback_exchange,
        "where": subscription.description,
        "task": f"install {subscription.product.name} {subscription.description}",
    }
    message = aio_pika.Message(
        json.dumps(job).encode(),
        content_type="application/json",
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        message_id=idempotency_key,  # should this step be run again, the engineers know the job already
    )
    async with await aio_pika.connect(NetworkSettings().amqp_url, timeout=5) as connection:
        channel = await connection.channel(on_return_raises=True)
        await channel.default_exchange.publish(message, FIELD_QUEUE, timeout=5)


class Report(BaseModel):
    """What a field engineer reports."""

    engineer: str
    light: float


@step("Check the engineer's report")
async def check_report(callback_result: Report) -> State:
    """Judge the answer. If this raises, a retry sends another engineer."""
    if callback_result.light < WEAKEST:
        raise ProcessFailureError(f"only {callback_result.light} dBm arrive", details=callback_result.model_dump())
    return {"installed_by": callback_result.engineer}


@inputstep("Accept the installation", assignee="NOC")
def accept(subscription: SubscriptionModel, installed_by: str) -> FormGenerator:
    """Ask a person. The process rests in the database meanwhile; no program waits."""

    class Acceptance(FormPage):
        accepted_by: Annotated[
            str, Field(min_length=1, title=f"Who accepts {subscription.description}, installed by {installed_by}?")
        ]

    acceptance = yield Acceptance
    return acceptance.model_dump()


visit: StepList = (
    begin >> callback_step("Wait for the field engineer", send_engineer, check_report, timeout=3600) >> accept
)
"""A field engineer goes to the site, and an operator accepts the work."""

prepare: StepList = begin >> set_status(SubscriptionLifecycle.PROVISIONING) >> describe
"""What the subscription shall be is known: from here on it is being provisioned."""

provision: StepList = prepare >> visit >> configure
"""For things that must be put somewhere: nodes, and fibres."""

provision_remotely: StepList = prepare >> configure
"""For things that need no visit: ports of nodes that stand already, and what runs over them."""
