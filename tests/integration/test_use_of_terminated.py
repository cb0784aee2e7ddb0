"""Nobody begins to use what is terminated, nobody terminates what is in use, and what terminated ones show stays."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.db.session import Database
from orchestrator.db.subscriptions.neighbours import read_case
from orchestrator.domain import SubscriptionModel
from orchestrator.errors import ModelError
from orchestrator.types import SubscriptionLifecycle
from tests.integration.model_bench import Bench, make_bench
from tests.unit.models import FolderBlockInactive, FolderInactive, LinkInactive

TERMINATED = SubscriptionLifecycle.TERMINATED


@pytest.fixture
async def bench(database: Database) -> Bench:
    return await make_bench(database)


async def ended(bench: Bench, subscription: SubscriptionModel) -> SubscriptionModel:
    """Terminated, and saved."""
    moved = SubscriptionModel.from_other_lifecycle(subscription, TERMINATED)
    await bench.save(moved)
    return moved


async def test_a_block_of_a_terminated_subscription_is_not_taken_into_use(bench: Bench) -> None:
    """B26: in a field of a block, and in one of the subscription itself."""
    folders, user = await bench.folders(1), await bench.folders()
    await ended(bench, folders)
    words = f"cannot begin to use a block of the subscription {folders.subscription_id}: that is terminated"

    user.top.folders.append(folders.top.folders[0])
    with pytest.raises(ModelError, match=words):
        await bench.save(user)

    async with bench.session() as session:
        other = await FolderInactive.from_product_id(session, bench.products["Folder"], "customer")
    other.top = folders.top
    with pytest.raises(ModelError, match=words):
        await bench.save(other)
    assert await bench.count("subscriptions") == 2


async def test_who_uses_a_terminated_subscription_already_may_go_on_doing_so(bench: Bench) -> None:
    """A project may allow to terminate what is in use; its users must still be able to change."""
    folders, user = await bench.folders(2), await bench.folders()
    user.top.folders.append(folders.top.folders[0])
    await bench.save(user)
    await ended(bench, folders)

    again = await bench.load(user.subscription_id)
    assert isinstance(again, FolderInactive)
    again.top.folders.insert(0, FolderBlockInactive.new(again.subscription_id, title="before it"))
    again.note = "changed"
    await bench.save(again)
    assert await bench.load(user.subscription_id) == again


async def test_who_terminates_waits_for_who_takes_into_use_and_then_sees_it(bench: Bench) -> None:
    """B26: the step that terminates asks after it has written, and takes back what it has written."""
    node, other = await bench.node(), await bench.node()
    async with bench.session() as session:
        link = await LinkInactive.from_product_id(session, bench.products["Link"], "customer")
    link.ports[0].node = node.node
    users = []

    async def terminate() -> None:
        async with bench.session() as session:
            await SubscriptionModel.from_other_lifecycle(node, TERMINATED).save(session)
            users.append((await read_case(session, node.subscription_id)).facts.unterminated_users)

    async with bench.session() as session:
        await link.save(session)
        waiting = asyncio.create_task(terminate())
        await bench.wait_until_blocked()
        await ended(bench, other)  # what nobody takes into use does not wait
    await waiting
    assert users == [(link.subscription_id,)]


async def test_who_takes_into_use_waits_for_who_terminates_and_is_refused(bench: Bench) -> None:
    node = await bench.node()
    async with bench.session() as session:
        link = await LinkInactive.from_product_id(session, bench.products["Link"], "customer")
    link.ports[0].node = node.node
    async with bench.session() as session:
        await SubscriptionModel.from_other_lifecycle(node, TERMINATED).save(session)
        waiting = asyncio.create_task(bench.save(link))
        await bench.wait_until_blocked()
    with pytest.raises(ModelError, match=f"of the subscription {node.subscription_id}: that is terminated"):
        await waiting


async def test_a_block_may_be_given_up_when_only_terminated_ones_use_it_and_they_still_show_it(bench: Bench) -> None:
    """B19: their history stays; with what stands below the block."""
    folders, user = await bench.folders(2), await bench.folders()
    used, other = folders.top.folders
    used.folders.append(FolderBlockInactive.new(folders.subscription_id, title="below"))
    await bench.save(folders)
    user.top.folders.append(used)
    await bench.save(user)
    await ended(bench, user)
    shown = await bench.load(user.subscription_id)

    folders.top.folders.clear()
    await bench.save(folders)

    assert await bench.load(folders.subscription_id) == folders
    assert await bench.load(user.subscription_id) == shown
    assert (
        await bench.count("subscription_instances", "subscription_instance_id = $1", other.subscription_instance_id)
        == 0
    )


async def test_a_block_whose_id_is_taken_is_warned_without_advice_to_retry(bench: Bench) -> None:
    one, two = await bench.folders(), await bench.folders()
    taken = FolderBlockInactive.new(two.subscription_id, title="taken")
    two.top.folders.append(taken)
    await bench.save(two)
    copy = taken.model_copy(update={"owner_subscription_id": one.subscription_id})
    copy.mark_as_stored(None)
    one.top.folders.append(copy)
    with pytest.raises(ModelError, match=f"{taken.subscription_instance_id}.* already exists") as refused:
        await bench.save(one)
    assert "retry" not in str(refused.value)
