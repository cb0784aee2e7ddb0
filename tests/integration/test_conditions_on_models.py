"""Conditions that need more than the state: a model that is loaded for them, or the session."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from orchestrator.db.session import Database
from orchestrator.types import State, SubscriptionLifecycle
from orchestrator.workflow import StepList, again, conditional, done, init, step, workflow
from tests.integration.engine_bench import Bench, bench_of
from tests.integration.model_bench import make_bench
from tests.integration.waiting import until
from tests.unit.models import Node, NodeInactive

PRODUCTS: dict[str, UUID] = {}


@step("Make a node")
def make_node(session: Session) -> State:
    made = NodeInactive.from_product_id(session, PRODUCTS["Node P"], "customer")
    made.node.node_name, made.node.ims_id = "ams-1", 7
    return {"subscription": Node.from_other_lifecycle(made, SubscriptionLifecycle.ACTIVE)}


@step("Rename it")
def rename_node(subscription: Node) -> State:
    subscription.node.node_name = "ber-1"
    return {"subscription": subscription}


@step("Announce")
def announce() -> State:
    return {"announced": True}


@step("Celebrate")
def celebrate(visits: int = 0) -> State:
    return {"visits": visits + 1}


def is_in_berlin(subscription: Node) -> bool:
    return subscription.node.node_name.startswith("ber")


async def is_alone(session: AsyncSession) -> bool:
    return await session.scalar(text("SELECT count(*) = 1 FROM subscriptions")) is True


def is_crowded(session: Session, subscription: NodeInactive) -> bool:
    return session.scalar(text("SELECT count(*) FROM subscriptions")) != 1 and subscription is not None


@workflow("Asks about models")
def asks() -> StepList:
    in_berlin = conditional(is_in_berlin)(announce)
    return (
        init
        >> make_node
        >> in_berlin
        >> rename_node
        >> again(in_berlin, "renamed")
        >> conditional(is_alone)(celebrate)
        >> again(conditional(is_crowded)(celebrate), "with others")
        >> done
    )


@pytest.fixture
async def bench(database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    PRODUCTS.update((await make_bench(database)).products)
    async with bench_of(database, amqp_url, monkeypatch, __name__, asks) as bench:
        yield bench


async def test_conditions_are_decided_over_models_as_they_are_then(bench: Bench, database: Database) -> None:
    runner = await bench.runner()
    process_id = await bench.start("asks")
    while (await bench.row(process_id))["status"] == "running":
        await runner.take(await bench.command(process_id))
        await until(lambda: runner.running == 0, "the attempt has ended")

    rows = await database.pool.fetch(
        "SELECT name, status FROM process_steps WHERE process_id = $1 AND kind = 'step' ORDER BY sequence", process_id
    )
    assert [(row["name"], row["status"]) for row in rows][1:-1] == [
        ("Make a node", "success"),
        ("Announce: condition", "success"),
        ("Announce", "skipped"),
        ("Rename it", "success"),
        ("Announce: condition (renamed)", "success"),
        ("Announce (renamed)", "success"),
        ("Celebrate: condition", "success"),
        ("Celebrate", "success"),
        ("Celebrate: condition (with others)", "success"),
        ("Celebrate (with others)", "skipped"),
    ]
    state: dict[str, Any] = json.loads((await bench.row(process_id))["state"])
    assert (state["announced"], state["visits"]) == (True, 1)
