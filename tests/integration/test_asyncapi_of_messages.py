"""What really travels fits the AsyncAPI document, and the document is there on every entry point."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import aio_pika
import pytest
from jsonschema import Draft7Validator

from orchestrator.broker.topology import Exchanges
from orchestrator.coordinator.queries import Queries
from orchestrator.db.session import Database
from orchestrator.forms import FormGenerator, FormPage
from orchestrator.messages import Advanced, MessageType, decode
from orchestrator.operations.asyncapi import build_document
from orchestrator.query_messages import BacklogFound
from orchestrator.workflow import StepList, callback_step, done, init, inputstep, step, workflow
from tests.integration.api_client import open_api
from tests.integration.cli_servers import project
from tests.integration.engine_bench import Bench, bench_of, delivery
from tests.integration.test_broker import letters


class Answer(FormPage):
    answer: int


def form() -> FormGenerator:
    page = yield Answer
    return page.model_dump()


@inputstep("Ask", assignee="NOC")
def ask() -> FormGenerator:
    page = yield Answer
    return page.model_dump()


@step("Send")
def send(callback_token: str) -> None:
    """Send a job."""


@step("Check")
def check() -> None:
    """Do nothing."""


@step("Begin")
def begin_with() -> None:
    """Do nothing."""


@workflow("Does everything", initial_input_form=form)
def everything() -> StepList:
    return init >> begin_with >> ask >> callback_step("Delivery", send, check) >> done


@pytest.fixture
async def bench(database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    async with bench_of(database, amqp_url, monkeypatch, __name__, everything) as made:
        yield made


async def backlog() -> BacklogFound:
    return BacklogFound(starts=3817, coordinators=2, per_second=61.3, seconds=None)


async def test_every_event_and_reply_fits_the_document(bench: Bench, amqp_url: str) -> None:
    document = await build_document()
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()
        mine = await channel.declare_queue("mine", durable=True)
        await mine.bind(Exchanges.EVENTS.value, "#")

    async def send_command(key: str, **body: Any) -> None:
        message = replace(delivery(key, json.dumps(body).encode()), reply_to="mine", message_id=str(uuid4()))
        if key in {"process.get", "workflow.list", "backlog.get"}:
            await Queries(bench.database, bench.publisher, 1_000_000, backlog).take(message)
        else:
            await bench.handlers.take_command(message)

    await send_command("workflow.start", workflow="everything", inputs=[])
    await send_command("workflow.start", workflow="everything", inputs=[{"answer": 1}], user="crm")
    process_id = str(await bench.database.pool.fetchval("SELECT process_id FROM processes"))
    await send_command("workflow.start", workflow="everything", inputs=[{"answer": "no"}])
    await bench.run_step(UUID(process_id), await bench.runner(), "suspended")
    await send_command("process.resume", process_id=process_id, inputs=[{"answer": 2}])
    await send_command("process.get", process_id=process_id)
    await send_command("workflow.list")
    await send_command("backlog.get")
    await send_command("process.abort", process_id=process_id, reason="enough")
    for result in await letters(amqp_url, "orchestrator.results"):
        if result.type == MessageType.STEP_RESULT:
            await bench.dispatcher.publish(decode(Advanced, result.body))
    schemas = {
        message["name"]: message["payload"]["$ref"].rpartition("/")[2]
        for message in document["components"]["messages"].values()
    }
    found = await letters(amqp_url, "mine")
    kinds = {str(one.type) for one in found}
    assert kinds == {
        "workflow.refused",
        "workflow.started",
        "process.resumed",
        "process.aborted",
        "process.found",
        "workflow.listed",
        "backlog.found",
        "process.event",
        "step.event",
    }
    for one in found:
        schema = {"$ref": f"#/components/schemas/{schemas[str(one.type)]}", "components": document["components"]}
        Draft7Validator(schema).validate(json.loads(one.body))


async def test_the_document_is_served_over_http(bench: Bench) -> None:
    async with open_api(bench.database) as api:
        answer = await api.get("/api/asyncapi.json")
    assert answer.status_code == 200
    assert answer.json() == await build_document()


def test_the_command_line_prints_the_document_without_servers(tmp_path: Path) -> None:
    away = "127.0.0.1:1"
    cli = project(tmp_path, f"postgresql+asyncpg://nobody@{away}/none", f"amqp://nobody@{away}/none")
    document = json.loads(cli("asyncapi").stdout)
    assert "start.greet" in document["components"]["messages"]
    page = document["components"]["schemas"]["Page.greet"]
    assert page["required"] == ["name"]
