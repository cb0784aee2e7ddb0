"""Models on a real database: what others change meanwhile, and blocks that belong to others."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.db.session import Database
from orchestrator.domain import (
    SubscriptionModel,
)
from orchestrator.errors import ConcurrentChangeError, ModelError
from orchestrator.types import SubscriptionLifecycle
from tests.integration.model_bench import Bench, make_bench
from tests.unit.models import (
    FolderInactive,
    Link,
    LinkInactive,
    Node,
    NodeBlock,
    NodeInactive,
    PortBlockInactive,
)

ACTIVE, TERMINATED = SubscriptionLifecycle.ACTIVE, SubscriptionLifecycle.TERMINATED
PROVISIONING = SubscriptionLifecycle.PROVISIONING


@pytest.fixture
async def bench(database: Database) -> Bench:
    return await make_bench(database)


async def test_a_subscription_that_another_process_has_changed_is_not_saved(bench: Bench) -> None:
    node = await bench.node()
    first, second = await bench.load(node.subscription_id), await bench.load(node.subscription_id)
    first.note = "first"
    await bench.save(first)

    second.note = "second"
    second.node.tags.append("lost")  # type: ignore[attr-defined]
    words = f"{node.subscription_id} was changed since it was loaded: version 1 then, 2 now; retry the step"
    with pytest.raises(ConcurrentChangeError, match=words):
        await bench.save(second)

    assert await bench.load(node.subscription_id) == first
    assert await bench.count("subscription_changes", "subscription_id = $1", node.subscription_id) == 2


async def test_of_two_that_save_at_once_one_waits_and_is_refused(bench: Bench) -> None:
    node = await bench.node()
    first, second = await bench.load(node.subscription_id), await bench.load(node.subscription_id)
    first.node.tags.append("first")  # type: ignore[attr-defined]
    second.node.tags.append("second")  # type: ignore[attr-defined]
    async with bench.session() as session:
        await first.save(session)
        waiting = asyncio.create_task(bench.save(second))
        await bench.wait_until_blocked()

    with pytest.raises(ConcurrentChangeError, match="version 1 then, 2 now"):
        await waiting
    assert await bench.load(node.subscription_id) == first


async def test_a_subscription_that_is_gone_is_not_saved(bench: Bench) -> None:
    node = await bench.node()
    await bench.database.pool.execute("DELETE FROM processes_subscriptions")
    await bench.database.pool.execute("DELETE FROM subscriptions WHERE subscription_id = $1", node.subscription_id)
    node.note = "too late"

    with pytest.raises(ConcurrentChangeError, match="it is gone"):
        await bench.save(node)


async def test_two_new_subscriptions_of_one_id_are_one(bench: Bench) -> None:
    node = await bench.node()
    async with bench.session() as session:
        again = await NodeInactive.from_product_id(
            session, bench.products["Node P"], "customer", subscription_id=node.subscription_id
        )
        with pytest.raises(ModelError, match=f"{node.subscription_id} exists already: load it with from_subscription"):
            await again.save(session)


async def test_a_block_that_another_subscription_uses_is_not_given_up(bench: Bench) -> None:
    folders = await bench.folders(1)
    user = await bench.folders()
    user.top.folders.append(folders.top.folders[0])
    await bench.save(user)
    folders.note = "together with this"
    kept = folders.top.folders.pop()

    words = f"cannot give up the block {kept.subscription_instance_id}: the subscription {user.subscription_id} uses it"
    with pytest.raises(ModelError, match=words):
        await bench.save(folders)
    assert (await bench.load(folders.subscription_id)).note is None

    user.top.folders.clear()
    await bench.save(user)
    await bench.save(folders)
    assert await bench.load(folders.subscription_id) == folders


async def test_a_block_that_is_taken_into_use_at_the_same_moment_is_not_given_up(bench: Bench) -> None:
    folders = await bench.folders(1)
    user = await bench.folders()
    user.top.folders.append(folders.top.folders.pop())
    async with bench.session() as session:
        await user.save(session)
        waiting = asyncio.create_task(bench.save(folders))
        await bench.wait_until_blocked()

    with pytest.raises(
        ModelError, match=r"what it refers to, or gives up, was changed at the same time.*retry the step"
    ):
        await waiting


async def test_a_block_of_another_subscription_is_not_changed(bench: Bench) -> None:
    node = await bench.node()
    link = await bench.link(node, node)
    again = await bench.load(link.subscription_id)
    assert isinstance(again, Link)
    again.ports[0].node.ims_id = 8

    with pytest.raises(
        ModelError, match=f"belongs to the subscription {node.subscription_id}, not to {link.subscription_id}"
    ):
        await bench.save(again)
    assert await bench.load(node.subscription_id) == node


async def test_a_block_does_not_come_to_stand_below_itself_by_way_of_others(bench: Bench) -> None:
    one, two = await bench.folders(), await bench.folders()
    stale = (await bench.load(two.subscription_id)).top  # type: ignore[attr-defined]
    two.top.folders.append(one.top)
    await bench.save(two)

    one.top.folders.append(stale)
    with pytest.raises(ModelError, match=f"the block {one.top.subscription_instance_id} would contain itself"):
        await bench.save(one)
    assert isinstance(await bench.load(one.subscription_id), FolderInactive)


async def test_blocks_that_contain_themselves_in_the_database_are_refused(bench: Bench) -> None:
    folders = await bench.folders(1)
    top, inner = folders.top.subscription_instance_id, folders.top.folders[0].subscription_instance_id
    await bench.database.pool.execute(
        "INSERT INTO subscription_instance_relations VALUES ($1, 'folders', 0, $2)", inner, top
    )

    with pytest.raises(
        ModelError, match=rf"does not fit FolderInactive: top.folders.0.folders.0: .* {top} contains itself"
    ):
        await bench.load(folders.subscription_id)


async def test_a_block_of_another_subscription_is_of_its_owners_lifecycle_if_that_fits(bench: Bench) -> None:
    async with bench.session() as session:
        made = await NodeInactive.from_product_id(session, bench.products["Node P"], "customer")
        await made.save(session)
        link = await LinkInactive.from_product_id(session, bench.products["Link"], "customer")
        link.ports[0].node = made.node
        await link.save(session)
    made.node.node_name, made.node.ims_id = "ams", 7
    await bench.save(Node.from_other_lifecycle(made, ACTIVE))

    again = await bench.load(link.subscription_id)

    assert isinstance(again, LinkInactive)
    assert type(again.ports[0].node) is NodeBlock
    assert type(again.ports[1]) is PortBlockInactive
    again.note = "saved with it"
    await bench.save(again)


async def test_a_block_of_another_subscription_is_of_the_named_class_if_its_owners_lifecycle_does_not_fit(
    bench: Bench,
) -> None:
    node = await bench.node()
    link = await bench.link(node, await bench.node())
    ended = SubscriptionModel.from_other_lifecycle(node, TERMINATED)
    await bench.save(ended)

    again = await bench.load(link.subscription_id)
    assert isinstance(again, Link)
    assert type(again.ports[0].node) is NodeBlock
    again.note = "saved with it"
    await bench.save(again)

    ended.node.ims_id = None  # type: ignore[attr-defined]
    await bench.save(ended)
    with pytest.raises(ModelError, match=r"does not fit Link: ports.0.node.ims_id: Field required"):
        await bench.load(link.subscription_id)


async def test_relations_are_read_both_ways(bench: Bench) -> None:
    one, two = await bench.node("ams"), await bench.node("ber")
    link = await bench.link(one, two)
    async with bench.session() as session:
        (user,) = await one.in_use_by(session)
        assert (user.subscription_id, user.product, user.status, user.insync, user.description) == (
            link.subscription_id,
            "Link",
            "active",
            False,
            "Link",
        )
        assert await one.depends_on(session) == await link.in_use_by(session) == []
        assert [used.subscription_id for used in await link.depends_on(session)] == [
            one.subscription_id,
            two.subscription_id,
        ]
        (block,) = await one.node.in_use_by(session)
        assert (block.subscription_instance_id, block.name, block.owner_subscription_id) == (
            link.ports[0].subscription_instance_id,
            "Port",
            link.subscription_id,
        )
        (used,) = await link.ports[0].depends_on(session)
        assert used.subscription_instance_id == one.node.subscription_instance_id


async def test_a_block_in_a_field_of_a_subscription_itself_is_used_by_it(bench: Bench) -> None:
    folders = await bench.folders(1)
    async with bench.session() as session:
        user = await FolderInactive.from_product_id(session, bench.products["Folder"], "customer")
        user.top = folders.top.folders[0]
        await user.save(session)
        assert [one.subscription_id for one in await folders.in_use_by(session)] == [user.subscription_id]
        assert [one.subscription_id for one in await user.depends_on(session)] == [folders.subscription_id]
    assert await bench.load(user.subscription_id) == user
