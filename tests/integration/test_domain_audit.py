"""Models on a real database: the audit trail of every change, and what does not fit."""

from __future__ import annotations

import json
from uuid import uuid4

import pytest

from orchestrator.db.session import PROCESS_ID, Database
from orchestrator.db.step_session import StepSession
from orchestrator.domain import (
    SUBSCRIPTION_MODEL_REGISTRY,
    explain,
    flat,
)
from orchestrator.errors import ModelError
from orchestrator.types import SubscriptionLifecycle
from tests.integration.model_bench import TABLES, Bench, make_bench
from tests.unit.models import (
    FibreBlock,
    NodeBlock,
    NodeInactive,
)

ACTIVE, TERMINATED = SubscriptionLifecycle.ACTIVE, SubscriptionLifecycle.TERMINATED
PROVISIONING = SubscriptionLifecycle.PROVISIONING


@pytest.fixture
async def bench(database: Database) -> Bench:
    return await make_bench(database)


async def test_every_change_has_its_process_its_step_and_who_acted(bench: Bench) -> None:
    node = await bench.node()
    node.node.ims_id = 8
    await bench.save(node)

    rows = await bench.database.pool.fetch(
        "SELECT version, process_id, step, attempt, author, changes FROM subscription_changes ORDER BY change_id"
    )

    assert [(row["version"], row["process_id"], row["step"], row["attempt"], row["author"]) for row in rows] == [
        (version, bench.process_id, "the step", 3, "ben") for version in (1, 2)
    ]
    assert json.loads(rows[1]["changes"]) == {f"{node.node.subscription_instance_id}.ims_id": [7, 8]}
    assert explain([json.loads(row["changes"]) for row in rows]) == flat(node)
    linked = await bench.database.pool.fetch("SELECT process_id, subscription_id FROM processes_subscriptions")
    assert [tuple(row) for row in linked] == [(bench.process_id, node.subscription_id)]


async def test_a_subscription_is_changed_by_a_process_only(bench: Bench) -> None:
    node = await bench.node()
    node.note = "by nobody"
    async with bench.database.transaction() as session:
        with pytest.raises(
            ModelError, match="subscriptions change only in a process, by the session that its step receives"
        ):
            await node.save(session)
        session.info[PROCESS_ID] = (unknown := uuid4())
        with pytest.raises(ModelError, match=f"there is no process {unknown}"):
            await node.save(session)
    assert (await bench.load(node.subscription_id)).note is None


async def test_who_makes_a_subscription_holds_it_unless_it_is_in_sync(bench: Bench) -> None:
    for insync, holder in ((False, bench.process_id), (True, None)):
        async with bench.session() as session:
            made = await NodeInactive.from_product_id(session, bench.products["Node P"], "customer", insync=insync)
            await made.save(session)
        row = await bench.database.pool.fetchrow(
            "SELECT insync, locked_by FROM subscriptions WHERE subscription_id = $1", made.subscription_id
        )
        assert tuple(row or ()) == (insync, holder)


async def test_saving_does_not_touch_the_lock(bench: Bench) -> None:
    node = await bench.node()
    await bench.database.pool.execute("UPDATE subscriptions SET insync = true, locked_by = NULL")
    node.note = "changed"
    await bench.save(node)

    assert (await bench.load(node.subscription_id)).insync is True


async def test_a_step_that_fails_leaves_nothing_of_a_model(bench: Bench) -> None:
    """B5, for models."""
    session = StepSession(bench.database.engine)
    session.info[PROCESS_ID] = bench.process_id
    made = await NodeInactive.from_product_id(session, bench.products["Node P"], "customer")
    await made.save(session)
    assert await NodeInactive.from_subscription(session, made.subscription_id) == made
    await session.discard()

    for table in (*TABLES, "subscription_changes", "processes_subscriptions"):
        assert await bench.count(table) == 0


