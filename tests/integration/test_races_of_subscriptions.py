"""What happens to two subscriptions, or to one, at the same instant is decided by the database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.session import PASSES_LOCKS, PROCESS_ID, Database
from orchestrator.db.subscriptions import locks
from orchestrator.domain import SubscriptionModel
from orchestrator.errors import ConcurrentChangeError, ModelError, SubscriptionLockedError, WorkflowNotUsableError
from orchestrator.services.locking import lock_subscriptions
from orchestrator.services.subscriptions import WF_USABLE_WHILE_OUT_OF_SYNC, read_history
from orchestrator.targets import Target
from orchestrator.workflow import Workflow, begin
from tests.integration.model_bench import Bench, make_bench
from tests.integration.subscription_rows import Rows
from tests.unit.models import FolderBlockInactive, FolderInactive

MODIFY = Workflow("modify_node", "modify_node", begin, Target.MODIFY)
TERMINATE = Workflow("terminate_node", "terminate_node", begin, Target.TERMINATE)


@pytest.fixture(autouse=True)
def _list_as_before() -> Iterator[None]:
    before = list(WF_USABLE_WHILE_OUT_OF_SYNC)
    yield
    WF_USABLE_WHILE_OUT_OF_SYNC[:] = before


@pytest.fixture
async def bench(database: Database) -> Bench:
    return await make_bench(database)


class World:
    """Subscriptions, relations between them, and processes that lock them."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.rows = Rows(database.pool)
        self.processes: list[UUID] = []
        self.subscriptions: list[UUID] = []

    async def fill(self, subscriptions: int) -> None:
        product, workflow = await self.rows.product("Node"), await self.rows.workflow("modify_node", "MODIFY")
        self.subscriptions = sorted([await self.rows.subscription(product) for _ in range(subscriptions)])
        self.processes = [await self.rows.process(workflow, "running") for _ in range(2)]

    async def use(self, user: int, used: int) -> None:
        """Let one subscription use a block of another."""
        block = await self.rows.block(self.subscriptions[used])
        await self.rows.root(self.subscriptions[user], block, f"port_{used}")

    async def lock(self, session: AsyncSession, process: int, *which: int, workflow: Workflow = MODIFY) -> None:
        subject, *others = [self.subscriptions[one] for one in which]
        await lock_subscriptions(session, workflow, self.processes[process], subject, others)

    async def lock_at_once(self, process: int, *which: int, workflow: Workflow = MODIFY) -> None:
        async with self.database.transaction() as session:
            await self.lock(session, process, *which, workflow=workflow)

    async def held(self, process: int) -> list[int]:
        async with self.database.transaction() as session:
            held = await locks.list_locked(session, self.processes[process])
        return [self.subscriptions.index(one) for one in held]


@pytest.fixture
async def world(database: Database) -> World:
    made = World(database)
    await made.fill(4)
    return made


async def while_it_waits(database: Database, first: Any, second: Any) -> None:
    """Run a transaction while another one is open, until it waits for that or has ended; then commit the other."""
    async with first() as _:
        waiting = asyncio.create_task(second())
        async with asyncio.timeout(60):
            while not (waiting.done() or await is_waiting(database)):  # noqa: ASYNC110 - nothing signals it
                await asyncio.sleep(0.01)
    await waiting


async def is_waiting(database: Database) -> bool:
    return bool(
        await database.pool.fetchval(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')"
        )
    )


async def test_of_two_neighbours_locked_at_the_same_instant_one_is_refused(world: World) -> None:
    """Both were accepted at their starts; the one that comes second must not run beside the first."""
    for user, used in ((0, 1), (3, 2)):
        await world.use(user, used)

        @asynccontextmanager
        async def first(one: int = user) -> AsyncIterator[None]:
            async with world.database.transaction() as session:
                await world.lock(session, 0, one)
                yield

        async def second(one: int = used) -> None:
            await world.lock_at_once(1, one)

        with pytest.raises(SubscriptionLockedError, match="related subscriptions are out of sync"):
            await while_it_waits(world.database, first, second)
        assert await world.held(1) == []
    assert await world.held(0) == [0, 3]


