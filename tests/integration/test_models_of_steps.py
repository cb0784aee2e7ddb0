"""What a step asks for and returns: one object per subscription, saved in an order that the database can take."""

from __future__ import annotations

import asyncio
import inspect
import re
from dataclasses import dataclass
from itertools import permutations

import pytest
from pydantic import BaseModel
from pydantic_core import to_json
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.session import Database
from orchestrator.db.subscriptions.history import read_history
from orchestrator.db.subscriptions.queries import show
from orchestrator.domain import SubscriptionModel, flat
from orchestrator.domain.diff import explain, is_same
from orchestrator.engine.arguments import Arguments
from orchestrator.engine.state import canonical
from orchestrator.errors import InvalidResultError, ModelError
from orchestrator.services.injection import load_arguments, save_models, take_models
from orchestrator.types import SubscriptionLifecycle
from orchestrator.workflows.steps import unsync_unchecked
from tests.integration.model_bench import Bench, make_bench
from tests.unit.models import (
    FolderBlockInactive,
    FolderInactive,
    Link,
    LinkInactive,
    Node,
    NodeBlock,
    NodeInactive,
    NodeProvisioning,
)

ACTIVE = SubscriptionLifecycle.ACTIVE


@pytest.fixture
async def bench(database: Database) -> Bench:
    return await make_bench(database)


async def save_returned(session: AsyncSession, returned: object) -> object:
    taken = take_models(returned)
    assert taken is not None
    return await save_models(session, taken)


async def new_node(bench: Bench) -> Node:
    """Active, and not saved."""
    async with bench.session() as session:
        made = await NodeInactive.from_product_id(session, bench.products["Node P"], "customer")
    made.node.node_name, made.node.ims_id = "new", 1
    return Node.from_other_lifecycle(made, ACTIVE)


async def new_link(bench: Bench, *nodes: Node) -> Link:
    """Active, between two nodes, and not saved."""
    async with bench.session() as session:
        made = await LinkInactive.from_product_id(session, bench.products["Link"], "customer")
    for port, node in zip(made.ports, nodes, strict=True):
        port.vlan, port.node = 1, node.node
    return Link.from_other_lifecycle(made, ACTIVE)


async def test_one_subscription_under_several_names_is_one_object(bench: Bench) -> None:
    """B32: otherwise one of two changes in one step would be lost, or refused as a concurrent one."""
    node = await bench.node()

    def ask(one: Node, other: SubscriptionModel, third: NodeProvisioning | Node, several: list[NodeInactive]) -> None:
        """Only asked for its parameters."""

    reference = str(node.subscription_id)
    state = {"one": reference, "other": reference, "third": reference, "several": [reference, reference]}
    async with bench.session() as session:
        loaded = await load_arguments(session, Arguments.of(ask, "the step"), state)
    several = loaded["several"]
    assert isinstance(several, list)
    assert len({id(one) for one in (loaded["one"], loaded["other"], loaded["third"], *several)}) == 1


async def test_a_wrong_class_is_refused_although_the_subscription_is_loaded_already(bench: Bench) -> None:
    node = await bench.node()

    def ask(one: Node, other: FolderInactive) -> None:
        """Only asked for its parameters."""

    state = {"one": str(node.subscription_id), "other": str(node.subscription_id)}
    async with bench.session() as session:
        with pytest.raises(ModelError, match="Folder"):
            await load_arguments(session, Arguments.of(ask, "the step"), state)


@pytest.mark.parametrize("order", list(permutations(range(3))))
async def test_new_owners_are_stored_before_those_who_use_their_blocks(bench: Bench, order: tuple[int, ...]) -> None:
    """B32: in whatever order the step has returned them."""
    nodes = [await new_node(bench), await new_node(bench)]
    link = await new_link(bench, *nodes)
    models = [nodes[0], link, nodes[1]]
    async with bench.session() as session:
        replaced = await save_returned(session, {str(index): models[index] for index in order})
    assert replaced == {str(index): models[index].reference() for index in order}
    stored = await bench.load(link.subscription_id)
    assert [port.node.subscription_instance_id for port in stored.ports] == [  # type: ignore[attr-defined]
        node.node.subscription_instance_id for node in nodes
    ]


