"""The task that validates the subscriptions of one product type."""

from __future__ import annotations

from datetime import timedelta
from typing import cast

from pydantic import ConfigDict, create_model
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.forms import AsyncFormGenerator, FormPage
from orchestrator.services.validations import start_validations
from orchestrator.types import State
from orchestrator.workflow import StepList, begin, step
from orchestrator.workflows.pages import product_type_choice
from orchestrator.workflows.utils import task


class ProductTypePage(FormPage):
    """Names the type."""

    model_config = ConfigDict(title="Product type")

    product_type: str


async def product_type_form(session: AsyncSession) -> AsyncFormGenerator:
    """Ask for one of the types that there are."""
    options = await product_type_choice(session)
    filled = yield create_model("ProductTypePage", __base__=ProductTypePage, product_type=(options, ...))
    yield {"product_type": str(cast("ProductTypePage", filled).product_type)}


@step("Start the validations", timeout=timedelta(hours=4))
async def validate_type(session: AsyncSession, product_type: str) -> State:
    """Start a validation of each subscription of the type, and return how many."""
    return await start_validations(session, product_type)


@task("Validate all subscriptions of a product type", initial_input_form=product_type_form)
def task_validate_product_type() -> StepList:
    """Start the validations in one step, in its commit; they run by themselves."""
    return begin >> validate_type
