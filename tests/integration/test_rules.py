"""Which workflows may run on which subscription, on a real database: the facts, the lock, and who is judged first."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from orchestrator.db.session import Database
from orchestrator.db.subscriptions.neighbours import read_case, read_neighbours
from orchestrator.errors import NotFoundError, SubscriptionHeldError, WorkflowNotUsableError
from orchestrator.services.subscriptions import (
    WF_BLOCKED_BY_IN_USE_BY_SUBSCRIPTIONS,
    WF_USABLE_MAP,
    WF_USABLE_WHILE_OUT_OF_SYNC,
    read_history,
    require_usable,
    set_in_sync,
    show,
    workflows_for,
)
from orchestrator.targets import Target
from orchestrator.workflow import Workflow, begin
from tests.integration.subscription_rows import Rows


@pytest.fixture(autouse=True)
def _maps_as_before() -> Iterator[None]:
    before = dict(WF_USABLE_MAP), dict(WF_BLOCKED_BY_IN_USE_BY_SUBSCRIPTIONS), list(WF_USABLE_WHILE_OUT_OF_SYNC)
    yield
    WF_USABLE_MAP.clear()
    WF_USABLE_MAP.update(before[0])
    WF_BLOCKED_BY_IN_USE_BY_SUBSCRIPTIONS.clear()
    WF_BLOCKED_BY_IN_USE_BY_SUBSCRIPTIONS.update(before[1])
    WF_USABLE_WHILE_OUT_OF_SYNC[:] = before[2]


@pytest.fixture
def rows(database: Database) -> Rows:
    return Rows(database.pool)


def flow(name: str, target: Target, *, is_task: bool = False) -> Workflow:
    return Workflow(name, name, begin, target, is_task)


MODIFY, TERMINATE = flow("modify_node", Target.MODIFY), flow("terminate_node", Target.TERMINATE)
VALIDATE = flow("validate_node", Target.VALIDATE, is_task=True)
RECONCILE = flow("reconcile_node", Target.RECONCILE)
TASK = flow("clean_up", Target.SYSTEM, is_task=True)


async def node_product(rows: Rows) -> UUID:
    product = await rows.product("Node")
    for one in (MODIFY, TERMINATE, VALIDATE, RECONCILE, flow("create_node", Target.CREATE)):
        await rows.workflow(one.name, one.target.value, product, is_task=one.is_task)
    await rows.workflow(TASK.name, "SYSTEM", is_task=True)
    return product


async def reasons(database: Database, workflow: Workflow, subscription: UUID) -> list[Mapping[str, Any]]:
    async with database.transaction() as session:
        try:
            await require_usable(session, workflow, subscription)
        except WorkflowNotUsableError as refused:
            return list(refused.reasons)
    return []


async def keys(database: Database, workflow: Workflow, subscription: UUID) -> list[object]:
    return [reason["key"] for reason in await reasons(database, workflow, subscription)]


async def test_by_default_only_active_subscriptions_may_be_changed_and_the_map_says_otherwise(
    database: Database, rows: Rows
) -> None:
    """B24, B25."""
    product = await node_product(rows)
    active, provisioning = [await rows.subscription(product, status=one) for one in ("active", "provisioning")]

    assert await reasons(database, MODIFY, active) == []
    assert await reasons(database, MODIFY, provisioning) == [
        {
            "key": "subscription.no_modify_invalid_status",
            "status": "provisioning",
            "usable_when": ["active"],
            "action": "modified",
        }
    ]
    assert await reasons(database, TERMINATE, provisioning) == []

    WF_USABLE_MAP.update({"modify_node": ["provisioning"], "terminate_node": ["active"]})
    assert await reasons(database, MODIFY, provisioning) == []
    assert await keys(database, MODIFY, active) == ["subscription.no_modify_invalid_status"]
    assert await keys(database, TERMINATE, provisioning) == ["subscription.no_modify_invalid_status"]


async def test_only_tasks_and_reconciling_workflows_run_on_what_is_out_of_sync_or_has_such_neighbours(
    database: Database, rows: Rows
) -> None:
    """B27, B28: with the process that holds it, and the neighbours' ids, in both directions."""
    product = await node_product(rows)
    holder = await rows.process(await rows.workflow("holding", "MODIFY"), "running")
    node, port = [await rows.subscription(product) for _ in range(2)]
    held = await rows.subscription(product, insync=False, locked_by=holder)
    block = await rows.block(held)
    await rows.root(port, block)  # the port uses a block of what is held
    await rows.root(held, await rows.block(node), "node")  # which itself uses a block of the node

    assert await reasons(database, MODIFY, held) == [{"key": "subscription.not_in_sync", "locked_by": str(holder)}]
    for neighbour in (node, port):
        assert await reasons(database, MODIFY, neighbour) == [
            {"key": "subscription.relations_not_in_sync", "locked_relations": [str(held)]}
        ]
        for free in (VALIDATE, RECONCILE, TASK):
            assert await keys(database, free, neighbour) == []
    for free in (VALIDATE, RECONCILE, TASK):
        assert await keys(database, free, held) == []

    WF_USABLE_WHILE_OUT_OF_SYNC.append("modify_node")
    assert await keys(database, MODIFY, held) == await keys(database, MODIFY, node) == []
    async with database.transaction() as session:
        offers = {offer.name: (offer.usable, offer.dangerous) for offer in await workflows_for(session, held)}
    assert offers == {
        "modify_node": (True, True),
        "reconcile_node": (True, False),
        "terminate_node": (False, False),
        "validate_node": (True, False),
    }


