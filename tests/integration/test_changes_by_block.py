"""Histories that were stored by path, brought along by the migration that names blocks by their ids.

``history_by_path.json`` is what an engine of the earlier format stored: values, lists that shift, a block in two places, renames,
a block below another subscription's.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import pytest

from orchestrator.db import registration as register
from orchestrator.db.migrations import downgrade, upgrade
from orchestrator.db.session import Database
from orchestrator.db.subscriptions.change_keys import Places
from orchestrator.db.subscriptions.history import SubscriptionChange, read_history
from orchestrator.domain import explain
from tests.integration.migrating import Migration

NOWHERE = Path("there-is-none")
STORED = json.loads(Path(__file__).with_name("history_by_path.json").read_text())
CABINET, GUEST = STORED["histories"]
BOX, INNER = "00000000-0000-4000-8000-000000000002", "00000000-0000-4000-8000-000000000005"

Changes = dict[str, list[Any]]


class Entry(NamedTuple):
    version: int
    author: str
    changes: Changes
    note: str | None


def by_path(subscription: str) -> list[Entry]:
    return [Entry(*entry) for entry in STORED["histories"][subscription]]


async def read(migration: Migration, subscription: str) -> list[Entry]:
    rows = await migration.rows(
        "SELECT version, author, changes, note FROM subscription_changes WHERE subscription_id = $1 ORDER BY change_id",
        UUID(subscription),
    )
    return [Entry(version, author, json.loads(changes), note) for version, author, changes, note in rows]


async def shown(database: Database, subscription: str) -> list[SubscriptionChange]:
    async with database.transaction() as session:
        return list((await read_history(session, UUID(subscription))).other_changes)


@pytest.fixture
async def migration(database: Database) -> Migration:
    """A database of the earlier format, with two subscriptions, upgraded."""
    migration = Migration(database)
    await migration(
        lambda c: register.register_product_block(c, name="Plug", resource_types=["size"]),
        lambda c: register.register_product_block(c, name="Box", resource_types=["text"], depends_on=["Box", "Plug"]),
        lambda c: register.register_product(c, name="Cabinet S", product_type="Cabinet", product_blocks=["Box"]),
    )
    await downgrade(database.engine, NOWHERE, "0004")
    for subscription, entries in STORED["histories"].items():
        await database.pool.execute(
            "INSERT INTO subscriptions (subscription_id, product_id, customer_id, description, status, insync, version)"
            " SELECT $1, product_id, 'ACME', '', 'active', true, $2 FROM products",
            UUID(subscription),
            len(entries),
        )
        await database.pool.executemany(
            "INSERT INTO subscription_changes (subscription_id, version, author, changes, note) VALUES ($1, $2, $3, $4, $5)",
            [
                (UUID(subscription), version, author, json.dumps(changes), note)
                for version, author, changes, note in entries
            ],
        )
    await upgrade(database.engine, NOWHERE)
    return migration


async def test_what_a_history_adds_up_to_is_the_same(migration: Migration) -> None:
    for subscription in (CABINET, GUEST):
        values = explain(entry.changes for entry in await read(migration, subscription))
        assert not any("." in key and key[:36].count("-") != 4 for key in values), "each key is one of the new format"
        as_one = Places().show({key: [None, value] for key, value in values.items()})
        assert {path: new for path, (_, new) in as_one.items()} == explain(
            entry.changes for entry in by_path(subscription)
        )


async def test_changes_are_shown_as_before(migration: Migration) -> None:
    """But for the values of blocks that only moved: these have not changed."""
    before = by_path(CABINET)
    after = await shown(migration.database, CABINET)
    assert [(one.version, one.author, one.note) for one in after] == [
        (one.version, one.author, one.note) for one in before
    ]
    found = [{path: list(pair) for path, pair in one.changes.items()} for one in after]
    for version in (1, 2, 5, 6, 8, 9):
        assert found[version - 1] == before[version - 1].changes, version
    assert found[2] == {
        "box.boxes.0.plugs.2": [None, "00000000-0000-4000-8000-000000000003"],
        "box.spare.label": [None, "shared"],
    }
    assert found[6].keys() == {"box.boxes.0", "box.inside.0", "box.inside.0.boxes.0", "box.inside.0.inside.0"}

    guest = [{path: list(pair) for path, pair in one.changes.items()} for one in await shown(migration.database, GUEST)]
    assert guest[0] == by_path(GUEST)[0].changes
    assert guest[1] == {"box.spare": ["00000000-0000-4000-8000-000000000011", None]}
    assert guest[2] == by_path(GUEST)[2].changes


async def test_a_rename_appends_to_what_was_brought_along(migration: Migration) -> None:
    await _fill_tables(migration)
    before = await read(migration, CABINET)
    await migration(
        lambda c: register.rename_block_field(c, "inside", "boxes", block="Box"),
        lambda c: register.rename_resource_type(c, "text", "title"),
    )
    after = await read(migration, CABINET)
    assert after[:-2] == before
    last = "00000000-0000-4000-8000-000000000010"
    assert [entry.changes for entry in after[-2:]] == [
        {
            f"{BOX}/inside/0": [INNER, None],
            f"{BOX}/boxes/0": [None, INNER],
            f"{BOX}/inside/1": [last, None],
            f"{BOX}/boxes/1": [None, last],
            f"{INNER}/inside/0": ["00000000-0000-4000-8000-000000000006", None],
            f"{INNER}/boxes/0": [None, "00000000-0000-4000-8000-000000000006"],
        },
        {
            f"{BOX}.text": ["outer", None],
            f"{BOX}.title": [None, "outer"],
            f"{last}.text": ["last", None],
            f"{last}.title": [None, "last"],
        },
    ]
    assert (await shown(migration.database, CABINET))[-1].changes.keys() == {
        "box.text",
        "box.title",
        "box.boxes.1.text",
        "box.boxes.1.title",
    }


async def test_a_downgrade_gives_the_paths_back(migration: Migration) -> None:
    await downgrade(migration.database.engine, NOWHERE, "0004")
    for subscription in (CABINET, GUEST):
        assert await read(migration, subscription) == by_path(subscription)


async def test_an_upgrade_leaves_entries_alone_that_it_cannot_read(migration: Migration) -> None:
    odd: Changes = {"nothing.above.it": [None, 1], "status": ["active", "terminated"], "insync": [False, True]}
    await downgrade(migration.database.engine, NOWHERE, "0004")
    await migration.database.pool.execute(
        "INSERT INTO subscription_changes (subscription_id, version, author, changes) VALUES ($1, 99, 'alice', $2)",
        UUID(GUEST),
        json.dumps(odd),
    )
    await upgrade(migration.database.engine, NOWHERE)
    assert (await read(migration, GUEST))[-1].changes == odd


async def _fill_tables(migration: Migration) -> None:
    """The blocks of the cabinet, as its history says that they are."""
    pool = migration.database.pool
    values = explain(entry.changes for entry in await read(migration, CABINET))
    for block in {key[:36] for key in values if key[36:37] == "."} | {
        str(value) for key, value in values.items() if "/" in key
    }:
        held = {key[37:]: value for key, value in values.items() if key.startswith(f"{block}.") and key[37:] != "label"}
        await pool.execute(
            "INSERT INTO subscription_instances (subscription_instance_id, subscription_id, product_block_id, resources)"
            " SELECT $1, $2, product_block_id, $4 FROM product_blocks WHERE name = $3",
            UUID(block),
            UUID(CABINET),
            STORED["blocks"][block],
            json.dumps(held),
        )
    for key, value in values.items():
        holder, link, place = key.partition("/")
        if link:
            field, _, position = place.partition("/")
            table = "subscription_instance_relations" if holder else "subscription_roots"
            await pool.execute(
                f"INSERT INTO {table} VALUES ($1, $2, $3, $4)",
                UUID(holder or CABINET),
                field,
                int(position or 0),
                UUID(str(value)),
            )
