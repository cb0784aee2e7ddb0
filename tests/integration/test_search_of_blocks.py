"""Subscriptions are found by the values of their blocks, whoever has written these; on a real database."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from orchestrator.db.lists.request import read_request
from orchestrator.db.lists.subscriptions import page_subscriptions
from orchestrator.db.migrations import downgrade, upgrade
from orchestrator.db.session import Database
from orchestrator.errors import InvalidQueryError, NotFoundError
from orchestrator.services.subscriptions import search_subscriptions
from tests.integration.subscription_rows import Rows
from tests.integration.waiting import until

NOWHERE = Path("there-is-none")


@pytest.fixture
def rows(database: Database) -> Rows:
    return Rows(database.pool)


async def found(database: Database, query: str) -> set[UUID]:
    async with database.transaction() as session:
        return {row["subscription_id"] for row in (await page_subscriptions(session, read_request(query=query))).rows}


async def test_values_of_blocks_are_searched_whatever_their_kind_and_depth(database: Database, rows: Rows) -> None:
    product = await rows.product("Node")
    one, other = await rows.subscription(product), await rows.subscription(product)
    values = {
        "name": "core-AMS-1",
        "vlan": 142,
        "rate": 10.5,
        "address": "2001:db8::1",
        "contacts": [{"mail": "noc@example.org"}, ["Ève"]],
        "enabled": True,
    }
    await rows.block(one, "Node", values, label="rack seven")
    await rows.block(other, "Node", {"name": "edge-LON-2"})

    for query in (
        "core ams",
        "142",
        "10.5",
        "2001:db8::1",
        "2001:db8*",
        "noc@example.org",
        "Ève",
        '"rack seven"',
        "AMS* 142 -lon",
        "a subscription 142",
    ):
        assert await found(database, query) == {one}, query
    assert await found(database, "edge") == {other}
    for query in ("mail", "true", "enabled", "description:142", "note:142"):
        assert await found(database, query) == set(), f"{query}: names of fields, and other columns, are not meant"


async def test_what_is_found_follows_every_change_of_blocks_also_those_of_other_programs(
    database: Database, rows: Rows
) -> None:
    product = await rows.product("Node")
    one, other = await rows.subscription(product), await rows.subscription(product)
    block = await rows.block(one, "Node", {"name": "first"})
    pool = database.pool

    await pool.execute("UPDATE subscription_instances SET resources = '{\"name\": \"second\"}', label = 'blue'")
    assert (await found(database, "first"), await found(database, "second blue")) == (set(), {one})
    await pool.execute("UPDATE subscription_instances SET subscription_id = $1", other)
    assert await found(database, "second") == {other}
    async with database.transaction() as session:
        await (await session.connection()).exec_driver_sql("UPDATE subscription_instances SET label = 'undone'")
        await session.rollback()
    assert await found(database, "undone") == set()
    await pool.execute(
        "UPDATE subscriptions SET note = 'fibre', description = 'later' WHERE subscription_id = $1", other
    )
    assert await found(database, "second fibre later") == {other}
    await pool.execute("DELETE FROM subscription_instances WHERE subscription_instance_id = $1", block)
    assert await found(database, "second") == set()
    await rows.block(one, "Node", {"name": "third"})
    await pool.execute("DELETE FROM subscriptions WHERE subscription_id = $1", one)
    assert await found(database, "third") == set()


async def test_two_transactions_that_change_blocks_of_one_subscription_miss_no_word(
    database: Database, rows: Rows
) -> None:
    one = await rows.subscription(await rows.product("Node"))
    blocks = [await rows.block(one, "Node", {"name": "old"}) for _ in range(2)]
    change = "UPDATE subscription_instances SET resources = $2 WHERE subscription_instance_id = $1"

    async def is_waiting() -> bool:
        return bool(await database.pool.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"))

    async with database.pool.acquire() as first, database.pool.acquire() as second:
        begun = first.transaction()
        await begun.start()
        await first.execute(change, blocks[0], json.dumps({"name": "left"}))
        waiting = asyncio.create_task(second.execute(change, blocks[1], json.dumps({"name": "right"})))
        await until(is_waiting, "the second transaction waits for the first")
        await begun.commit()
        await waiting

    assert await found(database, "left right") == {one}
    assert await found(database, "old") == set()


async def test_a_subscription_with_more_text_than_can_be_indexed_is_stored_all_the_same(
    database: Database, rows: Rows
) -> None:
    one = await rows.subscription(await rows.product("Node"))
    await rows.block(one, "Node", {"name": "findable", "lines": [f"{n:x}𝔘é{n:x}" for n in range(300_000)]})
    await rows.block(one, "Node", {"long": "x" * 3_000_000})

    assert await found(database, "findable") == {one}


async def test_an_upgrade_fills_the_words_of_the_subscriptions_that_there_are(database: Database, rows: Rows) -> None:
    await downgrade(database.engine, NOWHERE, "0030")
    one = await rows.subscription(await rows.product("Node"))
    await rows.block(one, "Node", {"name": "from before"})

    await upgrade(database.engine, NOWHERE)

    assert await found(database, '"from before"') == {one}
    assert await database.pool.fetchval("SELECT version FROM subscriptions") == 1


async def test_search_goes_with_filters_and_pages_the_newest_first(database: Database, rows: Rows) -> None:
    node, port = await rows.product("Node"), await rows.product("Port")
    made = []
    for number in range(7):
        one = await rows.subscription(node if number % 2 else port, customer="acme" if number < 6 else "beta")
        await rows.block(one, "Port", {"name": f"ams-{number}"})
        made.append(one)

    async def search(text: str, **asked: object) -> list[int]:
        filters = {"limit": 100, **asked}
        async with database.transaction() as session:
            return [made.index(one.subscription_id) for one in await search_subscriptions(session, text, **filters)]  # type: ignore[call-overload]

    assert await search("ams*") == [6, 5, 4, 3, 2, 1, 0]
    assert await search("ams*", product="Node") == await search("ams*", product=str(node).upper()) == [5, 3, 1]
    assert await search("ams*", customer="beta", statuses=["active"], insync=True) == [6]
    assert await search("ams*", insync=False) == await search("ams*", statuses=["initial"]) == []
    pages, last = [], None
    while page := await search("ams* -ams-3", limit=2, after=None if last is None else made[last]):
        pages.append(page)
        last = page[-1]
    assert pages == [[6, 5], [4, 2], [1, 0]]
    for wrong in ({"product": "None"}, {"after": uuid4()}):
        with pytest.raises(NotFoundError):
            await search("ams", **wrong)
    with pytest.raises(InvalidQueryError):
        await search("a\0b")


async def test_few_among_many_are_found_by_the_indexes_and_not_by_reading_the_table(
    database: Database, rows: Rows
) -> None:
    product = await rows.product("Node")
    await rows.block(await rows.subscription(product), "Node")
    for number in range(4):
        await database.pool.execute(
            "WITH made AS (INSERT INTO subscriptions (subscription_id, product_id, customer_id, description, status, insync)"
            " SELECT gen_random_uuid(), $1, 'acme', 'a node', 'active', true FROM generate_series(1, 2500)"
            " RETURNING subscription_id)"
            " INSERT INTO subscription_instances (subscription_instance_id, subscription_id, product_block_id, resources)"
            " SELECT gen_random_uuid(), subscription_id, product_block_id,"
            " jsonb_build_object('name', 'ams-' || ($2::int * 2500 + row_number() OVER ())) FROM made, product_blocks",
            product,
            number,
        )
    await database.pool.execute("ANALYZE subscriptions")
    plan = "\n".join(
        row[0]
        for row in await database.pool.fetch(
            "EXPLAIN SELECT subscription_id FROM subscriptions s WHERE"
            " (s.words @@ to_tsquery('pg_catalog.simple', '''ams'' <-> ''7777''')"
            " OR s.block_words @@ to_tsquery('pg_catalog.simple', '''ams'' <-> ''7777'''))"
        )
    )
    assert "ix_subscriptions_words" in plan, plan
    assert "ix_subscriptions_block_words" in plan, plan
    assert len(await found(database, "ams-7777")) == 1
