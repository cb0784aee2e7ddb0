"""The history of a subscription on a real database, page by page; and finding what somebody means by the beginning of an id."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from orchestrator.db.lookup import find_process, find_subscription
from orchestrator.db.session import Database
from orchestrator.db.subscriptions.history import ProcessHistory
from orchestrator.errors import ConflictError, InvalidInputError, NotFoundError
from orchestrator.services.subscriptions import read_history
from tests.integration.subscription_rows import Rows


@pytest.fixture
def rows(database: Database) -> Rows:
    return Rows(database.pool)


async def test_the_history_tells_of_every_process_step_and_change(database: Database, rows: Rows) -> None:
    """B1."""
    product = await rows.product("Node")
    await rows.workflow("modify_node", "MODIFY", product)
    node, another = [await rows.subscription(product) for _ in range(2)]
    workflow = await rows.workflow("create_it", "MODIFY")
    made = await rows.process(workflow, "completed", node, another, started_by="alice")
    changed = await rows.process(workflow, "failed", node, started_by="bob")
    await rows.process(workflow, "completed", another)
    await rows.entry(made, 1, "Make", delta={"vlan": 7}, attempt=1)
    await rows.entry(changed, 1, "Change", "failed", failure={"type": "ValueError", "message": "no"}, attempt=1)
    await rows.entry(changed, 2, "Change", attempt=2)
    await rows.change(node, 1, {"status": [None, "active"]}, process=made, step="Make")
    await rows.change(another, 1, {"status": [None, "initial"]}, process=made, step="Make")
    await rows.change(node, 2, {"node.ims_id": [None, 7]}, process=changed, step="Change", attempt=2)
    await rows.change(node, 2, {"note": [None, "x"]}, process=uuid4(), step="Gone")

    async with database.transaction() as session:
        found = await read_history(session, node)

    first, second = found.processes
    assert (first.process.process_id, first.process.started_by, first.process.status) == (made, "alice", "completed")
    assert [(entry.name, entry.status, entry.author, entry.delta) for entry in first.log] == [
        ("Make", "success", "alice", {"vlan": 7})
    ]
    assert [(one.version, dict(one.changes)) for one in first.changes] == [(1, {"status": (None, "active")})]
    assert [(entry.sequence, entry.status, entry.failure) for entry in second.log] == [
        (1, "failed", {"type": "ValueError", "message": "no"}),
        (2, "success", None),
    ]
    (change,) = second.changes
    assert (change.step, change.attempt, change.author) == ("Change", 2, "alice")
    (gone,) = found.other_changes
    assert (gone.step, dict(gone.changes)) == ("Gone", {"note": (None, "x")})


async def test_pages_of_a_history_together_are_all_of_it_and_each_once(database: Database, rows: Rows) -> None:
    """Also when processes and changes are of the same moment; and changes of deleted processes are others."""
    chance = random.Random(7)
    product = await rows.product("Node")
    node, another = [await rows.subscription(product) for _ in range(2)]
    workflow = await rows.workflow("change_it", "MODIFY")
    start = datetime(2030, 1, 1, tzinfo=UTC)
    expected: list[tuple[datetime, bool, int]] = []
    for _ in range(20):
        process = await rows.process(workflow, "completed", node)
        moment = start + timedelta(seconds=chance.randint(0, 4))
        await rows.pool.execute("UPDATE processes SET started_at = $1 WHERE process_id = $2", moment, process)
        await rows.entry(process, 1, "Change")
        await rows.change(node, 2, {"note": [None, "x"]}, process=process, step="Change")
        await rows.change(another, 2, {"note": [None, "y"]}, process=process, step="Change")
        expected.append((moment, False, process.int))
    for number in range(20):
        await rows.change(another, 3, {"note": ["x", "z"]})
        moment = start + timedelta(seconds=number % 5)
        change = await rows.pool.fetchval(
            "INSERT INTO subscription_changes (subscription_id, version, process_id, author, changes, at)"
            " VALUES ($1, 3, $2, 'alice', '{}', $3) RETURNING change_id",
            node,
            chance.choice([None, uuid4()]),
            moment,
        )
        expected.append((moment, True, change))

    async with database.transaction() as session:
        for size in (1, 7, 40, 100):
            told: list[tuple[datetime, bool, int]] = []
            before: UUID | int | None = None
            while True:
                page = await read_history(session, node, limit=size, before=before)
                timeline = [
                    (one.process.started_at, False, one.process.process_id.int)
                    if isinstance(one, ProcessHistory)
                    else (one.at, True, one.change_id)
                    for one in page.timeline()
                ]
                assert len(timeline) <= size
                assert all((len(one.log), len(one.changes)) == (1, 1) for one in page.processes)
                told = timeline + told
                before = page.before
                if before is None:
                    break
            assert told == sorted(expected), size
        for nothing in (uuid4(), 10**12):
            with pytest.raises(NotFoundError, match="is no part of the history"):
                await read_history(session, another, before=nothing)
        with pytest.raises(NotFoundError, match="is no part of the history"):
            await read_history(session, another, before=expected[-1][2])


async def test_a_page_of_a_long_history_is_as_short_as_any(database: Database, rows: Rows) -> None:
    """10,000 changes: what is read is the page."""
    node = await rows.subscription(await rows.product("Node"))
    await rows.pool.execute(
        "INSERT INTO subscription_changes (subscription_id, version, author, changes)"
        " SELECT $1, n, 'alice', jsonb_build_object('note', jsonb_build_array(n - 1, n)) FROM generate_series(1, 10000) n",
        node,
    )
    async with database.transaction() as session:
        page = await read_history(session, node)
        assert [one.version for one in page.other_changes] == list(range(9971, 10001))
        earlier = await read_history(session, node, before=page.before)
        assert [one.version for one in earlier.other_changes] == list(range(9941, 9971))


@pytest.mark.parametrize("kind", ["process", "subscription"])
async def test_an_id_is_found_by_its_beginning_if_only_one_begins_so(database: Database, rows: Rows, kind: str) -> None:
    product, workflow = await rows.product("Node"), await rows.workflow("any", "MODIFY")
    ids = [UUID(f"0000000{number}-0000-4000-8000-00000000000{number}") for number in (1, 2)]
    twin = UUID("00000002-0000-4000-8000-000000000003")
    for one in (*ids, twin):
        await rows.subscription(product, subscription_id=one)
        made = await rows.process(workflow, "completed")
        await rows.pool.execute("UPDATE processes SET process_id = $1 WHERE process_id = $2", one, made)
    find = find_process if kind == "process" else find_subscription

    async with database.transaction() as session:
        for written in ("00000001", " 00000001-0 ", str(ids[0]).upper(), ids[0].hex):
            assert await find(session, written) == ids[0]
        assert await find(session, str(twin)) == twin
        with pytest.raises(ConflictError, match=rf"several {kind}e?s+ begin with 00000002: {ids[1]}, {twin}…"):
            await find(session, "00000002")
        with pytest.raises(NotFoundError, match=f"there is no {kind} ffffffff"):
            await find(session, "ffffffff")
        with pytest.raises(InvalidInputError, match=f"too short: give at least 8 characters of the {kind}'s id"):
            await find(session, "0000000")
        for nonsense in ("", "not-an-id", "0" * 33):
            with pytest.raises(InvalidInputError, match=f"is not the id of a {kind}"):
                await find(session, nonsense)
