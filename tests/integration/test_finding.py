"""Authors find subscriptions by product type and values, the blocks that use others, and read a product's fixed inputs."""

from __future__ import annotations

from enum import StrEnum
from uuid import UUID, uuid4

import pytest

from orchestrator.db.session import Database
from orchestrator.errors import InvalidInputError, NotFoundError
from orchestrator.services.products import Product, get_product_by_id, get_product_by_name
from orchestrator.services.subscriptions import find_blocks_using, find_subscriptions
from tests.integration.migrating import subscribe, with_products


class Mode(StrEnum):
    TAGGED = "tagged"


async def status(database: Database, subscription: UUID, word: str) -> None:
    await database.pool.execute("UPDATE subscriptions SET status = $2 WHERE subscription_id = $1", subscription, word)


async def use(database: Database, user: UUID, used: UUID) -> None:
    await database.pool.execute(
        "INSERT INTO subscription_instance_relations (in_use_by_id, field, position, depends_on_id)"
        " VALUES ($1, 'port', 0, $2)",
        user,
        used,
    )


async def test_subscriptions_are_found_by_product_type_block_and_values(database: Database) -> None:
    migration = await with_products(database)
    tagged, _ = await subscribe(migration, "Node P", {"Node": {"mode": "tagged", "ports": 8, "name": "ams1"}})
    plain, _ = await subscribe(migration, "Node PE", {"Node": {"mode": "plain", "ports": 8}, "Port": {"vlan": 3}})
    link, _ = await subscribe(migration, "Link", {"Port": {"vlan": 3}})
    ended, _ = await subscribe(migration, "Node P", {"Node": {"mode": "tagged"}})
    await status(database, ended, "terminated")

    async with database.transaction() as session:
        by_type = await find_subscriptions(session, "Node")
        by_value = await find_subscriptions(session, "Node", values={"mode": Mode.TAGGED})
        by_two = await find_subscriptions(session, "Node", values={"mode": "plain", "vlan": 3})
        by_block = await find_subscriptions(session, block="Port", values={"vlan": 3})
        all_of_them = await find_subscriptions(
            session, "Node", values={"mode": "tagged"}, statuses=["active", "terminated"]
        )
        assert await find_subscriptions(session, "Node", values={"ports": "8"}) == [], "a text is no number"
        with pytest.raises(InvalidInputError, match="needs a product_type or a block"):
            await find_subscriptions(session, values={"vlan": 3})
        with pytest.raises(InvalidInputError, match="there is no status 'asleep'"):
            await find_subscriptions(session, "Node", statuses=["asleep"])

    assert [one.subscription_id for one in by_type] == [plain, tagged], "newest first"
    assert [(one.subscription_id, one.product, one.status) for one in by_value] == [(tagged, "Node P", "active")]
    assert by_two == [], "one block must have all of them"
    assert {one.subscription_id for one in by_block} == {plain, link}
    assert {one.subscription_id for one in all_of_them} == {tagged, ended}


async def test_the_blocks_that_use_a_block_come_with_their_values(database: Database) -> None:
    migration = await with_products(database)
    port, (port_block,) = await subscribe(migration, "Link", {"Port": {"speed": 1000}})
    users = [await subscribe(migration, "Node P", {"Node": {"vlan": vlan}}) for vlan in (10, 20, 30)]
    for _, (block,) in users:
        await use(database, block, port_block)
    await status(database, users[2][0], "terminated")

    async with database.transaction() as session:
        by_subscription = await find_blocks_using(session, str(port))
        by_block = await find_blocks_using(session, port_block, block="Node")
        ended = await find_blocks_using(session, port, statuses=["terminated"])
        assert await find_blocks_using(session, port, block="Port") == []
        assert await find_blocks_using(session, uuid4()) == []
        with pytest.raises(InvalidInputError, match="'ams1' is not the id"):
            await find_blocks_using(session, "ams1")

    assert sorted(str(one.values["vlan"]) for one in by_subscription) == ["10", "20"]
    assert by_block == by_subscription
    assert [(one.values, one.status, one.owner_subscription_id) for one in ended] == [
        ({"vlan": 30}, "terminated", users[2][0])
    ]


async def test_a_product_is_read_with_its_fixed_inputs(database: Database) -> None:
    await with_products(database)
    async with database.transaction() as session:
        product = await get_product_by_name(session, "Node P")
        assert await get_product_by_id(session, str(product.product_id)) == product
        with pytest.raises(NotFoundError, match="there is no product 'Node X'"):
            await get_product_by_name(session, "Node X")
        with pytest.raises(NotFoundError, match="there is no product"):
            await get_product_by_id(session, uuid4())

    assert product == Product(
        product.product_id,
        "Node P",
        "A provider's router",
        "Node",
        "NODE",
        "active",
        {"role": "P", "ports": "8", "managed": "True"},
    )
    assert product.fixed_input_value("role") == "P"
    with pytest.raises(NotFoundError, match=r"'Node P' has no fixed input 'speed' \(it has: managed, ports, role\)"):
        product.fixed_input_value("speed")
