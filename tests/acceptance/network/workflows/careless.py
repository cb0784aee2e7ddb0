"""A workflow whose author mixes up subscriptions in every way there is."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.forms import AsyncFormGenerator, FormPage
from orchestrator.types import State
from orchestrator.workflow import StepList, begin, conditional, step
from orchestrator.workflows.steps import set_status
from orchestrator.workflows.utils import modify_workflow
from tests.acceptance.network.products import Node, NodeInactive


class CarelessPage(FormPage):
    """Another node, and what to do wrong."""

    other: UUID
    how: str


async def careless_form() -> AsyncFormGenerator:
    """May end with a key of the first page."""
    filled = yield CarelessPage
    values = filled.model_dump()
    keys = {"form": "subscription_id", "page": "subscription"}
    yield values | ({keys[values["how"]]: str(values["other"])} if values["how"] in keys else {})


@step("Mix up")
async def mix_up(session: AsyncSession, subscription: Node, other: Node, how: str) -> Any:
    if how in {"swap", "status"}:
        return {"subscription": other}
    if how == "page":
        return {}
    if how == "bare":
        return subscription
    if how == "other":
        other.node.renamed += 1
        return {"neighbour": other}
    made = await NodeInactive.from_product_id(session, subscription.product.product_id, subscription.customer_id)
    return {"second": made}


def wants_status(state: State) -> bool:
    return bool(state["how"] == "status")


@modify_workflow("A careless change", initial_input_form=careless_form)
def careless_change() -> StepList:
    return begin >> mix_up >> conditional(wants_status)(set_status("provisioning"))
