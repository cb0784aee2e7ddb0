"""Plain steps use models, read what they need, and start processes, with the session that they ask for."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any, assert_type
from uuid import UUID

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from orchestrator.db.session import Database
from orchestrator.domain import SubscriptionModel
from orchestrator.services.finding import find_blocks_using, find_subscriptions
from orchestrator.services.injection import save_models, take_models
from orchestrator.services.products import get_product_by_id, get_product_by_name
from orchestrator.types import State, SubscriptionLifecycle
from orchestrator.workflow import StepList, begin, done, init, retrystep, step, workflow
from orchestrator.workflows.pages import subscription_choice
from orchestrator.workflows.steps import start_processes
from orchestrator.workflows.utils import task
from tests.integration.engine_bench import Bench, bench_of
from tests.integration.model_bench import Bench as ModelBench
from tests.integration.model_bench import make_bench
from tests.integration.waiting import until
from tests.unit.models import Link, LinkInactive, Node, NodeBlock, NodeInactive

ACTIVE = SubscriptionLifecycle.ACTIVE
PRODUCTS: dict[str, UUID] = {}


@retrystep("Make two nodes")
def make_nodes(session: Session) -> State:
    nodes = []
    for name in ("ams-1", "ber-1"):
        made = NodeInactive.from_product_id(session, PRODUCTS["Node P"], "customer", note="new")
        made.node.node_name, made.node.ims_id = name, 7
        node = Node.from_other_lifecycle(made, ACTIVE)
        node.save(session)
        # The engine saves it once more, in the same transaction: another one would wait for this row for ever.
        node.description = f"node {name}"
        session.execute(
            text("UPDATE subscriptions SET note = 'mine' WHERE subscription_id = :it"), {"it": node.subscription_id}
        )
        nodes.append(node)
    session.execute(text("INSERT INTO seen SELECT 'backend', pg_backend_pid()::text"))
    return {"nodes": nodes}


@step("Make a link")
def make_link(session: Session, nodes: list[Node]) -> State:
    made = LinkInactive.from_product_id(session, str(PRODUCTS["Link"]), "customer")
    for vlan, port, node in zip((1, 2), made.ports, nodes, strict=True):
        port.vlan, port.node = vlan, node.node
    return {"link": Link.from_other_lifecycle(made, ACTIVE)}


@step("Look around")
def look_around(session: Session, link: Link) -> State:
    used = link.depends_on(session)
    node = assert_type(Node.from_subscription(session, used[0].subscription_id), Node)
    block = NodeBlock.from_db(session, node.node.subscription_instance_id)
    return {
        "users": [str(one.subscription_id) for one in node.in_use_by(session)],
        "used": sorted(SubscriptionModel.from_subscription(session, one.subscription_id).description for one in used),
        "block_users": len(block.in_use_by(session)) + len(find_blocks_using(session, block.subscription_instance_id)),
        "block_uses": len(block.depends_on(session)),
        "found": len(find_subscriptions(session, block="Node", values={"node_name": "ams-1"})),
        "product": get_product_by_id(session, node.product.product_id).name,
        "same": get_product_by_name(session, "Node P").product_id == node.product.product_id,
        "choices": len(subscription_choice(session, product_types=["T"], only_in_sync=False)),
    }


@task("A child")
def child() -> StepList:
    return begin


@step("Start children")
def start_children(session: Session) -> State:
    def items() -> Iterator[list[State]]:
        for _ in range(session.scalar(select(func.cardinality(text("ARRAY[1, 2, 3]")))) or 0):
            yield [{}]

    keyed = {str(number): page for number, page in enumerate(items())}
    started = start_processes(session, "child", keyed)
    again = start_processes(session, "child", items())  # a generator of the author's runs in the author's thread
    return {"started": started.started, "again": again.started + again.already_there + sum(again.refused.values())}


@workflow("Builds a network with plain steps")
def build() -> StepList:
    return init >> make_nodes >> make_link >> look_around >> start_children >> done


@pytest.fixture
async def models(database: Database) -> ModelBench:
    made = await make_bench(database)
    PRODUCTS.update(made.products)
    await database.pool.execute("CREATE TABLE seen (what text, value text)")
    return made


@pytest.fixture
async def bench(
    models: ModelBench, database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Bench]:
    async with bench_of(database, amqp_url, monkeypatch, __name__, build, child) as bench:
        yield bench


async def test_plain_steps_build_a_network_with_models_and_start_processes(bench: Bench, models: ModelBench) -> None:
    runner = await bench.runner()
    process_id = await bench.start("build")
    for _ in range(4):
        await runner.take(await bench.command(process_id))
        await until(lambda: runner.running == 0, "the attempt has ended")
        assert (await bench.row(process_id))["status"] in {"running", "completed"}
    state: dict[str, Any] = json.loads((await bench.row(process_id))["state"])
    link = UUID(state["link"]["subscription_id"])
    assert state["users"] == [str(link)]
    assert state["used"] == ["node ams-1", "node ber-1"]
    assert state["block_users"] >= 1
    assert (state["block_uses"], state["found"], state["product"], state["same"]) == (0, 1, "Node P", True)
    assert state["choices"] == 3
    assert (state["started"], state["again"]) == (3, 3)
    assert await models.count("subscriptions") == 3
    assert await models.count("processes", "workflow = 'child'") >= 3


async def test_a_models_own_save_may_be_plain(models: ModelBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine calls it in a thread, as it is called from plain steps."""
    node = await models.node()

    def save(self: Node, session: Session) -> None:
        self.description = f"{threading.current_thread() is threading.main_thread()}"
        super(Node, self).save(session)

    monkeypatch.setattr(Node, "save", save)
    node.note = "changed"
    taken = take_models({"node": node})
    assert taken is not None
    async with models.session() as session:
        await save_models(session, taken)
    stored = await models.load(node.subscription_id)
    assert (stored.note, stored.description) == ("changed", "False")
