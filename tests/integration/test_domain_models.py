"""Models on a real database: what is loaded, what is saved, and how many statements that takes."""

from __future__ import annotations

import json
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from sqlalchemy import event

from orchestrator.db.session import Database
from orchestrator.domain import (
    ProductBlockModel,
    SubscriptionModel,
    explain,
    flat,
    load_stored,
)
from orchestrator.domain.diff import is_same
from orchestrator.errors import DefinitionError, ModelError, NotFoundError
from orchestrator.types import Stored, SubscriptionLifecycle
from tests.integration.model_bench import TABLES, Bench, make_bench
from tests.unit.models import (
    FibreBlock,
    FibreBlockInactive,
    FolderBlockInactive,
    FolderInactive,
    Link,
    LinkInactive,
    Node,
    NodeBlock,
    NodeBlockInactive,
    NodeBlockProvisioning,
    NodeInactive,
    NodeProvisioning,
    PortBlock,
    Role,
    folder_trees,
)

ACTIVE, TERMINATED = SubscriptionLifecycle.ACTIVE, SubscriptionLifecycle.TERMINATED
PROVISIONING = SubscriptionLifecycle.PROVISIONING


@pytest.fixture
async def bench(database: Database) -> Bench:
    return await make_bench(database)


async def test_a_subscription_is_what_it_was_when_it_is_loaded_again(bench: Bench) -> None:
    node = await bench.node()

    async with bench.session() as session:
        again = await Node.from_subscription(session, str(node.subscription_id))

    assert again == node
    assert (again.version, again.insync, again.role) == (1, False, Role.P)
    assert again.node.title == "node ams-1"
    assert again.product.name == "Node P"


async def test_values_are_stored_as_one_document_without_what_is_none_or_computed(bench: Bench) -> None:
    node = await bench.node()

    stored = await bench.database.pool.fetchval(
        "SELECT resources FROM subscription_instances WHERE subscription_id = $1", node.subscription_id
    )

    assert json.loads(stored) == {"node_name": "ams-1", "ims_id": 7, "tags": []}


async def test_a_link_has_ports_of_its_own_and_nodes_of_others(bench: Bench) -> None:
    nodes = [await bench.node("ams"), await bench.node("ber")]
    link = await bench.link(*nodes)

    again = await bench.load(link.subscription_id)

    assert again == link
    assert isinstance(again, Link)
    assert [port.node for port in again.ports] == [node.node for node in nodes]
    assert await bench.count("subscription_instances", "subscription_id = $1", link.subscription_id) == 2


async def test_blocks_of_a_list_can_be_moved_added_and_taken_away(bench: Bench) -> None:
    folders = await bench.folders(4)
    names = [one.title for one in folders.top.folders]
    one, two, three, four = folders.top.folders
    two.folders.append(three)
    folders.top.folders[:] = [four, one, two, FolderBlockInactive.new(folders.subscription_id, title="new")]
    await bench.save(folders)

    again = await bench.load(folders.subscription_id)

    assert again == folders
    assert isinstance(again, FolderInactive)
    assert [each.title for each in again.top.folders] == [names[3], names[0], names[1], "new"]

    again.top.folders = [again.top.folders[0]]
    await bench.save(again)
    assert await bench.load(folders.subscription_id) == again
    assert await bench.count("subscription_instances", "subscription_id = $1", folders.subscription_id) == 2
    assert await bench.count("subscription_instance_relations") == 1


async def test_a_block_may_stand_in_several_places(bench: Bench) -> None:
    folders = await bench.folders(2)
    folders.top.folders[0].folders.append(folders.top.folders[1])
    await bench.save(folders)

    again = await bench.load(folders.subscription_id)

    assert isinstance(again, FolderInactive)
    assert again.top.folders[0].folders[0] is again.top.folders[1]
    again.top.folders[1].title = "once"
    await bench.save(again)
    assert await bench.load(folders.subscription_id) == again