async def test_what_others_use_is_not_terminated_until_they_are(database: Database, rows: Rows) -> None:
    """B26."""
    product = await node_product(rows)
    node = await rows.subscription(product)
    users = sorted([await rows.subscription(product, status=one) for one in ("active", "initial", "terminated")])
    block = await rows.block(node)
    await rows.root(users[0], block)
    for user in users[1:]:
        await rows.inside(await rows.block(user), block)
    alive = [
        str(one)
        for one in users
        if await rows.pool.fetchval("SELECT status <> 'terminated' FROM subscriptions WHERE subscription_id = $1", one)
    ]

    assert await reasons(database, TERMINATE, node) == [
        {
            "key": "subscription.no_modify_subscription_in_use_by_others",
            "unterminated_in_use_by_subscriptions": alive,
        }
    ]
    assert len(alive) == 2
    assert await keys(database, MODIFY, node) == []
    WF_BLOCKED_BY_IN_USE_BY_SUBSCRIPTIONS.update({"modify_node": True, "terminate_node": False})
    assert await keys(database, MODIFY, node) == ["subscription.no_modify_subscription_in_use_by_others"]
    assert await keys(database, TERMINATE, node) == []
    WF_BLOCKED_BY_IN_USE_BY_SUBSCRIPTIONS.clear()
    await rows.pool.execute("UPDATE subscriptions SET status = 'terminated' WHERE subscription_id = ANY($1)", users)
    assert await keys(database, TERMINATE, node) == []


async def test_terminated_neighbours_that_were_left_out_of_sync_do_not_count(database: Database, rows: Rows) -> None:
    product = await node_product(rows)
    node = await rows.subscription(product)
    for direction in range(2):
        gone = await rows.subscription(product, status="terminated", insync=False)
        inner, outer = (node, gone) if direction else (gone, node)
        await rows.root(outer, await rows.block(inner), f"port_{direction}")

    assert await keys(database, MODIFY, node) == []


async def test_a_workflow_runs_only_on_subscriptions_of_its_products(database: Database, rows: Rows) -> None:
    """B12: tasks belong to no product."""
    await node_product(rows)
    link = await rows.subscription(await rows.product("Link"))

    assert await reasons(database, MODIFY, link) == [{"key": "subscription.workflow_not_of_product", "product": "Link"}]
    assert await keys(database, TASK, link) == []


async def test_a_removed_workflow_is_neither_offered_nor_let_run(database: Database, rows: Rows) -> None:
    """B13."""
    product = await node_product(rows)
    node = await rows.subscription(product)
    await rows.workflow("modify_old", "MODIFY", product, gone=True)

    assert await keys(database, flow("modify_old", Target.MODIFY), node) == ["subscription.workflow_not_of_product"]
    async with database.transaction() as session:
        assert "modify_old" not in {offer.name for offer in await workflows_for(session, node)}


async def test_all_reasons_come_together_in_the_text_too(database: Database, rows: Rows) -> None:
    """B28."""
    await node_product(rows)
    link = await rows.subscription(await rows.product("Link"), status="disabled", insync=False)
    block = await rows.block(link)
    user = await rows.subscription(await rows.product("Other"), insync=False)
    await rows.root(user, block)

    with pytest.raises(
        WorkflowNotUsableError, match=f"'terminate_node' may not run on subscription {link}: "
    ) as refused:
        async with database.transaction() as session:
            WF_USABLE_MAP["terminate_node"] = ["active"]
            await require_usable(session, TERMINATE, link)

    assert [reason["key"] for reason in refused.value.reasons] == [
        "subscription.workflow_not_of_product",
        "subscription.not_in_sync",
        "subscription.relations_not_in_sync",
        "subscription.no_modify_invalid_status",
        "subscription.no_modify_subscription_in_use_by_others",
    ]
    assert "the subscription is out of sync; related subscriptions are out of sync: " in str(refused.value)


async def test_a_subscription_that_does_not_exist_is_said_not_to_exist(database: Database) -> None:
    async with database.transaction() as session:
        for question in (
            require_usable(session, MODIFY, uuid4()),
            workflows_for(session, uuid4()),
            set_in_sync(session, uuid4(), "bob", "why not"),
            show(session, uuid4()),
            read_history(session, uuid4()),
        ):
            with pytest.raises(NotFoundError, match="there is no subscription"):
                await question


