"""A workflow that locks several subscriptions in one step, from its form to the end; on real servers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from orchestrator import registry
from orchestrator.db.session import Database
from orchestrator.errors import DefinitionError
from orchestrator.forms import FormGenerator, FormPage
from orchestrator.services.start import StartRequest, start
from orchestrator.workflow import StepList, begin, inputstep
from orchestrator.workflows.steps import lock_subscriptions
from orchestrator.workflows.utils import modify_workflow
from tests.integration.engine_bench import LIMITS, Bench, bench_of
from tests.integration.subscription_rows import Rows
from tests.integration.waiting import until


class Others(FormPage):
    other: UUID | None
    more: list[UUID]


def choose() -> FormGenerator:
    filled = yield Others
    return filled.model_dump(mode="json")


@inputstep("Wait", assignee="NOC")
def wait() -> FormGenerator:
    class Go(FormPage):
        pass

    yield Go
    return {}


@modify_workflow("Swap", initial_input_form=choose, also_lock=["other", "more"])
def modify_swap() -> StepList:
    return begin >> wait


@pytest.fixture
async def bench(database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    await database.pool.execute("DELETE FROM workflows")
    async with bench_of(database, amqp_url, monkeypatch, __name__) as made:
        registry.LazyWorkflowInstance(__name__, "modify_swap")
        yield made


async def swap(bench: Bench, subject: UUID, other: UUID | None, more: list[UUID], status: str) -> UUID:
    pages = ({"subscription_id": str(subject)}, {"other": other and str(other), "more": [str(one) for one in more]})
    async with bench.database.transaction() as session:
        process_id = (await start(session, StartRequest("modify_swap", pages, "noc"), LIMITS)).process_id
    runner = await bench.runner()
    while (await bench.row(process_id))["status"] == "running":
        await runner.take(await bench.command(process_id))
        await until(lambda: runner.running == 0, "the attempt has ended")
    assert (await bench.row(process_id))["status"] == status
    return process_id


async def test_a_workflow_locks_what_its_form_names_together_and_keeps_a_copy_of_each(bench: Bench) -> None:
    rows = Rows(bench.database.pool)
    product = await rows.product("Node")
    await rows.workflow("modify_swap", "MODIFY", product)
    one, two, three = [await rows.subscription(product) for _ in range(3)]

    first = await swap(bench, one, two, [three, three], "suspended")

    found = await bench.database.pool.fetch("SELECT * FROM subscriptions")
    assert {(row["insync"], row["locked_by"]) for row in found} == {(False, first)}
    state: dict[str, Any] = json.loads((await bench.row(first))["state"])
    assert set(state["__old_subscriptions__"]) == {str(one), str(two), str(three)}
    assert state["subscription"]["subscription_id"] == str(one)
    touched = await bench.database.pool.fetch(
        "SELECT subscription_id FROM processes_subscriptions WHERE process_id = $1", first
    )
    assert {row["subscription_id"] for row in touched} == {one, two, three}
    await bench.database.pool.execute("UPDATE subscriptions SET insync = true, locked_by = NULL WHERE true")

    await bench.database.pool.execute(
        "UPDATE subscriptions SET insync = false, locked_by = $1 WHERE subscription_id = $2", first, three
    )
    second = await swap(bench, two, None, [one, three], "failed")
    assert "SubscriptionLockedError" in await bench.failure(second)
    assert await bench.database.pool.fetchval("SELECT count(*) FROM subscriptions WHERE locked_by = $1", second) == 0


@pytest.mark.parametrize("keys", [(), ("",), (7,)])
def test_the_step_wants_keys_of_the_state(keys: tuple[Any, ...]) -> None:
    with pytest.raises(DefinitionError, match="lock_subscriptions takes keys of the state"):
        lock_subscriptions(*keys)