async def test_many_that_want_neighbours_at_once_never_run_beside_each_other(world: World) -> None:
    """A chain of four: whoever gets locks, no two neighbours are held by different processes, and nobody is left waiting."""
    for number in range(3):
        await world.use(number, number + 1)
    workflow = await world.rows.workflow("other", "MODIFY")
    world.processes = [await world.rows.process(workflow, "running") for _ in range(12)]

    outcomes = await asyncio.gather(
        *(world.lock_at_once(number, number % 4) for number in range(12)), return_exceptions=True
    )

    assert {type(one) for one in outcomes} <= {type(None), SubscriptionLockedError}
    held = [one for number in range(12) for one in await world.held(number)]
    assert held, "somebody has got a lock"
    assert all(one + 1 not in held for one in held)


async def test_two_that_lock_crosswise_do_not_keep_each_other_out_for_ever(world: World) -> None:
    """One has both, the other has none, and gets both when the first is through."""
    outcomes = await asyncio.gather(world.lock_at_once(0, 1, 2), world.lock_at_once(1, 2, 1), return_exceptions=True)

    assert sorted(type(one).__name__ for one in outcomes) == ["NoneType", "SubscriptionLockedError"]
    winner = outcomes.index(None)
    assert (await world.held(winner), await world.held(1 - winner)) == ([1, 2], [])
    async with world.database.transaction() as session:
        released = await locks.release_locks(session, world.processes[winner])
    assert set(released) == {world.subscriptions[1], world.subscriptions[2]}
    await world.lock_at_once(1 - winner, 1, 2)
    assert await world.held(1 - winner) == [1, 2]


async def test_all_are_locked_or_none(world: World) -> None:
    await world.lock_at_once(1, 3)
    with pytest.raises(SubscriptionLockedError, match=f"{world.subscriptions[3]} cannot be locked: the process"):
        await world.lock_at_once(0, 0, 1, 3)
    assert await world.held(0) == []


async def test_what_a_process_holds_itself_is_no_neighbour_in_its_way(world: World) -> None:
    await world.use(0, 1)
    await world.lock_at_once(0, 0, 1)
    await world.lock_at_once(0, 0, 1)
    assert await world.held(0) == [0, 1]


async def test_only_the_subject_must_be_unused_and_in_the_right_lifecycle(world: World) -> None:
    await world.use(1, 0)
    with pytest.raises(WorkflowNotUsableError, match="use it"):
        await world.lock_at_once(0, 0, workflow=TERMINATE)
    await world.lock_at_once(0, 2, 0, workflow=TERMINATE)
    assert await world.held(0) == [0, 2]


async def test_what_may_run_out_of_sync_locks_beside_a_neighbours_holder(world: World) -> None:
    await world.use(0, 1)
    await world.lock_at_once(0, 0)
    WF_USABLE_WHILE_OUT_OF_SYNC.append("modify_node")
    await world.lock_at_once(1, 0, 1)
    assert (await world.held(0), await world.held(1)) == ([0], [1])


async def put(bench: Bench, upper: FolderInactive, lower: FolderInactive) -> None:
    upper.top.folders.append(lower.top)
    await bench.save(upper)


async def test_two_transactions_do_not_close_a_circle_over_relations_that_exist(bench: Bench) -> None:
    """Each adds a relation that is fine by itself, and the two share no subscription that either saves."""
    a, b, c, d = [await bench.folders() for _ in range(4)]
    await put(bench, b, c)
    await put(bench, d, a)
    a.top.folders.append(b.top)
    late = await bench.load(c.subscription_id)
    assert isinstance(late, FolderInactive)
    late.top.folders.append((await bench.load(d.subscription_id)).top)  # type: ignore[attr-defined]

    @asynccontextmanager
    async def first() -> AsyncIterator[None]:
        async with bench.session() as session:
            await a.save(session)
            yield

    with pytest.raises(ModelError, match=f"the block {c.top.subscription_instance_id} would contain itself"):
        await while_it_waits(bench.database, first, lambda: bench.save(late))
    for one in (a, b, c, d):
        assert isinstance(await bench.load(one.subscription_id), FolderInactive)


async def test_a_circle_by_way_of_ones_own_blocks_is_not_closed_either(bench: Bench) -> None:
    one, other = await bench.folders(2), await bench.folders()
    upper, lower = one.top.folders
    lower.folders.append(other.top)
    await bench.save(one)
    stale = await bench.load(other.subscription_id)
    assert isinstance(stale, FolderInactive)
    seen = await bench.load(one.subscription_id)
    assert isinstance(seen, FolderInactive)
    stale.top.folders.append(seen.top.folders[0])
    upper.folders.append(lower)

    @asynccontextmanager
    async def first() -> AsyncIterator[None]:
        async with bench.session() as session:
            await stale.save(session)
            yield

    with pytest.raises(ModelError, match="would contain itself"):
        await while_it_waits(bench.database, first, lambda: bench.save(one))
    assert isinstance(await bench.load(one.subscription_id), FolderInactive)


