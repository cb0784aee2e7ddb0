"""The workflow that every product has: change the note of a subscription."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, create_model
from pydantic_forms.validators import LongText

from orchestrator.domain import SubscriptionModel
from orchestrator.forms import AsyncFormGenerator, FormPage
from orchestrator.workflow import StepList, begin, step
from orchestrator.workflows.utils import modify_workflow


class NotePage(FormPage):
    """Asks for the note; the present one is what the field begins with."""

    model_config = ConfigDict(title="Note")

    note: LongText | None = None


async def note_form(subscription: SubscriptionModel) -> AsyncFormGenerator:
    """Ask for the note, with the present one filled in."""
    filled = yield create_model("NotePage", __base__=NotePage, note=(LongText | None, subscription.note))
    yield filled.model_dump()


@step("Store the note")
async def store_note(subscription: SubscriptionModel, note: str | None) -> dict[str, Any]:
    """Return the note; ``None`` for an empty one."""
    subscription.note = note or None
    return {"subscription": subscription}


@modify_workflow("Change the note of a subscription", initial_input_form=note_form)
def modify_note() -> StepList:
    """Store what was written."""
    return begin >> store_note
