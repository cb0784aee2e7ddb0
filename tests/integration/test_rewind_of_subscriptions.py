"""A rewind over steps that have saved a subscription: the process goes back, the subscription does not."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from consumers.runner import Runner
from orchestrator.db.session import Database
from orchestrator.services import control
from orchestrator.workflow import StepList, begin, done, step, workflow
from orchestrator.workflows.steps import resync, unsync_unchecked
from tests.integration import model_bench
from tests.integration.engine_bench import LIMITS, Bench, bench_of
from tests.integration.waiting import until
from tests.unit.models import Node

found: list[UUID] = []


@step("Find")
async def find() -> dict[str, Any]:
    return {"subscription_id": str(found[-1])}


@step("Rename")
async def rename(subscription: Node) -> dict[str, Any]:
    subscription.node.node_name += "+"
    return {"subscription": subscription}


@step("Configure")
async def configure(subscription: Node) -> dict[str, Any]:
    if subscription.node.node_name != "ams-1++":
        raise RuntimeError("it is called otherwise")
    return {}


@workflow("Renames a node")
def renames() -> StepList:
    return begin >> find >> unsync_unchecked >> rename >> configure >> resync >> done


async def run_until_it_rests(bench: Bench, runner: Runner, process_id: UUID) -> None:
    while (await bench.row(process_id))["status"] == "running":
        await runner.take(await bench.command(process_id))
        await until(lambda: runner.running == 0, "the step has ended")


@pytest.mark.parametrize("to", ["Rename", "Lock subscription without checking"])
async def test_steps_get_the_subscription_as_it_is_now_and_may_save_it_again(
    database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch, to: str
) -> None:
    models = await model_bench.make_bench(database)
    node = await models.node()
    found.append(node.subscription_id)
    await database.pool.execute("UPDATE processes SET status = 'completed'")  # which has made it, and holds it
    async with bench_of(database, amqp_url, monkeypatch, __name__, renames) as bench:
        runner = await bench.runner()
        process_id = await bench.start("renames")
        await run_until_it_rests(bench, runner, process_id)
        assert (await bench.row(process_id))["step"] == "Configure"
        version = await database.pool.fetchval(
            "SELECT version FROM subscriptions WHERE subscription_id = $1", found[-1]
        )

        async with database.transaction() as session:
            await control.rewind(session, process_id, "ana", to, "it has another name", LIMITS)

        row = await database.pool.fetchrow(
            "SELECT version, locked_by FROM subscriptions WHERE subscription_id = $1", found[-1]
        )
        assert tuple(row or ()) == (version, process_id), "neither its values nor its lock go back"
        await run_until_it_rests(bench, runner, process_id)
        assert (await bench.row(process_id))["status"] == "completed"
    stored = await models.load(node.subscription_id)
    assert isinstance(stored, Node)
    assert stored.node.node_name == "ams-1++"
    steps = await database.pool.fetch(
        "SELECT step, attempt FROM subscription_changes WHERE process_id = $1 AND step = 'Rename'", process_id
    )
    assert len({row["attempt"] for row in steps}) == 2