async def test_a_relation_that_is_turned_round_is_no_circle(bench: Bench) -> None:
    folders = await bench.folders(2)
    user = await bench.folders()
    await put(bench, user, folders)
    upper, lower = folders.top.folders
    folders.top.folders.remove(lower)
    upper.folders.append(lower)
    await bench.save(folders)
    upper.folders.clear()
    folders.top.folders[:] = [lower]
    lower.folders.append(upper)
    await bench.save(folders)
    assert await bench.load(folders.subscription_id) == folders


async def beside(bench: Bench, one: SubscriptionModel) -> AsyncIterator[None]:
    """Save as a workflow does that may run beside the holder; commit when it is closed."""
    other = await Rows(bench.database.pool).process(
        await Rows(bench.database.pool).workflow("modify_description", "MODIFY"), "running"
    )
    async with bench.database.transaction() as session:
        session.info.update({PROCESS_ID: other, PASSES_LOCKS: True})
        await one.save(session)
        yield


@pytest.mark.parametrize("is_open", [False, True])
async def test_a_workflow_beside_the_holder_does_not_make_the_holders_save_fail(bench: Bench, *, is_open: bool) -> None:
    """B28: both changes stay, whether the holder saves after the other one or has to wait for it."""
    node = await bench.node()
    held, described = await bench.load(node.subscription_id), await bench.load(node.subscription_id)
    described.description, described.note = "described", "by the other"
    held.node.ims_id = 100  # type: ignore[attr-defined]
    first = asynccontextmanager(lambda: beside(bench, described))
    if is_open:
        await while_it_waits(bench.database, first, lambda: bench.save(held))
    else:
        async with first():
            pass
        await bench.save(held)
    again: Any = await bench.load(node.subscription_id)
    assert (again.description, again.note, again.node.ims_id) == ("described", "by the other", 100)
    assert (held.version, again.version) == (3, 3)
    held.customer_id = "the holder saves once more, from what it knows"
    await bench.save(held)
    assert (await bench.load(node.subscription_id)).description == "described"
    async with bench.database.transaction() as session:
        changes = (await read_history(session, node.subscription_id)).processes
    told = {key for one in changes for change in one.changes for key in change.changes}
    assert {"description", "note", "customer_id", "node.ims_id"} <= told


@pytest.mark.parametrize("changed", ["the same value", "a block", "the status"])
async def test_what_the_holder_cannot_have_seen_and_may_depend_on_is_a_conflict_as_before(
    bench: Bench, changed: str
) -> None:
    node = await bench.node()
    held, other = await bench.load(node.subscription_id), await bench.load(node.subscription_id)
    held.note = "mine"
    if changed == "the same value":
        other.note = "theirs"
    elif changed == "a block":
        other.node.ims_id = 9  # type: ignore[attr-defined]
    else:
        other = SubscriptionModel.from_other_lifecycle(other, "disabled")  # type: ignore[arg-type]
    async with asynccontextmanager(lambda: beside(bench, other))():
        pass
    with pytest.raises(ConcurrentChangeError, match="version 1 then, 2 now"):
        await bench.save(held)


async def test_who_does_not_hold_the_subscription_overwrites_nothing_unseen(bench: Bench) -> None:
    node = await bench.node()
    held, other = await bench.load(node.subscription_id), await bench.load(node.subscription_id)
    held.note = "mine"
    await bench.save(held)
    other.description = "theirs"
    with pytest.raises(ConcurrentChangeError):
        async with asynccontextmanager(lambda: beside(bench, other))():
            pass


async def test_new_blocks_below_used_ones_are_saved_without_waiting_for_others(bench: Bench) -> None:
    """Only relations to blocks that exist can close a circle."""
    folders, user = await bench.folders(), await bench.folders()
    await put(bench, user, folders)
    folders.top.folders.append(FolderBlockInactive.new(folders.subscription_id, title="new"))
    with bench.statements() as sent:
        await bench.save(folders)
    assert len([one for one in sent if "pg_advisory" in one]) == 0
