"""Fields in which blocks stand, renamed and emptied by migrations: B1, B23.

The code changes in between, as it does between two releases: the same classes are defined once more.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from itertools import chain
from types import ModuleType
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db import registration as register
from orchestrator.db.session import PROCESS_ID, Database
from orchestrator.db.subscriptions.history import ProcessHistory, read_history
from orchestrator.domain import explain, flat
from orchestrator.errors import ModelError
from tests.integration.migrating import Migration

Call = Callable[[Connection], Any]

MODELS = """
from orchestrator.domain import SUBSCRIPTION_MODEL_REGISTRY, ProductBlockModel, SubscriptionModel


class PlugBlock(ProductBlockModel, product_block_name="Plug"):
    size: int | None = None


class BoxBlock(ProductBlockModel, product_block_name="Box"):
    title: str | None = None
    boxes: list["BoxBlock"]
    plugs: list[PlugBlock]
    spare: PlugBlock | None = None


class Cabinet(SubscriptionModel, is_base=True):
    box: BoxBlock
    extra: list[BoxBlock]


SUBSCRIPTION_MODEL_REGISTRY.update({"Cabinet S": Cabinet, "Cabinet L": Cabinet})
"""
PRODUCTS = ["Cabinet S", "Cabinet L"]


def code(*changes: tuple[str, str]) -> Any:
    """The models, as they are after changes of their text."""
    source = MODELS
    for old, new in changes:
        assert old in source
        source = source.replace(old, new)
    module = ModuleType("models_of_cabinets")
    # Where pydantic looks for what the annotations name.
    sys.modules[module.__name__] = module
    exec(source, module.__dict__)  # noqa: S102 - our own text
    return module


@dataclass
class Shelf:
    """A database with the products, and sessions as the steps of a process have them."""

    migration: Migration
    session: Callable[[], AbstractAsyncContextManager[AsyncSession]]

    async def product(self, name: str = "Cabinet S") -> UUID:
        ((found,),) = await self.migration.rows("SELECT product_id FROM products WHERE name = $1", name)
        return UUID(str(found))

    async def load(self, model: Any, subscription: UUID) -> Any:
        async with self.session() as session:
            return await model.from_subscription(session, subscription)

    async def told(self, subscription: UUID) -> dict[str, Any]:
        history = await self.migration.rows(
            "SELECT changes FROM subscription_changes WHERE subscription_id = $1 ORDER BY change_id", subscription
        )
        return explain(json.loads(changes) for (changes,) in history)

    async def shown(self, subscription: UUID) -> list[tuple[int, set[str]]]:
        """The paths of each change but the first, as people see them."""
        async with self.session() as session:
            changes = (await read_history(session, subscription)).timeline()
        found = [*chain(*(one.changes if isinstance(one, ProcessHistory) else [one] for one in changes))]
        return [(one.version, set(one.changes)) for one in sorted(found, key=lambda one: one.version)][1:]

    async def last_note(self, subscription: UUID) -> tuple[Any, ...]:
        *_, last = await self.migration.rows(
            "SELECT version, author, note FROM subscription_changes WHERE subscription_id = $1 ORDER BY change_id",
            subscription,
        )
        return last

    async def is_explained(self, model: Any, subscription: UUID) -> Any:
        """The subscription, loaded; its history adds up to all that it is."""
        found = await self.load(model, subscription)
        assert await self.told(subscription) == flat(found)
        return found

    async def blocks(self) -> set[UUID]:
        return {
            UUID(str(one))
            for (one,) in await self.migration.rows("SELECT subscription_instance_id FROM subscription_instances")
        }


@pytest.fixture
async def shelf(database: Database) -> Shelf:
    migration, process = Migration(database), uuid4()
    await migration(
        lambda c: register.register_product_block(c, name="Plug", resource_types=["size"]),
        lambda c: register.register_product_block(c, name="Box", resource_types=["title"], depends_on=["Box", "Plug"]),
        *(
            lambda c, name=name: register.register_product(c, name=name, product_type="Cabinet", product_blocks=["Box"])
            for name in PRODUCTS
        ),
    )
    await database.pool.execute(
        "INSERT INTO processes (process_id, workflow_id, workflow, is_task, status, position, entered, attempt, sequence,"
        " failures, lost, rewinds, state, started_by, actor) SELECT $1, workflow_id, name, false, 'running', 0, true, 1, 1, 0,"
        " 0, 0, '{}', 'alice', 'alice' FROM workflows WHERE name = 'modify_note'",
        process,
    )

    @asynccontextmanager
    async def session_of() -> AsyncIterator[AsyncSession]:
        async with database.transaction() as session:
            session.info[PROCESS_ID] = process
            yield session

    return Shelf(migration, session_of)


async def cabinet(shelf: Shelf, models: Any, product: str = "Cabinet S") -> Any:
    """A cabinet with a box, in which there are a plug and another box, in which there are two plugs and an empty box."""
    async with shelf.session() as session:
        made = await models.Cabinet.from_product_id(session, await shelf.product(product), "ACME")
        own = made.subscription_id
        inner = models.BoxBlock.new(own, title="inner", plugs=[models.PlugBlock.new(own, size=n) for n in (1, 2)])
        inner.boxes.append(models.BoxBlock.new(own))
        made.box.title = "outer"
        made.box.boxes.append(inner)
        made.box.spare = models.PlugBlock.new(own, size=9)
        await made.save(session)
    return made


RENAMED = ("boxes: list", "inside: list")


async def test_what_stands_in_a_field_moves_along_with_its_new_name(shelf: Shelf) -> None:
    """Also where blocks of the kind stand within each other, and for every path of the history below."""
    made = await cabinet(shelf, code())
    before = flat(made)

    models = code(RENAMED)
    with pytest.raises(ModelError, match="boxes: 1 blocks are stored, but BoxBlock has no such field"):
        await shelf.load(models.Cabinet, made.subscription_id)
    await shelf.migration(lambda c: register.rename_block_field(c, "boxes", "inside", block="Box"))

    found = await shelf.is_explained(models.Cabinet, made.subscription_id)
    assert flat(found) == {path.replace("boxes", "inside"): value for path, value in before.items()}
    assert found.box.inside[0].plugs[1].size == 2
    assert found.version == 2
    assert await shelf.last_note(made.subscription_id) == (
        2,
        "migration",
        "a migration has renamed the field boxes of Box to inside",
    )
    async with shelf.session() as session:
        assert await found.save(session) is None
        found.box.inside[0].inside[0].title = "new"
        await found.save(session)
    await shelf.is_explained(models.Cabinet, made.subscription_id)

    await shelf.migration(lambda c: register.rename_block_field(c, "inside", "boxes", block="Box"))
    again = await shelf.is_explained(code().Cabinet, made.subscription_id)
    innermost = again.box.boxes[0].boxes[0].subscription_instance_id
    assert flat(again) == {**before, f"{innermost}.title": "new"}
    assert await shelf.shown(made.subscription_id) == [
        (2, {"box.boxes.0", "box.inside.0", "box.inside.0.boxes.0", "box.inside.0.inside.0"}),
        (3, {"box.inside.0.inside.0.title"}),
        (4, {"box.inside.0", "box.boxes.0", "box.boxes.0.inside.0", "box.boxes.0.boxes.0"}),
    ]


async def test_a_field_of_the_subscription_itself_is_renamed_for_the_products_that_are_named(shelf: Shelf) -> None:
    old = code()
    small, large = await cabinet(shelf, old), await cabinet(shelf, old, "Cabinet L")

    await shelf.migration(lambda c: register.rename_block_field(c, "box", "main", products=["Cabinet S"]))

    assert (await shelf.is_explained(code().Cabinet, large.subscription_id)).box.title == "outer"
    models = code(("box: BoxBlock", "main: BoxBlock"))
    assert (await shelf.is_explained(models.Cabinet, small.subscription_id)).main.boxes[0].title == "inner"
    assert [large.version, (await shelf.last_note(large.subscription_id))[0]] == [1, 1]


async def test_one_block_becomes_a_list_and_a_list_one_block(shelf: Shelf) -> None:
    """Rows do not tell the two apart, paths of the history do."""
    made = await cabinet(shelf, code())
    models = code(
        ("spare: PlugBlock | None = None", "spares: list[PlugBlock]"),
        ('boxes: list["BoxBlock"]', 'boxes: "BoxBlock | None" = None'),
    )
    await shelf.migration(
        lambda c: register.rename_block_field(c, "spare", "spares", block="Box", many=True),
        lambda c: register.rename_block_field(c, "boxes", "boxes", block="Box", many=False),
    )
    found = await shelf.is_explained(models.Cabinet, made.subscription_id)
    assert [plug.size for plug in found.box.spares] == [9]
    assert found.box.boxes.boxes.title is None
    assert await shelf.migration.refused(
        lambda c: register.rename_block_field(c, "plugs", "plug", block="Box", many=False)
    ) == (
        "the field 'plugs' of Box cannot hold one block: there are several in it (1); take the others out first, with a workflow"
    )


async def test_a_field_is_emptied_only_when_that_is_said(shelf: Shelf) -> None:
    made = await cabinet(shelf, code())
    told = await shelf.migration.refused(lambda c: register.drop_block_field(c, "boxes", block="Box"))
    assert told == (
        "subscriptions have blocks in the field 'boxes' of Box (2): values='drop' deletes these, for good; if it only got another"
        " name, use rename_block_field"
    )
    await shelf.migration(lambda c: register.drop_block_field(c, "boxes", block="Box", values="drop"))

    models = code(('    boxes: list["BoxBlock"]\n', ""))
    found = await shelf.is_explained(models.Cabinet, made.subscription_id)
    assert await shelf.blocks() == {found.box.subscription_instance_id, found.box.spare.subscription_instance_id}
    assert found.version == 2
    assert (await shelf.last_note(made.subscription_id))[2] == "a migration has dropped the field boxes of Box"
    # Nothing stands there now.
    await shelf.migration(lambda c: register.drop_block_field(c, "boxes", block="Box"))
    assert (await shelf.load(models.Cabinet, made.subscription_id)).version == 2


async def test_a_field_of_the_subscription_itself_is_emptied(shelf: Shelf) -> None:
    models = code()
    made, other = await cabinet(shelf, models), await cabinet(shelf, models, "Cabinet L")
    async with shelf.session() as session:
        made.extra.append(models.BoxBlock.new(made.subscription_id, title="extra"))
        made.extra.append(other.box)
        await made.save(session)
    await shelf.migration(lambda c: register.drop_block_field(c, "extra", products=PRODUCTS, values="drop"))
    found = await shelf.is_explained(models.Cabinet, made.subscription_id)
    assert found.extra == []
    assert (await shelf.is_explained(models.Cabinet, other.subscription_id)).version == 1


async def test_what_stands_elsewhere_as_well_is_not_deleted(shelf: Shelf) -> None:
    """Its values move to the other place in the history."""
    models = code()
    made = await cabinet(shelf, models)
    async with shelf.session() as session:
        inner = made.box.boxes[0]
        inner.plugs.append(made.box.spare)
        inner.boxes[0].spare = inner.plugs[0]
        made.extra.append(inner.boxes[0])
        await made.save(session)
    await shelf.migration(lambda c: register.drop_block_field(c, "boxes", block="Box", values="drop"))
    left = code(('    boxes: list["BoxBlock"]\n', ""))
    found = await shelf.is_explained(left.Cabinet, made.subscription_id)
    assert found.extra[0].spare.size == 1
    assert found.box.spare.size == 9
    assert len(await shelf.blocks()) == 4


async def test_what_another_subscription_uses_is_not_deleted(shelf: Shelf) -> None:
    """Unless it is terminated: then what it shows is kept for it, and is nobody else's."""
    models = code()
    made, user = await cabinet(shelf, models), await cabinet(shelf, models)
    async with shelf.session() as session:
        user.extra.append(made.box.boxes[0])
        await user.save(session)
    drop: Call = lambda c: register.drop_block_field(c, "boxes", block="Box", values="drop")  # noqa: E731
    assert await shelf.migration.refused(drop) == (
        f"the block {made.box.boxes[0].subscription_instance_id} of the subscription {made.subscription_id} would be deleted, but"
        f" the subscription {user.subscription_id} uses it: a workflow must change that first"
    )
    async with shelf.session() as session:
        await models.Cabinet.from_other_lifecycle(user, "terminated").save(session)
    await shelf.migration(drop)

    left = code(('    boxes: list["BoxBlock"]\n', ""))
    await shelf.is_explained(left.Cabinet, made.subscription_id)
    shown = await shelf.is_explained(left.Cabinet, user.subscription_id)
    assert [plug.size for plug in shown.extra[0].plugs] == [1, 2]

    # Its old owner's history does not speak of it any more, whatever becomes of it.
    await shelf.migration(
        lambda c: register.rename_resource_type(c, "title", "text"),
        lambda c: register.fill_values(c, "Box", {"text": "x"}),
    )
    named = code(('    boxes: list["BoxBlock"]\n', ""), ("title: str", "text: str"))
    assert (await shelf.is_explained(named.Cabinet, made.subscription_id)).box.text == "outer"
    assert (await shelf.is_explained(named.Cabinet, user.subscription_id)).extra[0].text == "inner"