async def test_subscriptions_that_use_each_other_in_a_circle_are_refused(bench: Bench) -> None:
    async with bench.session() as session:
        folders = [
            await FolderInactive.from_product_id(session, bench.products["Folder"], "customer") for _ in range(2)
        ]
    one, other = folders
    one.top.folders.append(other.top)
    other.top.folders.append(one.top)
    async with bench.session() as session:
        with pytest.raises(ModelError, match=r"in a circle|contains? itself"):
            await save_returned(session, folders)
    assert await bench.count("subscriptions") == 0


async def test_two_subscriptions_may_use_blocks_of_each_other(bench: Bench) -> None:
    """As long as no block contains itself."""
    one, other = await bench.folders(1), await bench.folders(1)
    one.top.folders.append(other.top.folders[0])
    other.top.folders.append(one.top.folders[0])
    async with bench.session() as session:
        await save_returned(session, [one, other])
    for folders in (one, other):
        assert await bench.load(folders.subscription_id) == folders


@pytest.mark.parametrize("is_first", [True, False], ids=["the owner has the lower id", "the owner has the higher id"])
async def test_a_block_is_given_up_before_its_owner_removes_it(bench: Bench, *, is_first: bool) -> None:
    """B32: in one step, whatever the order of the ids."""
    owner, user = sorted([await bench.folders(1), await bench.folders(1)], key=lambda one: one.subscription_id)
    if not is_first:
        owner, user = user, owner
    user.top.folders.append(owner.top.folders[0])
    async with bench.session() as session:
        await save_returned(session, [owner, user])
    user.top.folders.pop()
    owner.top.folders.clear()
    async with bench.session() as session:
        await save_returned(session, {"owner": owner, "user": user})
    for folders in (owner, user):
        assert await bench.load(folders.subscription_id) == folders


@pytest.mark.parametrize("is_first", [True, False], ids=["from the lower id", "from the higher id"])
async def test_a_block_moves_with_what_is_below_it_and_keeps_its_users(bench: Bench, *, is_first: bool) -> None:
    """B32: one step moves it, both histories say so, and a third subscription goes on using it."""
    giver, taker = sorted([await bench.folders(2), await bench.folders(1)], key=lambda one: one.subscription_id)
    if not is_first:
        giver, taker = taker, giver
    user = await bench.folders(1)
    moved = giver.top.folders[0]
    below = FolderBlockInactive.new(giver.subscription_id, size=3)
    dropped = FolderBlockInactive.new(giver.subscription_id, size=4)
    moved.folders = [below, dropped]
    user.top.folders.append(moved)
    async with bench.session() as session:
        await save_returned(session, [giver, user])
    giver.top.folders.remove(moved)
    moved.folders.remove(dropped)
    moved.size = 5
    taker.top.folders.append(moved.move_to(taker))
    async with bench.session() as session:
        await save_returned(session, {"giver": giver, "taker": taker})

    for folders in (giver, taker):
        assert await bench.load(folders.subscription_id) == folders
        assert is_same(explain(await bench.changes(folders.subscription_id)), flat(folders))
    used = (await bench.load(user.subscription_id)).top.folders[-1]  # type: ignore[attr-defined]
    assert used.subscription_instance_id == moved.subscription_instance_id
    assert (used.owner_subscription_id, used.size, len(used.folders)) == (taker.subscription_id, 5, 1)
    moved.size = 6
    async with bench.session() as session:
        await save_returned(session, taker)


async def test_a_block_is_not_moved_without_the_subscription_that_has_it(bench: Bench) -> None:
    giver, taker = await bench.folders(1), await bench.folders(0)
    taker.top.folders.append(giver.top.folders[0].move_to(taker))
    refused = rf"still belongs to {giver.subscription_id} in the database: return both from one step"
    async with bench.session() as session:
        with pytest.raises(ModelError, match=refused):
            await save_returned(session, taker)
    async with bench.session() as session:
        with pytest.raises(ModelError, match=refused):
            await taker.save(session)