async def test_what_no_migration_has_registered_is_refused_by_name(bench: Bench) -> None:
    node = await bench.node()
    await bench.database.pool.execute(
        """
        DELETE FROM product_block_resource_types WHERE resource_type_id IN (
            SELECT resource_type_id FROM resource_types WHERE resource_type IN ('ims_id', 'tags'))
        """
    )
    node.node.node_name = "new"
    words = (
        "the database does not know the resource type 'ims_id' of the product block 'Node' and the resource type 'tags' of"
        " the product block 'Node'; 'orchestrator db migrate-domain-models' writes the migration"
    )
    with pytest.raises(ModelError, match=words):
        await bench.save(node)
    assert (await bench.load(node.subscription_id)).version == 1

    node = await bench.load(node.subscription_id)  # type: ignore[assignment]
    link = await bench.link(node, node)  # values of another subscription's blocks are not looked at
    await bench.database.pool.execute("UPDATE product_blocks SET name = 'Copper' WHERE name = 'Fibre'")
    link.way = FibreBlock.new(link.subscription_id, colour="red", ends=[])
    with pytest.raises(ModelError, match="does not know the product block 'Fibre'"):
        await bench.save(link)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            '{"node_name": "ams", "ims_id": "many"}',
            r"Node, active\) does not fit Node: node.ims_id: Input should be a valid int",
        ),
        ('{"ims_id": 7}', "node.node_name: Field required"),
        (
            '{"node_name": "ams", "ims_id": 7, "rack": 3}',
            "node.rack: a value is stored, but NodeBlock has no such field",
        ),
        ('{"node_name": "ams", "ims_id": 7, "tags": [1]}', "node.tags.0: Input should be a valid string"),
    ],
)
async def test_a_value_that_no_longer_fits_is_reported_with_its_path(bench: Bench, values: str, words: str) -> None:
    node = await bench.node()
    await bench.database.pool.execute("UPDATE subscription_instances SET resources = $1", values)

    with pytest.raises(
        ModelError, match=f"the subscription {node.subscription_id} .*{words.replace('Node, a', 'Node P, a')}"
    ):
        await bench.load(node.subscription_id)
    async with bench.session() as session:
        with pytest.raises(
            ModelError, match=f"the block Node {node.node.subscription_instance_id} of the subscription"
        ):
            await NodeBlock.from_db(session, node.node.subscription_instance_id)


async def test_a_fixed_input_that_no_longer_fits_is_reported_with_its_name(bench: Bench) -> None:
    node = await bench.node()
    await bench.database.pool.execute("UPDATE fixed_inputs SET value = 'Q' WHERE name = 'role'")

    with pytest.raises(
        ModelError, match=f"{node.subscription_id} .* does not fit Node: role: Input should be 'P' or 'PE'"
    ):
        await bench.load(node.subscription_id)


async def test_relations_that_no_longer_fit_are_reported_with_their_path(bench: Bench) -> None:
    node, link = await bench.node(), await bench.link(await bench.node(), await bench.node())
    port = link.ports[0].subscription_instance_id
    await bench.database.pool.execute(
        "UPDATE subscription_roots SET depends_on_id = $1 WHERE subscription_id = $2", port, node.subscription_id
    )
    with pytest.raises(ModelError, match="node: a block 'Port' is stored, but NodeBlock is expected"):
        await bench.load(node.subscription_id)

    await bench.database.pool.execute(
        "INSERT INTO subscription_roots VALUES ($1, 'rack', 0, $2), ($1, 'way', 0, $2), ($1, 'way', 1, $2)",
        link.subscription_id,
        port,
    )
    words = (
        "rack: 1 blocks are stored, but Link has no such field of blocks; way: 2 blocks are stored, but Link holds one"
    )
    with pytest.raises(ModelError, match=words):
        await bench.load(link.subscription_id)


async def test_a_product_without_a_model_is_reported(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    node = await bench.node()
    monkeypatch.delitem(SUBSCRIPTION_MODEL_REGISTRY, "Node P")

    with pytest.raises(
        ModelError, match=r"no model is registered for the product 'Node P'.*SUBSCRIPTION_MODEL_REGISTRY"
    ):
        await bench.load(node.subscription_id)
