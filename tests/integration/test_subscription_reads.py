"""Looking at subscriptions on a real database: pages, and one with its blocks; and what all questions cost."""

from __future__ import annotations

import json
import random
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.session import Database
from orchestrator.db.subscriptions.neighbours import read_case
from orchestrator.errors import NotFoundError
from orchestrator.services.subscriptions import list_subscriptions, read_history, require_usable, show, workflows_for
from orchestrator.targets import Target
from orchestrator.workflow import Workflow, begin
from tests.integration.subscription_rows import Rows

TABLES = {"subscriptions", "subscription_instances", "subscription_instance_relations", "subscription_roots"}

PAGES: list[dict[str, Any]] = [
    {"product": "Node"},
    {"statuses": ["active"]},
    {"statuses": ["active", "provisioning"]},
    {"customer": "customer 7"},
    {},
    {"product": "Rare"},
    {"statuses": ["disabled"]},
    {"statuses": ["disabled", "active"]},
    {"customer": "rare"},
    {"insync": False},
    {"insync": True},
    {"statuses": ["provisioning"], "insync": False},
    {"statuses": ["active"], "product": "Node"},
]


@pytest.fixture
def rows(database: Database) -> Rows:
    return Rows(database.pool)


async def pages(session: AsyncSession, size: int, **filters: Any) -> list[UUID]:
    found: list[UUID] = []
    while page := await list_subscriptions(session, limit=size, after=found[-1] if found else None, **filters):
        assert len(page) <= size
        found += [one.subscription_id for one in page]
    return found


async def test_pages_together_are_all_that_fit_newest_first_and_each_once(database: Database, rows: Rows) -> None:
    """Also when many were made at the same moment."""
    chance = random.Random(5)
    products = {name: await rows.product(name) for name in ("Node", "Link")}
    start = datetime(2030, 1, 1, tzinfo=UTC)
    stored: list[tuple[datetime, UUID, str, str, str, bool]] = []
    for _ in range(60):
        product, customer = chance.choice(["Node", "Link"]), chance.choice(["acme", "beta"])
        status, insync = chance.choice(["active", "initial", "terminated"]), chance.random() < 0.5
        created = start + timedelta(seconds=chance.randint(0, 5))
        one = await rows.subscription(
            products[product], status=status, insync=insync, customer=customer, created_at=created
        )
        stored.append((created, one, product, customer, status, insync))
    stored.sort(key=lambda it: (-it[0].timestamp(), it[1]))

    def fitting(**wanted: object) -> list[UUID]:
        return [
            one
            for _, one, product, customer, status, insync in stored
            if wanted.get("product", product) == product
            and wanted.get("customer", customer) == customer
            and status in wanted.get("statuses", [status])  # type: ignore[operator]
            and wanted.get("insync", insync) == insync
        ]

    async with database.transaction() as session:
        for filters in (
            {},
            {"product": "Node"},
            {"customer": "beta"},
            {"insync": False},
            {"insync": True},
            {"statuses": ["active"]},
            {"statuses": ["active", "initial", "active"]},
            {"statuses": ["active", "terminated"], "product": "Link", "customer": "acme", "insync": False},
        ):
            expected = fitting(**filters)
            assert expected
            for size in (1, 7, 100):
                assert await pages(session, size, **filters) == expected, filters
        with pytest.raises(NotFoundError, match="there is no product 'Nodes'"):
            await list_subscriptions(session, product="Nodes", limit=5)
        with pytest.raises(NotFoundError, match="after which the page would begin"):
            await list_subscriptions(session, after=uuid4(), limit=5)


