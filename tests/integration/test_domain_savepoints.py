"""Models that were saved and rolled back: by savepoints, however they are written, or with the whole transaction."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.session import Database
from orchestrator.db.step_session import StepSession
from orchestrator.domain import SubscriptionModel, explain, flat
from orchestrator.domain.diff import is_same
from tests.integration.model_bench import Bench, make_bench
from tests.unit.models import FolderBlockInactive, FolderInactive, Node

Savepoint = Callable[[AsyncSession], AbstractAsyncContextManager[object]]


class GoBackError(Exception):
    pass


@pytest.fixture
async def bench(database: Database) -> Bench:
    return await make_bench(database)


def of_the_session(session: AsyncSession) -> AbstractAsyncContextManager[object]:
    return session.begin_nested()


@asynccontextmanager
async def of_the_connection(session: AsyncSession) -> AsyncIterator[None]:
    async with (await session.connection()).begin_nested():
        yield


@asynccontextmanager
async def in_sql(session: AsyncSession) -> AsyncIterator[None]:
    await session.execute(text('/* by hand */ Savepoint "by hand"'))
    try:
        yield
    except GoBackError:
        await session.execute(text('ROLLBACK WORK TO "by hand"'))
        raise
    await session.execute(text('RELEASE SAVEPOINT "by hand"'))


SAVEPOINTS = pytest.mark.parametrize("savepoint", [of_the_session, of_the_connection, in_sql])


async def changes_explain(bench: Bench, node: SubscriptionModel) -> bool:
    return is_same(explain(await bench.changes(node.subscription_id)), flat(await bench.load(node.subscription_id)))


@SAVEPOINTS
async def test_what_a_savepoint_has_rolled_back_is_saved_by_the_next_save(bench: Bench, savepoint: Savepoint) -> None:
    key = (await bench.node()).subscription_id
    async with bench.session() as session:
        node = await Node.from_subscription(session, key)
        node.description, node.node.ims_id = "new", 8
        with pytest.raises(GoBackError):
            async with savepoint(session):
                await node.save(session)
                assert node.version == 2
                raise GoBackError
        assert (node.version, node.reference()["version"]) == (1, 1)
        await node.save(session)
        assert node.version == 2

    again = await bench.load(key)
    assert again == node
    assert (again.description, again.node.ims_id) == ("new", 8)  # type: ignore[attr-defined]
    assert await changes_explain(bench, node)


@SAVEPOINTS
async def test_a_released_savepoint_goes_with_the_one_around_it(bench: Bench, savepoint: Savepoint) -> None:
    async with bench.session() as session:
        folders = await FolderInactive.from_product_id(session, bench.products["Folder"], "customer")
        await folders.save(session)
        with pytest.raises(GoBackError):
            async with savepoint(session):
                folders.note = "in the outer one"
                await folders.save(session)
                async with savepoint(session):
                    folders.top.folders.append(FolderBlockInactive.new(folders.subscription_id, title="inner"))
                    await folders.save(session)
                assert folders.version == 3
                raise GoBackError
        assert folders.version == 1
        await folders.save(session)
        assert folders.version == 2
        async with savepoint(session):
            folders.note = "kept"
            await folders.save(session)
        assert folders.version == 3
        await folders.save(session)
        assert folders.version == 3, "nothing is different"

    assert await bench.load(folders.subscription_id) == folders
    assert await changes_explain(bench, folders)


async def test_a_savepoint_can_be_gone_back_to_twice(bench: Bench) -> None:
    node = await bench.node()
    async with bench.session() as session:
        await session.execute(text("SAVEPOINT one"))
        for note in ("first", "second"):
            node.note = note
            await node.save(session)
            await session.execute(text("SAVEPOINT two"))
            node.node.tags.append(note)
            await node.save(session)
            assert node.version == 3
            await session.execute(text("ROLLBACK TO SAVEPOINT ONE"))
            assert node.version == 1
        await session.execute(text("RELEASE one"))
        await node.save(session)
        assert node.version == 2

    assert await bench.load(node.subscription_id) == node
    assert node.node.tags == ["first", "second"]


async def test_what_was_saved_before_a_savepoint_stays_saved(bench: Bench) -> None:
    node, other = await bench.node(), await bench.node("ber")
    async with bench.session() as session:
        node.note = "before"
        await node.save(session)
        other.note = "within"
        with pytest.raises(GoBackError):
            async with session.begin_nested():
                await other.save(session)
                raise GoBackError
        assert (node.version, other.version) == (2, 1)
        with bench.statements() as sent:
            await node.save(session)
        assert sent == []

    assert (await bench.load(node.subscription_id)).note == "before"
    assert (await bench.load(other.subscription_id)).note is None


async def test_a_statement_that_fails_in_a_savepoint_takes_the_save_with_it(bench: Bench) -> None:
    node = await bench.node()
    async with bench.session() as session:
        node.note = "once more"
        with pytest.raises(IntegrityError):
            async with session.begin_nested():
                await node.save(session)
                await session.execute(text("INSERT INTO products (name, product_type) VALUES ('Link', 'T')"))
        await node.save(session)

    assert (await bench.load(node.subscription_id)).note == "once more"


async def test_a_model_whose_transaction_was_rolled_back_can_be_saved_in_another(bench: Bench) -> None:
    node = await bench.node()
    node.note = "at last"
    with pytest.raises(GoBackError):
        async with bench.session() as session:
            await node.save(session)
            raise GoBackError
    assert node.version == 1
    await bench.save(node)

    assert await bench.load(node.subscription_id) == node
    assert node.version == 2


async def test_a_step_that_goes_back_to_a_savepoint_loses_no_change(bench: Bench) -> None:
    """With the session that steps have, whose own guards look at each statement, too."""
    node = await bench.node()
    session = StepSession(bench.database.engine, bench.process_id)
    node.note = "kept"
    for savepoint in (of_the_session, of_the_connection, in_sql):
        with pytest.raises(GoBackError):
            async with savepoint(session):
                await node.save(session)
                raise GoBackError
    await node.save(session)
    driver = await session.hand_over()
    assert await session.mark_is_intact()
    await driver.execute("COMMIT")
    await session.discard()

    assert (await bench.load(node.subscription_id)).note == "kept"
    assert node.version == 2
