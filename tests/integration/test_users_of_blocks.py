"""A step may not leave a subscription behind that cannot be loaded, or that uses what has ended; on a real database."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.session import Database
from orchestrator.domain import SubscriptionModel
from orchestrator.errors import ModelError
from orchestrator.services.injection import save_models, take_models
from orchestrator.services.subscriptions import WF_BLOCKED_BY_IN_USE_BY_SUBSCRIPTIONS
from orchestrator.services.users import check_changed
from orchestrator.targets import Target
from orchestrator.types import SubscriptionLifecycle
from orchestrator.workflow import StepList, Workflow, begin
from orchestrator.workflow import step as workflow_step
from orchestrator.workflows.utils import task
from tests.integration.engine_bench import bench_of
from tests.integration.model_bench import Bench, make_bench
from tests.unit.models import Link, NodeBlockInactive, NodeInactive

DISABLED, TERMINATED = SubscriptionLifecycle.DISABLED, SubscriptionLifecycle.TERMINATED
WORKFLOW = Workflow("modify_node", "modify_node", begin, Target.MODIFY)


@pytest.fixture
async def bench(database: Database) -> Bench:
    return await make_bench(database)


@pytest.fixture(autouse=True)
def _map_as_before() -> Iterator[None]:
    before = dict(WF_BLOCKED_BY_IN_USE_BY_SUBSCRIPTIONS)
    yield
    WF_BLOCKED_BY_IN_USE_BY_SUBSCRIPTIONS.clear()
    WF_BLOCKED_BY_IN_USE_BY_SUBSCRIPTIONS.update(before)


async def step(bench: Bench, *returned: SubscriptionModel) -> None:
    """Do what the end of a step does with the models that it returned."""
    models = take_models({"them": list(returned)})
    assert models is not None
    async with bench.session() as session:
        await save_models(session, models)
        await check_changed(session, WORKFLOW)


THE_NODE: list[UUID] = []


@workflow_step("End the node")
async def end_the_node(session: AsyncSession) -> dict[str, SubscriptionModel]:
    node = await SubscriptionModel.from_subscription(session, THE_NODE[0])
    return {"node": SubscriptionModel.from_other_lifecycle(node, TERMINATED)}


@task("Ends a node")
def end_node() -> StepList:
    return begin >> end_the_node


async def test_a_consumer_asks_before_it_stores_the_steps_outcome(
    bench: Bench, database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await bench.node()
    link = await bench.link(node, await bench.node())
    THE_NODE[:] = [node.subscription_id]
    async with bench_of(database, amqp_url, monkeypatch, __name__, end_node) as engine:
        failure = await engine.failure(await engine.run("end_node"))
    assert f"cannot be terminated: the subscription {link.subscription_id} (Link, active) uses it" in failure
    assert (await bench.load(node.subscription_id)).status == "active"


async def move(bench: Bench, one: SubscriptionModel, status: SubscriptionLifecycle) -> Any:
    return SubscriptionModel.from_other_lifecycle(await bench.load(one.subscription_id), status)


async def test_a_value_that_an_active_user_needs_is_not_emptied_by_an_owner_that_does_not(bench: Bench) -> None:
    """B19: it was accepted, and then the link could never be loaded."""
    node = await bench.node()
    link = await bench.link(node, await bench.node())
    off = await move(bench, node, DISABLED)
    await step(bench, off)
    assert isinstance(await bench.load(link.subscription_id), Link)

    off.node.ims_id = None
    words = (
        f"the subscription {node.subscription_id} cannot be saved, because {link.subscription_id} \\(Link, active\\) could not be"
        " loaded any more, which has its block in a field PortBlock.node for NodeBlock: node.ims_id"
    )
    with pytest.raises(ModelError, match=words):
        await step(bench, off)
    assert isinstance(await bench.load(link.subscription_id), Link)


async def test_an_owner_does_not_leave_the_lifecycle_that_its_users_need_with_too_little(bench: Bench) -> None:
    """B19: both in one save, and users of several kinds."""
    node = await bench.node()
    await bench.link(node, node)
    off = await move(bench, node, DISABLED)
    off.node.ims_id, off.note = None, "off"
    with pytest.raises(ModelError, match=r"\(Link, active\) and 1 more could not be loaded"):
        await step(bench, off)
    assert (await bench.load(node.subscription_id)).status == "active"


async def test_users_are_no_obstacle_when_they_end_or_let_go_in_the_same_step(bench: Bench) -> None:
    """In whatever order they are returned."""
    for is_first in (False, True):
        node = await bench.node()
        link = await bench.link(node, await bench.node())
        ended, off = await move(bench, link, TERMINATED), await move(bench, node, DISABLED)
        off.node.ims_id = None
        await step(bench, *((ended, off) if is_first else (off, ended)))
        assert (await bench.load(node.subscription_id)).status == "disabled"


@pytest.mark.parametrize("is_first", [False, True])
async def test_what_is_in_use_is_not_terminated_by_any_step(bench: Bench, *, is_first: bool) -> None:
    """B26: not only by the step of the terminate workflows; a parent may end its children with itself."""
    node = await bench.node()
    link = await bench.link(node, await bench.node())
    words = f"{node.subscription_id} cannot be terminated: the subscription {link.subscription_id} \\(Link, active\\) uses it"
    with pytest.raises(ModelError, match=words):
        await step(bench, await move(bench, node, TERMINATED))
    assert (await bench.load(node.subscription_id)).status == "active"

    both = [await move(bench, node, TERMINATED), await move(bench, link, TERMINATED)]
    await step(bench, *(both if is_first else both[::-1]))
    assert {(await bench.load(one.subscription_id)).status for one in (node, link)} == {TERMINATED}


async def test_the_project_may_exempt_a_workflow_and_what_has_ended_may_still_be_changed(bench: Bench) -> None:
    node = await bench.node()
    link = await bench.link(node, await bench.node())
    WF_BLOCKED_BY_IN_USE_BY_SUBSCRIPTIONS[WORKFLOW.name] = False
    ended = await move(bench, node, TERMINATED)
    await step(bench, ended)
    WF_BLOCKED_BY_IN_USE_BY_SUBSCRIPTIONS.clear()
    ended.node.tags = ["later"]
    await step(bench, ended)
    ended.node.ims_id = None
    with pytest.raises(ModelError, match="could not be loaded any more"):
        await step(bench, ended)
    assert isinstance(await bench.load(link.subscription_id), Link)


async def test_a_save_that_concerns_no_block_asks_nothing_more(bench: Bench) -> None:
    node = await bench.node()
    node.note = "only this"
    models = take_models({"node": node})
    assert models is not None
    async with bench.session() as session:
        with bench.statements() as sent:
            await save_models(session, models)
            await check_changed(session, WORKFLOW)
    assert len(sent) == 1


async def test_a_field_of_the_subscription_itself_counts_as_well(bench: Bench) -> None:
    """A block in a root field; a block whose class the owner's status gives fits without being loaded."""
    folders = await bench.folders(1)
    user = await bench.folders()
    user.top.folders.append(folders.top)
    await bench.save(user)
    folders.top.title = "changed"
    with_statements: list[str] = []
    models = take_models({"one": folders})
    assert models is not None

    async def run(session: AsyncSession) -> None:
        await save_models(session, models)
        with bench.statements() as sent:
            await check_changed(session, WORKFLOW)
        with_statements.extend(sent)

    async with bench.session() as session:
        await run(session)
    assert len(with_statements) == 1, "where it is used"
    assert isinstance(await bench.load(user.subscription_id), type(user))


async def test_a_provisioning_owner_that_is_used_by_nobody_active_is_free(bench: Bench) -> None:
    async with bench.session() as session:
        made = await NodeInactive.from_product_id(session, bench.products["Node P"], "customer")
        await made.save(session)
    assert type(made.node) is NodeBlockInactive
    made.node.node_name = "named"
    await step(bench, made)
    made.node.node_name = None
    await step(bench, made)
