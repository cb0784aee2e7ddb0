"""Workflows that every product of this project has. ``modify_note``, which ships with the engine, is another one."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

from examples.network.workflows.provisioning import configure
from orchestrator.domain import SubscriptionModel
from orchestrator.forms import FormGenerator, FormPage
from orchestrator.types import State
from orchestrator.workflow import StepList, begin, step
from orchestrator.workflows.utils import modify_workflow, reconcile_workflow


def description_form(subscription: SubscriptionModel) -> FormGenerator:
    """Ask for one page."""

    class Description(FormPage):
        model_config = ConfigDict(title="Description")

        description: Annotated[str, Field(min_length=1, max_length=200)] = subscription.description

    filled = yield Description
    return filled.model_dump()


@step("Change the description")
async def change_description(subscription: SubscriptionModel, description: str) -> State:
    """Write it down."""
    subscription.description = description
    return {"subscription": subscription}


@modify_workflow("Change the description of a subscription", initial_input_form=description_form)
def modify_description() -> StepList:
    """May run on what is being provisioned, and on what is out of sync: see the rules in this package's ``__init__``."""
    return begin >> change_description


@reconcile_workflow("Make the network what the subscription says")
def reconcile_service() -> StepList:
    """After a validation has found a difference: what the subscription says is right."""
    return begin >> configure
