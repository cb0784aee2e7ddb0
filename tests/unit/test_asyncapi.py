"""The AsyncAPI document: valid by the official schema, its examples by its own, and true to the forms."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from jsonschema import Draft7Validator
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from orchestrator import registry
from orchestrator.broker.topology import FIXED_QUEUES, Queues
from orchestrator.forms import FormGenerator, FormPage, SubmitFormPage
from orchestrator.messages import MessageType
from orchestrator.operations.asyncapi import build_document
from orchestrator.registry import LazyWorkflowInstance
from orchestrator.workflow import StepList, begin, done, init, step, workflow
from orchestrator.workflows.utils import create_workflow, modify_workflow

OFFICIAL = json.loads((Path(__file__).parent / "asyncapi-3.0.0.json").read_text())


class Speed(FormPage):
    speed: int = 1000


class Node(FormPage):
    node: str
    ports: list[Literal["a", "b"]]


class Last(SubmitFormPage):
    node: str


def two_pages() -> FormGenerator:
    node = yield Node
    speed = yield Speed
    return node.model_dump() | speed.model_dump()


async def from_the_database(session: AsyncSession) -> AsyncIterator[Any]:
    await session.execute(text("SELECT 1"))
    yield Node


def from_the_database_plainly(session: Session) -> FormGenerator:
    session.execute(text("SELECT 1"))
    return (yield Node).model_dump()


def broken_form() -> FormGenerator:
    raise ZeroDivisionError


@workflow("Has two pages", initial_input_form=two_pages)
def with_pages() -> StepList:
    return init >> done


@workflow("Has one page", initial_input_form=lambda: Last)
def with_a_last_page() -> StepList:
    return init >> done


@workflow("Has no form")
def without_a_form() -> StepList:
    return init >> done


@workflow("Reads the database", initial_input_form=from_the_database)
def dynamic() -> StepList:
    return init >> done


@workflow("Reads the database with a plain form", initial_input_form=from_the_database_plainly)
def dynamic_and_plain() -> StepList:
    return init >> done


@workflow("Has a form that raises", initial_input_form=broken_form)
def raises() -> StepList:
    return init >> done


@step("Nothing")
def nothing() -> None:
    """Do nothing."""


@create_workflow("Makes a subscription")
def make_it() -> StepList:
    return begin >> nothing


@modify_workflow("Changes a subscription")
def change_it() -> StepList:
    return begin >> nothing


@pytest.fixture(autouse=True)
def workflows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_instances", {})
    for one in (with_pages, with_a_last_page, without_a_form, dynamic, dynamic_and_plain, raises, make_it, change_it):
        LazyWorkflowInstance(__name__, one.name)
    LazyWorkflowInstance("there.is.no.such.module", "broken")


def schema_of(document: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a message's schema with everything that it refers to."""
    payload: dict[str, Any] = document["components"]["messages"][name]["payload"]
    return {**payload, "components": document["components"]}


def fits(document: dict[str, Any], name: str, body: object) -> bool:
    return not list(Draft7Validator(schema_of(document, name)).iter_errors(body))


def start(workflow_name: str, *pages: dict[str, Any]) -> dict[str, Any]:
    return {"workflow": workflow_name, "inputs": list(pages), "user": "crm"}


async def test_the_document_is_valid_by_the_official_schema() -> None:
    document = await build_document()
    assert [error.message for error in Draft7Validator(OFFICIAL).iter_errors(document)] == []
    assert json.loads(json.dumps(document)) == document


async def test_without_workflows_it_is_valid_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_instances", {})
    assert list(Draft7Validator(OFFICIAL).iter_errors(await build_document())) == []


async def test_every_reference_leads_somewhere() -> None:
    document = await build_document()

    def references(value: object) -> Iterator[str]:
        if isinstance(value, dict):
            if isinstance(value.get("$ref"), str):
                yield value["$ref"]
            for one in value.values():
                yield from references(one)
        elif isinstance(value, list):
            for one in value:
                yield from references(one)

    found = set(references(document))
    assert found
    for reference in found:
        place: Any = document
        for part in reference.removeprefix("#/").split("/"):
            assert part in place, reference
            place = place[part]


async def test_every_example_fits_its_schema() -> None:
    document = await build_document()
    examples = [
        (name, example["payload"])
        for name, message in document["components"]["messages"].items()
        for example in message.get("examples", ())
    ]
    assert len(examples) > 10
    assert [name for name, body in examples if not fits(document, name, body)] == []


async def test_every_public_message_and_every_routing_key_is_in_it() -> None:
    document = await build_document()
    inside = {MessageType.STEP_COMMAND, MessageType.STEP_RESULT, MessageType.LOOK}
    named = {message["name"] for message in document["components"]["messages"].values()}
    assert named == {kind.value for kind in set(MessageType) - inside} | {"dead.letter"}
    addresses = {channel["address"] for channel in document["channels"].values()}
    keys = {key for queue in FIXED_QUEUES if queue.name in {Queues.COMMANDS, Queues.CALLBACKS} for key in queue.keys}
    assert keys <= addresses


async def test_the_first_page_of_a_form_is_the_schema_of_the_first_input() -> None:
    document = await build_document()
    page = {"node": "ams-1", "ports": ["a"]}
    assert fits(document, "start.with_pages", start("with_pages", page, {"speed": 1}))
    assert not fits(document, "start.with_pages", start("with_pages", {"node": "ams-1", "ports": ["c"]}))
    assert not fits(document, "start.with_pages", start("with_pages"))
    assert not fits(document, "start.with_pages", start("another", page))
    assert not fits(document, "start.with_pages", start("with_pages", page) | {"misspelt": 1})
    assert fits(document, "start.with_a_last_page", start("with_a_last_page", {"node": "x"}))
    assert not fits(document, "start.with_a_last_page", start("with_a_last_page", {"node": "x"}, {}))
    assert fits(document, "start.without_a_form", start("without_a_form"))
    assert not fits(document, "start.without_a_form", start("without_a_form", {}))


async def test_a_workflow_on_a_subscription_names_it_first() -> None:
    document = await build_document()
    subscription = {"subscription_id": "da4125ae-c49e-4af5-865c-88d23d97b726"}
    assert fits(document, "start.change_it", start("change_it", subscription))
    assert not fits(document, "start.change_it", start("change_it", {}))


@pytest.mark.parametrize("name", ["dynamic", "dynamic_and_plain", "raises", "make_it", "broken"])
async def test_what_is_not_known_before_a_start_is_open_and_says_so(name: str) -> None:
    document = await build_document()
    inputs = document["components"]["schemas"][f"Start.{name}"]["properties"]["inputs"]
    assert inputs["description"]
    assert fits(document, f"start.{name}", start(name, {"whatever": 1}, {"there": "is"}))