async def test_a_subscription_is_shown_with_its_tree_of_blocks_and_its_neighbours(
    database: Database, rows: Rows
) -> None:
    product = await rows.product("Node", speed="1000")
    holder = await rows.process(await rows.workflow("holding", "MODIFY"), "running")
    node = await rows.subscription(product, insync=False, locked_by=holder)
    other, user = [await rows.subscription(product, description=name) for name in ("other", "user")]
    root = await rows.block(node, "Node", {"ims_id": 7}, label="main")
    ports = [await rows.block(node, "Port", {"vlan": number}) for number in range(2)]
    foreign = await rows.block(other, "Site", {"city": "Bonn"})
    hidden = await rows.block(other, "Room")
    lonely = await rows.block(node, "Lost")
    await rows.root(node, root, "node")
    for number, port in enumerate(ports):
        await rows.inside(root, port, "ports", number)
    await rows.inside(ports[1], foreign, "site")
    await rows.inside(foreign, hidden, "room")
    await rows.inside(ports[0], root, "back")  # a circle, which no model makes
    await rows.root(user, ports[0])

    async with database.transaction() as session:
        shown = await show(session, node)

    assert dict(shown.fixed_inputs) == {"speed": "1000"}
    assert shown.holder is not None
    assert (shown.holder.process_id, shown.holder.workflow, shown.holder.status) == (holder, "holding", "running")
    main, lost = shown.blocks
    assert (main.field, main.name, main.label, main.resources) == ("node", "Node", "main", {"ims_id": 7})
    assert [(block.field, block.position, block.resources) for block in main.blocks] == [
        ("ports", 0, {"vlan": 0}),
        ("ports", 1, {"vlan": 1}),
    ]
    (back,) = main.blocks[0].blocks
    assert (back.subscription_instance_id, back.blocks) == (root, ())
    (site,) = main.blocks[1].blocks
    assert (site.owner_subscription_id, site.resources, site.blocks) == (other, {"city": "Bonn"}, ())
    assert (lost.field, lost.subscription_instance_id) == ("", lonely)
    assert [one.description for one in shown.neighbours.uses] == ["other"]
    assert [one.description for one in shown.neighbours.in_use_by] == ["user"]


# What it costs.


async def many(rows: Rows, product: UUID, count: int) -> list[UUID]:
    """Subscriptions with three blocks each, of which the third uses a block of the one before."""
    found = await rows.pool.fetch(
        """
        WITH kind AS (
            INSERT INTO product_blocks (name) VALUES ('Bulk') RETURNING product_block_id
        ), made AS (
            INSERT INTO subscriptions (subscription_id, product_id, customer_id, description, status, insync, created_at)
            SELECT gen_random_uuid(), $1, 'customer ' || n % 50, 'bulk ' || n,
                   (ARRAY['active', 'active', 'provisioning', 'terminated'])[1 + n % 4], n % 7 <> 0,
                   now() - n * interval '1 minute'
              FROM generate_series(1, $2) n
            RETURNING subscription_id
        ), numbered AS (
            SELECT subscription_id, row_number() OVER () AS n FROM made
        ), blocks AS (
            INSERT INTO subscription_instances (subscription_instance_id, subscription_id, product_block_id)
            SELECT gen_random_uuid(), subscription_id, product_block_id FROM numbered, kind, generate_series(1, 3)
            RETURNING subscription_instance_id, subscription_id
        ), placed AS (
            SELECT subscription_instance_id, subscription_id, n,
                   row_number() OVER (PARTITION BY subscription_id) AS place
              FROM blocks JOIN numbered USING (subscription_id)
        ), roots AS (
            INSERT INTO subscription_roots
            SELECT subscription_id, 'node', place, subscription_instance_id FROM placed WHERE place < 3
        ), relations AS (
            INSERT INTO subscription_instance_relations
            SELECT own.subscription_instance_id, 'next', 0, other.subscription_instance_id
              FROM placed own JOIN placed other ON other.n = own.n - 1 AND other.place = 1
             WHERE own.place = 3
        )
        SELECT subscription_id FROM numbered ORDER BY n
        """,
        product,
        count,
    )
    await rows.pool.execute("ANALYZE")
    return [UUID(str(row["subscription_id"])) for row in found]