async def test_the_former_owner_of_a_block_may_go_on_using_it(bench: Bench) -> None:
    giver, taker = await bench.folders(1), await bench.folders(0)
    taker.top.folders.append(giver.top.folders[0].move_to(taker))
    async with bench.session() as session:
        await save_returned(session, [giver, taker])
    for folders in (giver, taker):
        assert await bench.load(folders.subscription_id) == folders
        assert is_same(explain(await bench.changes(folders.subscription_id)), flat(folders))


async def test_of_two_copies_the_changed_one_is_saved_wherever_it_stands(bench: Bench) -> None:
    node = await bench.node()
    for turn in (1, -1):
        untouched, changed = await bench.load(node.subscription_id), await bench.load(node.subscription_id)
        changed.note = f"changed {turn}"
        async with bench.session() as session:
            replaced = await save_returned(session, [untouched, changed][::turn])
        assert replaced == [changed.reference()] * 2
        assert (await bench.load(node.subscription_id)).note == f"changed {turn}"


async def test_two_changed_copies_of_one_subscription_are_refused(bench: Bench) -> None:
    """Not as a concurrent change, which a retry would resolve."""
    node = await bench.node()
    one, other = await bench.load(node.subscription_id), await bench.load(node.subscription_id)
    one.note, other.note = "one", "other"
    words = f"the step returned two copies of the subscription {node.subscription_id}, both of them changed"
    async with bench.session() as session:
        with pytest.raises(ModelError, match=words):
            await save_returned(session, {"one": one, "other": [other]})
    assert (await bench.load(node.subscription_id)).note is None


@dataclass(slots=True)
class Boxed:
    """A value of an author's own."""

    node: object


class Page(BaseModel):
    """Another one."""

    node: object


async def test_a_model_inside_an_object_is_refused_rather_than_copied_into_the_state(bench: Bench) -> None:
    node = await bench.node()
    for returned in ({"box": Boxed(node)}, [Page(node=[node])], {"box": Boxed({"deep": Page(node=node)})}):
        with pytest.raises(InvalidResultError, match=re.escape("with a model in it, Node, which would not be saved")):
            take_models(returned)
    assert take_models({"box": Boxed(1), "page": Page(node=None), "type": Boxed}) is None
    assert take_models({"box": Boxed(1), "node": [node]}) is not None
    block: NodeBlock = node.node
    with pytest.raises(InvalidResultError, match="an object of Boxed with a model in it, NodeBlock"):
        take_models({"box": Boxed(block)})


async def test_the_copy_of_a_very_large_subscription_leaves_out_its_blocks(bench: Bench) -> None:
    """B18: it counts into the state's limits, which are the author's; and a lock must be had at any size."""
    small, large = await bench.folders(3), await bench.folders(2000)
    assert unsync_unchecked.function is not None
    for folder, blocks, left_out in ((small, 1, None), (large, 0, True)):
        key = str(folder.subscription_id)
        async with bench.session() as session:
            made = unsync_unchecked.function(session, bench.process_id, {"subscription_id": key})
            assert inspect.isawaitable(made)
            kept = await made
        assert kept is not None
        copy = kept["__old_subscriptions__"][key]
        assert (len(copy["blocks"]), copy.get("blocks_left_out")) == (blocks, left_out)
        assert (copy["status"], copy["version"]) == ("initial", 1)
        assert len(to_json(kept)) < 1024 * 1024 / 2


async def test_a_block_in_many_places_is_shown_whole_in_the_first_only(bench: Bench) -> None:
    """A tree of all places would double with each level, and the locking step keeps what is shown."""
    folders = await bench.folders()
    block = folders.top
    for level in range(40):
        inner = FolderBlockInactive.new(folders.subscription_id, title=str(level))
        block.folders += [inner, inner]
        block = inner
    await bench.save(folders)

    async with bench.session() as session, asyncio.timeout(60):
        shown = await show(session, folders.subscription_id)
        (top,) = shown.blocks
    for level in range(40):
        first, second = top.blocks
        assert (first.resources["title"], first.is_repeated) == (str(level), False)
        assert second.subscription_instance_id == first.subscription_instance_id
        assert (second.blocks, second.is_repeated) == ((), level < 39)
        top = first


