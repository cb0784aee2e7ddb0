"""Workflows that ask people."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from orchestrator.forms import AsyncFormGenerator, FormGenerator, FormPage
from orchestrator.workflow import StepList, done, init, inputstep, step, workflow
from tests.acceptance.workflows.lab import note


class NodePage(FormPage):
    """The first page."""

    node: str = Field(min_length=2)


def two_page_form(session: Session) -> FormGenerator:
    """Yield two pages, of which the second depends on the first, and ask the database in between."""
    first = yield NodePage
    assert session.scalar(select(1)) == 1

    class PortPage(FormPage):
        """The second page."""

        port: int = Field(ge=1, le=48, title=f"Port of {first.node}")  # type: ignore[attr-defined]

    second = yield PortPage
    return first.model_dump() | second.model_dump()


@step("Take note")
async def take_note(process_id: UUID, state: dict[str, Any]) -> None:
    note(process_id, "noted", state=state)


@workflow("Two pages", initial_input_form=two_page_form)
def two_pages() -> StepList:
    return init >> take_note >> done


@step("Offer")
async def offer() -> dict[str, list[str]]:
    return {"offers": ["red", "blue"]}


@inputstep("Choose", assignee="NOC")
async def choose(offers: list[str]) -> AsyncFormGenerator:
    """Yield two pages of an async form, filled from the state."""

    class ChoicePage(FormPage):
        """A choice."""

        choice: str = Field(json_schema_extra={"offers": list(offers)})

    page = yield ChoicePage

    class SurePage(FormPage):
        """A confirmation."""

        sure: bool = Field(title=f"Really {page.choice}?")  # type: ignore[attr-defined]  # the page just made

    sure = yield SurePage
    yield page.model_dump() | sure.model_dump()


@workflow("Asks somebody")
def asks() -> StepList:
    return init >> offer >> choose >> take_note >> done


class AmountPage(FormPage):
    """A number."""

    amount: int = Field(ge=0)


@inputstep("How many")
def how_many() -> type[FormPage]:
    """Return the only page."""
    return AmountPage


class FinalPage(FormPage):
    """The last word."""

    word: str


@inputstep("Last word")
def last_word() -> FormGenerator:
    page = yield FinalPage
    return page.model_dump()


@workflow("Asks twice in a row")
def asks_twice() -> StepList:
    return init >> how_many >> last_word >> take_note >> done