async def test_a_field_of_several_kinds_holds_the_kind_that_was_put_into_it(bench: Bench) -> None:
    link = await bench.link(await bench.node(), await bench.node())
    fibre = FibreBlock.new(link.subscription_id, colour="red", ends=[])
    for way in (fibre, PortBlock.new(link.subscription_id, vlan=9, node=link.ports[0].node), None):
        link.way = way
        await bench.save(link)

        again = await bench.load(link.subscription_id)

        assert isinstance(again, Link)
        assert type(again.way) is type(way)
        assert again == link
    assert await bench.count("subscription_instances", "subscription_id = $1", link.subscription_id) == 2


async def test_any_tree_is_loaded_as_it_was_saved_and_its_history_explains_it(bench: Bench) -> None:
    examples = settings(
        max_examples=15,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    owner = uuid4()
    trees: list[tuple[FolderBlockInactive, FolderBlockInactive]] = []

    @examples
    @given(folder_trees(owner), folder_trees(owner))
    def draw(one: FolderBlockInactive, two: FolderBlockInactive) -> None:
        trees.append((one, two))

    draw()
    assert len(trees) == 15
    async with bench.session() as session:
        folders = await FolderInactive.from_product_id(
            session, bench.products["Folder"], "customer", subscription_id=owner
        )
    for one, two in trees:
        for tree in (one, two):
            folders.top = tree.model_copy(deep=True)
            await bench.save(folders)
            again = await bench.load(owner)
            assert again == folders
            assert is_same(explain(await bench.changes(owner)), flat(again))
            assert isinstance(again, FolderInactive)
            folders = again


async def test_a_model_is_loaded_as_the_class_of_its_lifecycle(bench: Bench) -> None:
    node = await bench.node()
    stages: list[tuple[SubscriptionLifecycle, type, type]] = [
        (PROVISIONING, NodeProvisioning, NodeBlockProvisioning),
        (ACTIVE, Node, NodeBlock),
        (TERMINATED, NodeInactive, NodeBlockInactive),
    ]
    for status, model, block in stages:
        await bench.save(SubscriptionModel.from_other_lifecycle(await bench.load(node.subscription_id), status))
        again = await bench.load(node.subscription_id)
        assert type(again) is model
        assert isinstance(again, NodeInactive)
        assert type(again.node) is block


async def test_what_a_step_asks_for_is_loaded_if_it_is_one_of_the_classes(bench: Bench) -> None:
    node = await bench.node()
    key, block = node.subscription_id, node.node.subscription_instance_id
    async with bench.session() as session:
        subscriptions: list[list[type[Stored]]] = [
            [Node],
            [NodeProvisioning, Link],
            [SubscriptionModel],
            [NodeInactive],
        ]
        for classes in subscriptions:
            assert await load_stored(session, classes, key) == node
        blocks: list[list[type[Stored]]] = [[NodeBlock], [PortBlock, NodeBlockInactive], [ProductBlockModel]]
        for classes in blocks:
            assert await load_stored(session, classes, block) == node.node
        assert await NodeBlock.from_db(session, str(block)) == node.node

        with pytest.raises(
            ModelError, match=rf"{key} \(Node P, active\) is Node, because it is active; Link or .* was"
        ):
            await load_stored(session, [Link, LinkInactive], key)
        with pytest.raises(
            ModelError, match=rf"the block Node {block} of .* \(active\) is NodeBlock; PortBlock was asked"
        ):
            await PortBlock.from_db(session, block)
        for wrong in ([], [Node, NodeBlock], [int]):
            with pytest.raises(DefinitionError, match="a subscription or a product block can be loaded, not one of"):
                await load_stored(session, wrong, key)  # type: ignore[arg-type]


@pytest.mark.parametrize("key", [uuid4(), "no-uuid", None])
async def test_what_is_not_there_is_not_found(bench: Bench, key: UUID) -> None:
    async with bench.session() as session:
        with pytest.raises(NotFoundError, match=f"there is no subscription '?{key}"):
            await Node.from_subscription(session, key)
        with pytest.raises(NotFoundError, match=f"there is no block '?{key}"):
            await NodeBlock.from_db(session, key)
        with pytest.raises(NotFoundError, match=f"there is no product '?{key}"):
            await NodeInactive.from_product_id(session, key, "customer")


@pytest.mark.parametrize("size", [0, 100])
async def test_loading_is_one_statement_and_saving_two_at_most(bench: Bench, size: int) -> None:
    async with bench.session() as session:
        with bench.statements() as sent:
            folders = await FolderInactive.from_product_id(session, bench.products["Folder"], "customer")
        assert len(sent) == 1
        folders.top.folders += [FolderBlockInactive.new(folders.subscription_id) for _ in range(size)]
        with bench.statements() as sent:
            await folders.save(session)
        assert len(sent) == 2
    async with bench.session() as session:
        with bench.statements() as sent:
            again = await FolderInactive.from_subscription(session, folders.subscription_id)
        assert len(sent) == 1
        with bench.statements() as sent:
            await again.save(session)
        assert sent == [], "nothing is different"
        again.note = "only the subscription's own row"
        with bench.statements() as sent:
            await again.save(session)
        assert len(sent) == 1
        for one in [again.top, *again.top.folders]:
            one.title = "all"
        with bench.statements() as sent:
            await again.save(session)
        assert len(sent) == 2
        with bench.statements() as sent:
            await again.save(session)
        assert sent == [], "what was saved is remembered"


async def test_no_statement_reads_more_when_there_are_more_subscriptions(bench: Bench) -> None:
    """The plans of all statements use indexes where tables grow, with PostgreSQL's own settings."""
    node = await bench.node()
    link = await bench.link(node, node)
    pool = bench.database.pool
    await pool.execute(
        """
        WITH made AS (
            INSERT INTO subscriptions (subscription_id, product_id, customer_id, description, status, insync)
            SELECT gen_random_uuid(), $1, 'c' || n, 'd', 'active', true FROM generate_series(1, 5000) n
            RETURNING subscription_id
        ), blocks AS (
            INSERT INTO subscription_instances (subscription_instance_id, subscription_id, product_block_id)
            SELECT gen_random_uuid(), subscription_id, product_block_id FROM made, product_blocks
            RETURNING subscription_instance_id, subscription_id
        ), roots AS (
            INSERT INTO subscription_roots SELECT subscription_id, 'node', 0, subscription_instance_id FROM blocks
            ON CONFLICT DO NOTHING
        )
        INSERT INTO subscription_instance_relations SELECT subscription_instance_id, 'node', 0, $2 FROM blocks LIMIT 9999
        """,
        bench.products["Node P"],
        link.ports[0].subscription_instance_id,
    )
    await pool.execute("ANALYZE")
    sent: list[tuple[str, tuple[object, ...]]] = []

    def note(_: object, __: object, statement: str, parameters: tuple[object, ...], *___: object) -> None:
        sent.append((statement, parameters))

    engine = bench.database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    async with bench.session() as session:
        again = await Link.from_subscription(session, link.subscription_id)
        again.ports[0].vlan, again.way = 9, FibreBlock.new(link.subscription_id, colour="red", ends=[again.ports[0]])
        await again.save(session)
        again.way = None
        await again.save(session)
        await again.depends_on(session)
        await PortBlock.from_db(session, link.ports[1].subscription_instance_id)
        await again.ports[1].in_use_by(session)
        await again.ports[1].depends_on(session)
        await NodeInactive.from_product_id(session, bench.products["Node P"], "customer")
    event.remove(engine, "before_cursor_execute", note)
    assert len(sent) == 12
    async with bench.database.pool.acquire() as connection:
        for statement, parameters in sent:
            for kind in ("force_custom_plan", "force_generic_plan"):
                transaction = connection.transaction()
                await transaction.start()
                await connection.execute(f"SET LOCAL plan_cache_mode = {kind}")
                rows = await connection.fetch(f"EXPLAIN {statement}", *parameters)
                await transaction.rollback()
                plan = "\n".join(row[0] for row in rows)
                scanned = [table for table in TABLES if f"Seq Scan on {table}" in plan]
                assert scanned == [], f"{kind}\n{statement}\n{plan}"


async def test_a_new_subscription_has_the_blocks_it_must_have(bench: Bench) -> None:
    async with bench.session() as session:
        link = await LinkInactive.from_product_id(
            session, bench.products["Link"], "customer", description="d", note="n"
        )

    assert (len(link.ports), link.way, link.speed) == (2, None, 1000)
    assert {port.owner_subscription_id for port in link.ports} == {link.subscription_id}
    assert (link.description, link.note, link.version, link.start_date) == ("d", "n", 0, None)
    assert await bench.count("subscriptions") == 0, "it is not saved yet"


async def test_a_new_subscription_is_asked_of_the_class_that_serves_its_status(bench: Bench) -> None:
    product = bench.products["Node P"]
    async with bench.session() as session:
        made = await SubscriptionModel.from_product_id(session, str(product), "customer")
        assert type(made) is NodeInactive
        for model in (Node, LinkInactive):
            with pytest.raises(
                ModelError, match=r"initial is NodeInactive, not .*: write NodeInactive.from_product_id"
            ):
                await model.from_product_id(session, product, "customer")
        with pytest.raises(ModelError, match="a new NodeBlock cannot be made: node_name: Field required"):
            await Node.from_product_id(session, product, "customer", status=ACTIVE)
        await bench.database.pool.execute("UPDATE products SET status = 'end of life'")
        with pytest.raises(ModelError, match="the product 'Node P' is 'end of life', not active"):
            await NodeInactive.from_product_id(session, product, "customer")


async def test_a_product_that_lacks_a_fixed_input_is_reported(bench: Bench) -> None:
    await bench.database.pool.execute("DELETE FROM fixed_inputs")
    async with bench.session() as session:
        with pytest.raises(ModelError, match="the product 'Node P' has no fixed input 'role'"):
            await NodeInactive.from_product_id(session, bench.products["Node P"], "customer")


async def test_a_subscription_moves_to_another_product_with_its_blocks(bench: Bench) -> None:
    node = await bench.node()
    async with bench.session() as session:
        moved = await Node.from_other_product(session, node, bench.products["Node PE"])
        await moved.save(session)

    again = await bench.load(node.subscription_id)

    assert again == moved
    assert isinstance(again, Node)
    assert (again.role, again.product.name, again.version) == (Role.PE, "Node PE", 2)
    assert again.node == node.node
    assert (await bench.changes(node.subscription_id))[1] == {
        "product_id": [str(bench.products["Node P"]), str(bench.products["Node PE"])]
    }


async def test_blocks_for_which_the_new_product_has_no_place_go_and_new_ones_come(bench: Bench) -> None:
    async with bench.session() as session:
        link = await LinkInactive.from_product_id(session, bench.products["Link"], "customer")
        link.way = FibreBlockInactive.new(link.subscription_id, colour="red")
        await link.save(session)
        moved = await SubscriptionModel.from_other_product(session, link, bench.products["Node P"])
        await moved.save(session)
        assert isinstance(moved, NodeInactive)
    assert await bench.load(link.subscription_id) == moved
    assert await bench.count("subscription_instances") == 1

    given = NodeBlockInactive.new(link.subscription_id, node_name="given")
    async with bench.session() as session:
        with pytest.raises(ModelError, match="initial is NodeInactive as the product 'Node PE', not Link"):
            await Link.from_other_product(session, moved, bench.products["Node PE"])
        again = await NodeInactive.from_other_product(
            session, moved, bench.products["Node PE"], new_root={"node": given}
        )
        await again.save(session)
    assert await bench.load(link.subscription_id) == again
    assert again.node == given
    assert await bench.count("subscription_instances") == 1
    assert is_same(explain(await bench.changes(link.subscription_id)), flat(again))