async def test_a_block_that_only_another_subscriptions_block_held_is_deleted_with_its_place(shelf: Shelf) -> None:
    models = code()
    host = await cabinet(shelf, models)
    guest = await cabinet(shelf, models)
    async with shelf.session() as session:
        guest.extra.append(host.box.boxes[0])
        await guest.save(session)
        held = models.PlugBlock.new(guest.subscription_id, size=77)
        guest.box.spare = held
        await guest.save(session)
        host.box.boxes[0].spare = held
        await host.save(session)
    async with shelf.session() as session:
        guest = await models.Cabinet.from_subscription(session, guest.subscription_id)
        guest.box.spare = None
        await guest.save(session)
    assert f"{held.subscription_instance_id}.size" in await shelf.told(guest.subscription_id)
    await shelf.migration(lambda c: register.drop_block_field(c, "spare", block="Box", values="drop"))
    left = code(("    spare: PlugBlock | None = None\n", ""))
    for one in (host, guest):
        await shelf.is_explained(left.Cabinet, one.subscription_id)
    assert held.subscription_instance_id not in await shelf.blocks()


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (
            lambda c: register.rename_block_field(c, "boxes", "plugs", block="Box"),
            "Box has blocks in its field 'plugs' already (1)",
        ),
        (
            lambda c: register.rename_block_field(c, "boxes", "boxes", block="Box"),
            "the field 'boxes' has that name already",
        ),
        (
            lambda c: register.rename_block_field(c, "boxes", "x", block="Bax"),
            "the database has no product block 'Bax'",
        ),
        (lambda c: register.rename_block_field(c, "box", "x", products=["Bax"]), "the database has no product 'Bax'"),
        (lambda c: register.rename_block_field(c, "box", "x", products=[]), "either of a product block, block=..."),
        (
            lambda c: register.rename_block_field(c, "box", "x"),
            "either of a product block, block=..., or of subscriptions",
        ),
        (lambda c: register.rename_block_field(c, "box", " ", block="Box"), "a field needs a name"),
        (lambda c: register.drop_block_field(c, "", block="Box"), "a field needs a name"),
        (lambda c: register.drop_block_field(c, "x", block="Box", products=PRODUCTS), "either of a product block"),
        (
            lambda c: register.drop_block_field(c, "boxes", block="Box", values="keep"),  # type: ignore[arg-type]
            "values is 'refuse' or 'drop'",
        ),
    ],
)
async def test_what_cannot_be_is_refused_with_a_reason_and_changes_nothing(shelf: Shelf, call: Call, told: str) -> None:
    models = code()
    made = await cabinet(shelf, models)
    assert told in await shelf.migration.refused(call)
    assert (await shelf.is_explained(models.Cabinet, made.subscription_id)).version == 1