async def test_offers_are_those_of_the_product_by_target_and_name(database: Database, rows: Rows) -> None:
    product = await node_product(rows)
    await rows.workflow("add_port", "MODIFY", product)
    await rows.workflow("modify_link", "MODIFY", await rows.product("Link"))
    node = await rows.subscription(product, status="provisioning")

    async with database.transaction() as session:
        offers = await workflows_for(session, node)

    assert [(offer.target, offer.name, offer.usable, offer.is_task) for offer in offers] == [
        (Target.MODIFY, "add_port", False, False),
        (Target.MODIFY, "modify_node", False, False),
        (Target.RECONCILE, "reconcile_node", False, False),
        (Target.TERMINATE, "terminate_node", True, False),
        (Target.VALIDATE, "validate_node", False, True),
    ]
    assert offers[0].description == "about add_port"


async def test_the_facts_are_what_the_rows_say_in_a_random_world(database: Database, rows: Rows) -> None:
    """Roots and blocks inside blocks, chains, shared blocks, several ways to the same neighbour, and itself."""
    chance = random.Random(3)
    product = await node_product(rows)
    status = {}
    insync = {}
    owner: dict[UUID, UUID] = {}
    for _ in range(15):
        one = await rows.subscription(
            product,
            status=(chosen := chance.choice(["active", "provisioning", "terminated"])),
            insync=(free := chance.random() < 0.6),
        )
        status[one], insync[one] = chosen, free
        for _ in range(chance.randint(0, 3)):
            owner[await rows.block(one)] = one
    uses: set[tuple[UUID, UUID]] = set()
    for position in range(80):
        block, inner = chance.choice(list(owner)), chance.choice(list(owner))
        if chance.random() < 0.5:
            await rows.inside(block, inner, position=position)
            uses.add((owner[block], owner[inner]))
        else:
            outer = chance.choice(list(status))
            await rows.root(outer, inner, position=position)
            uses.add((outer, owner[inner]))

    checked = 0
    async with database.transaction() as session:
        for one, stands in status.items():
            users = {a for a, b in uses if b == one and a != one}
            used = {b for a, b in uses if a == one and b != one}
            case = await read_case(session, one)
            assert set(case.facts.unterminated_users) == {it for it in users if status[it] != "terminated"}
            assert set(case.facts.locked_relations) == {
                it for it in users | used if status[it] != "terminated" and not insync[it]
            }
            assert (case.facts.status, case.facts.insync) == (stands, insync[one])
            neighbours = await read_neighbours(session, one)
            assert {it.subscription_id for it in neighbours.in_use_by} == users
            assert {it.subscription_id for it in neighbours.uses} == used
            checked += len(users & used)
    assert checked, "some use each other"


async def test_a_start_does_not_wait_for_a_step_that_writes_to_the_subscription(database: Database, rows: Rows) -> None:
    """The step that takes the lock asks again; waiting here would hold a connection for as long as the step runs."""
    node = await rows.subscription(await node_product(rows))

    async with database.transaction() as writing, database.transaction() as session, asyncio.timeout(60):
        await writing.execute(text("UPDATE subscriptions SET note = 'busy'"))
        await require_usable(session, MODIFY, node)


async def test_setting_in_sync_is_refused_while_an_unfinished_process_holds_the_subscription(
    database: Database, rows: Rows
) -> None:
    """B1: and once it is allowed, who did it and why is part of the history."""
    product = await node_product(rows)
    holder = await rows.process(await rows.workflow("holding", "MODIFY"), "failed")
    node = await rows.subscription(product, insync=False, locked_by=holder)

    with pytest.raises(SubscriptionHeldError, match=rf"held by process {holder} \(holding, failed\).*abort it") as held:
        async with database.transaction() as session:
            await set_in_sync(session, node, "bob", "looked at it")
    assert held.value.reasons == [
        {
            "key": "subscription.held_by_process",
            "process_id": str(holder),
            "workflow": "holding",
            "status": "failed",
        }
    ]

    await rows.pool.execute("UPDATE processes SET status = 'aborted'")
    async with database.transaction() as session:
        assert await set_in_sync(session, node, "bob", "looked at it") is True
    async with database.transaction() as session:
        assert await set_in_sync(session, node, "bob", "again") is False
        shown = await show(session, node)
        (change,) = (await read_history(session, node)).other_changes
    assert (shown.summary.insync, shown.summary.locked_by, shown.summary.version) == (True, None, 1)
    assert (change.author, change.note, change.version, change.process_id) == ("bob", "looked at it", 1, None)
    assert dict(change.changes) == {"insync": (False, True)}


async def test_a_subscription_that_nobody_is_known_to_hold_can_be_set_in_sync(database: Database, rows: Rows) -> None:
    node = await rows.subscription(await node_product(rows), insync=False)

    async with database.transaction() as session:
        assert await set_in_sync(session, node, "bob", "import")
