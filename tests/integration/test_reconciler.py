"""The reconciler's rounds on a real database."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.broker.connection import BrokerAddress
from orchestrator.broker.publisher import Publisher
from orchestrator.broker.topology import Topology
from orchestrator.coordinator import reconciler
from orchestrator.coordinator.announcer import Announcer
from orchestrator.coordinator.dispatcher import Dispatcher
from orchestrator.coordinator.reconciler import Reconciler
from orchestrator.db.session import Database
from orchestrator.messages import Advanced
from orchestrator.services.plans import ProgramPlans
from orchestrator.settings import Limits
from tests.unit.walk import plan_of, work

INSERT = """
INSERT INTO processes (process_id, workflow_id, workflow, is_task, status, position, entered, attempt, sequence, failures,
                       lost, rewinds, state, started_by, actor, plan, wake_at)
VALUES ($1, $2, 'some', false, 'failed', 0, true, 1, 1, 0, 0, 0, '{}', 'me', 'me', $4, now() - $3::int * interval '1 second')
"""


async def test_a_process_that_cannot_be_looked_at_does_not_keep_the_others_from_it(
    database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect about one process, first in line, must not stop the rest; nor is it looked at again at once."""
    workflow = await database.pool.fetchval(
        "INSERT INTO workflows (name, target) VALUES ('some', 'SYSTEM') RETURNING workflow_id"
    )
    broken, healthy = uuid4(), uuid4()
    plan = plan_of(work("a"))
    await database.pool.execute(INSERT, broken, workflow, 20, plan.fingerprint)
    await database.pool.execute(INSERT, healthy, workflow, 10, plan.fingerprint)
    looked: list[UUID] = []

    async def look(_: AsyncSession, process_id: UUID, __: Limits) -> Advanced | None:
        looked.append(process_id)
        if process_id == broken:
            raise ZeroDivisionError
        return None

    monkeypatch.setattr(reconciler, "look", look)
    address = BrokerAddress(amqp_url, "test", 3)
    publisher = Publisher(address, Topology(), 5)
    made = Reconciler(
        database,
        Dispatcher(publisher, Announcer(publisher, database.pool)),
        address,
        Limits(redispatch_after=5, step_timeout=60, state_soft_limit=1000, state_hard_limit=1000),
        ProgramPlans({"some": plan}),
        interval=1,
        presumed_dead_after=10,
    )
    await made.run_once()
    assert looked == [broken, healthy]
    assert await database.pool.fetchval("SELECT wake_at > now() FROM processes WHERE process_id = $1", broken)