async def test_a_tree_of_blocks_that_is_too_deep_for_the_copy_is_kept_without_its_blocks(bench: Bench) -> None:
    """Each block is two levels of JSON, and the state takes 100; a subscription may have more, and be locked all the same."""
    folders = await bench.folders()
    block = folders.top
    for _ in range(60):
        inner = FolderBlockInactive.new(folders.subscription_id)
        block.folders.append(inner)
        block = inner
    await bench.save(folders)
    key = str(folders.subscription_id)
    assert unsync_unchecked.function is not None
    async with bench.session() as session:
        made = unsync_unchecked.function(session, bench.process_id, {"subscription_id": key})
        assert inspect.isawaitable(made)
        kept = await made
    assert kept is not None
    assert kept["__old_subscriptions__"][key]["blocks_left_out"] is True
    assert canonical(kept, "it")


def nest(levels: int) -> list[object]:
    value: list[object] = []
    for _ in range(levels - 1):
        value = [value]
    return value


async def test_values_of_blocks_that_pass_the_check_are_loaded_and_saved_again(bench: Bench) -> None:
    folders = await bench.folders()
    folders.top.ratio, folders.top.anything = 1e23, nest(99)
    await bench.save(folders)
    again = await bench.load(folders.subscription_id)
    assert isinstance(again, FolderInactive)
    assert (again.top.ratio, again.top.anything) == (1e23, nest(99))
    await bench.save(again)
    assert await bench.count("subscription_changes", "subscription_id = $1", folders.subscription_id) == 2
    again.top.anything = 1e16
    await bench.save(again)
    again = await bench.load(folders.subscription_id)
    assert isinstance(again, FolderInactive)
    assert repr(again.top.anything) == "1e+16", "an integer otherwise"
    for wrong in (nest(100), "\ud800"):
        again.top.anything = wrong
        with pytest.raises(ModelError, match=r"the block Folder .*anything"):
            await bench.save(again)


async def test_a_subscription_with_a_value_that_cannot_be_read_fails_the_step_that_asks_for_it(bench: Bench) -> None:
    """People see all the rest of it, and its history."""
    folders, other = await bench.folders(), await bench.folders()
    pool = bench.database.pool
    deep = "[" * 300 + "]" * 300
    await pool.execute(
        """UPDATE subscription_instances SET resources = resources || jsonb_build_object('anything', $2::text::jsonb)
            WHERE subscription_id = $1""",
        folders.subscription_id,
        deep,
    )
    await pool.execute(
        """INSERT INTO subscription_changes (subscription_id, version, process_id, author, changes)
           VALUES ($1, 2, $2, 'me', jsonb_build_object('note', '[null, "n"]'::jsonb, 'anything', $3::text::jsonb))""",
        folders.subscription_id,
        bench.process_id,
        deep,
    )
    block = folders.top.subscription_instance_id
    why = "it is nested 300 levels deep, and 100 are the limit"
    for loading in (SubscriptionModel.from_subscription, None):
        with pytest.raises(
            ModelError, match=rf"the value of 'anything' of the block Folder {block}: {why}; correct it in"
        ):
            async with bench.session() as session:
                if loading is not None:
                    await loading(session, folders.subscription_id)
                else:
                    await FolderBlockInactive.from_db(session, block)
    async with bench.session() as session:
        shown = await show(session, folders.subscription_id)
        history = await read_history(session, folders.subscription_id)
    assert shown.blocks[0].resources["anything"] == f"[cannot be read: {why}]"
    assert shown.blocks[0].resources["ratio"] == 1.0
    changes = [
        one.changes for one in (*history.other_changes, *(two for one in history.processes for two in one.changes))
    ]
    assert {"note": (None, "n"), "anything": (None, f"[cannot be read: {why}]")} in changes
    assert isinstance(await bench.load(other.subscription_id), FolderInactive)