async def plans(database: Database, ask: Callable[[AsyncSession], Awaitable[None]]) -> list[tuple[str, str]]:
    """(node type, table) of the plans of all statements that a question sends."""
    sent: list[tuple[str, Any]] = []

    def keep(_c: object, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        sent.append((statement, parameters))

    event.listen(database.engine.sync_engine, "before_cursor_execute", keep)
    try:
        async with database.transaction() as session:
            await ask(session)
    finally:
        event.remove(database.engine.sync_engine, "before_cursor_execute", keep)
    nodes: list[tuple[str, str]] = []

    def walk(node: Mapping[str, Any]) -> None:
        nodes.append((node["Node Type"], node.get("Relation Name", "")))
        for inner in node.get("Plans", ()):
            walk(inner)

    for statement, parameters in sent:
        plan = await database.pool.fetchval(f"EXPLAIN (FORMAT JSON) {statement}", *parameters)
        walk(json.loads(plan)[0]["Plan"])
    assert sent
    return nodes


@pytest.fixture
async def crowd(rows: Rows) -> tuple[UUID, UUID]:
    """6,000 subscriptions, of which a thousand use the first that is returned; the second is one of them like any other."""
    product = await rows.product("Node")
    await rows.workflow("modify_node", "MODIFY", product)
    old = datetime(2000, 1, 1, tzinfo=UTC)
    rare = await rows.product("Rare")
    for number in range(3):
        await rows.subscription(rare, status="disabled", customer="rare", created_at=old + timedelta(days=number))
    others = await many(rows, product, 6000)
    hub = await rows.subscription(product, created_at=old)
    block = await rows.block(hub)
    for number, user in enumerate(others[:1000]):
        await rows.root(user, block, "hub", number)
    await rows.pool.execute("ANALYZE")
    return hub, others[3000]


async def test_no_question_reads_a_whole_table(database: Database, crowd: tuple[UUID, UUID]) -> None:
    """With default planner settings and fresh statistics: index scans only."""
    hub, ordinary = crowd

    async def ask_all(session: AsyncSession) -> None:
        for one in crowd:
            await workflows_for(session, one)
            await show(session, one)
            await read_history(session, one)
        await require_usable(session, Workflow("check", "", begin, Target.SYSTEM), hub)
        for filters in PAGES:
            await list_subscriptions(session, limit=20, **filters)
            await list_subscriptions(session, limit=20, after=ordinary, **filters)

    nodes = await plans(database, ask_all)

    assert {table for _, table in nodes} >= TABLES
    assert [node for node in nodes if "Seq Scan" in node[0] and node[1] in TABLES] == []


async def rows_read(session: AsyncSession, question: Awaitable[object]) -> int:
    """How many rows of our tables PostgreSQL has touched for a question, as it counts them itself."""
    counted = text(
        "SELECT coalesce(sum(idx_tup_fetch + seq_tup_read), 0) FROM pg_stat_xact_user_tables WHERE relname = ANY(:tables)"
    )
    before = await session.scalar(counted, {"tables": sorted(TABLES)})
    await question
    after = await session.scalar(counted, {"tables": sorted(TABLES)})
    return int(after) - int(before)


async def test_a_page_reads_hardly_more_rows_than_it_shows(database: Database, crowd: tuple[UUID, UUID]) -> None:
    """However rare what is asked for, and however often PostgreSQL has planned for what is common."""
    _, ordinary = crowd
    async with database.transaction() as session:
        for _ in range(10):
            for filters in PAGES[:4]:
                await list_subscriptions(session, limit=20, **filters)
        for filters in PAGES:
            for after in (None, ordinary):
                page = list_subscriptions(session, limit=20, after=after, **filters)
                assert await rows_read(session, page) <= 200, (filters, after)


async def test_the_facts_about_one_do_not_depend_on_how_many_use_another(
    database: Database, crowd: tuple[UUID, UUID]
) -> None:
    hub, ordinary = crowd
    async with database.transaction() as session:
        for _ in range(10):
            await read_case(session, hub)
        assert await rows_read(session, read_case(session, ordinary)) <= 50
        assert await rows_read(session, read_case(session, hub)) <= 5000
        assert len((await read_case(session, hub)).facts.unterminated_users) == 750


async def test_the_facts_cost_the_same_when_nearly_all_relations_are_about_one_block(
    database: Database, rows: Rows
) -> None:
    """Statistics then say that any block may be used by thousands; and that subscriptions are large."""
    product = await rows.product("Node")
    hub, small, large = [await rows.subscription(product) for _ in range(3)]
    used, mine = await rows.block(hub), await rows.block(small)
    blocks = [await rows.block(large) for _ in range(100)]
    await rows.root(large, mine)
    await rows.root(small, blocks[0])
    await rows.pool.execute(
        """
        WITH made AS (
            INSERT INTO subscriptions (subscription_id, product_id, customer_id, description, status, insync)
            SELECT gen_random_uuid(), $1, 'acme', '', 'active', true FROM generate_series(1, 40) RETURNING subscription_id
        ), blocks AS (
            INSERT INTO subscription_instances (subscription_instance_id, subscription_id, product_block_id)
            SELECT gen_random_uuid(), made.subscription_id, own.product_block_id
              FROM made, subscription_instances own, generate_series(1, 200) WHERE own.subscription_instance_id = $2
            RETURNING subscription_instance_id
        )
        INSERT INTO subscription_instance_relations SELECT subscription_instance_id, 'hub', 0, $2 FROM blocks
        """,
        product,
        used,
    )
    await rows.pool.execute("ANALYZE")

    async def ask(session: AsyncSession) -> None:
        await read_case(session, small)
        await read_case(session, large)
        await show(session, large)

    nodes = await plans(database, ask)
    assert [
        node for node in nodes if "Seq Scan" in node[0] and node[1] in TABLES - {"subscriptions", "subscription_roots"}
    ] == []
    async with database.transaction() as session:
        assert await rows_read(session, read_case(session, small)) <= 100
        assert await rows_read(session, read_case(session, large)) <= 600
        assert len((await read_case(session, hub)).facts.unterminated_users) == 40
