"""The test kit kills its consumer at a step: what is stored and what runs again is what it is in production."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.services.children import start_processes
from orchestrator.testing import (
    Engine,
    WorkflowDatabase,
    assert_awaiting_callback,
    assert_complete,
    assert_failed,
)
from orchestrator.workflow import StepList, begin, callback_step, done, step, workflow
from tests.integration.kit import kit_database
from tests.servers import Servers


@pytest.fixture(scope="module")
def workflow_database(servers: Servers) -> Iterator[WorkflowDatabase]:
    with kit_database(servers) as database:
        yield database


class Controller:
    """An external system that recognises an order that comes twice, or does not."""

    def __init__(self) -> None:
        self.orders: dict[str, int] = {}
        self.calls: list[str] = []

    def order(self, key: str) -> int:
        self.calls.append(key)
        return self.orders.setdefault(key, len(self.orders) + 1)


controller = Controller()


@pytest.fixture(autouse=True)
def _new_controller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.controller", Controller())


@step("Write")
async def write(session: AsyncSession) -> dict[str, int]:
    found = await session.execute(
        text("UPDATE engine_settings SET reason = coalesce(reason, '') || 'x' RETURNING reason")
    )
    return {"written": len(found.scalar_one())}


@step("Order")
def order(idempotency_key: str) -> dict[str, int]:
    return {"number": controller.order(idempotency_key)}


@step("Order anew")
def order_anew() -> dict[str, int]:
    return {"number": controller.order(f"order {len(controller.calls)}")}


@workflow("Order something")
def order_something() -> StepList:
    return begin >> write >> order >> done


@workflow("Order without a key")
def order_without_key() -> StepList:
    return begin >> write >> order_anew >> done


@pytest.mark.parametrize(("when", "runs"), [("before", 1), ("after_run", 2), ("after_commit", 1)])
async def test_a_step_runs_again_unless_it_was_committed(workflow_engine: Engine, when: Any, runs: int) -> None:
    with workflow_engine.crash_at("Order", when=when):
        process = await workflow_engine.run_workflow(order_something)
    assert_complete(process)
    assert controller.calls == list(controller.orders) * runs
    assert process.state["number"] == 1
    assert len(process.entries("Order")) == 1
    lost = [one for one in process.log if one.name == "attempt lost"]
    assert len(lost) == (when != "after_commit")
    assert all("was lost: the consumer of the test is presumed dead" in str(one.note) for one in lost)


@pytest.mark.parametrize("when", ["before", "after_run", "after_commit"])
async def test_what_a_lost_attempt_has_written_is_rolled_back(workflow_engine: Engine, when: Any) -> None:
    with workflow_engine.crash_at("Write", when=when):
        process = await workflow_engine.run_workflow(order_something)
    assert process.state["written"] == 1
    async with workflow_engine.transaction() as session:
        assert (await session.execute(text("SELECT reason FROM engine_settings"))).scalar_one() == "x"


async def test_several_crashes_are_survived(workflow_engine: Engine) -> None:
    with (
        workflow_engine.crash_at("Order", when="before"),
        workflow_engine.crash_at("Order", when="after_run"),
        workflow_engine.crash_at("Order"),
        workflow_engine.crash_at("Write", when="after_commit"),
    ):
        process = await workflow_engine.run_workflow(order_something)
    assert_complete(process)
    assert len(controller.calls) == 3


async def test_a_crash_that_does_not_come_fails_the_test(workflow_engine: Engine) -> None:
    with (
        pytest.raises(
            AssertionError, match=r"no consumer came to 'Oder', so none died there\n(.*\n)*.* Order  success"
        ),
        workflow_engine.crash_at("Oder"),
    ):
        await workflow_engine.run_workflow(order_something)
    with pytest.raises(ValueError, match="when is"), workflow_engine.crash_at("Order", when="later"):  # type: ignore[arg-type]
        pass


async def test_an_error_in_the_block_is_not_hidden(workflow_engine: Engine) -> None:
    with pytest.raises(ZeroDivisionError), workflow_engine.crash_at("Order"):
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError), workflow_engine.assert_idempotent("Order"):
        raise ZeroDivisionError
    process = await workflow_engine.run_workflow(order_something)
    assert len(controller.calls) == 1
    assert_complete(process)


async def test_steps_that_can_be_repeated_pass(workflow_engine: Engine) -> None:
    with workflow_engine.assert_idempotent(observe=lambda: controller.orders):
        process = await workflow_engine.run_workflow(order_something)
    assert_complete(process)
    assert process.state["written"] == 1
    assert len(controller.calls) == 2


async def test_a_step_that_orders_twice_is_found(workflow_engine: Engine) -> None:
    with (
        pytest.raises(AssertionError) as raised,
        workflow_engine.assert_idempotent("Order anew", observe=lambda: controller.orders),
    ):
        await workflow_engine.run_workflow(order_without_key)
    first, second, third = str(raised.value).splitlines()
    assert first == "steps are not idempotent:"
    assert second == "'Order anew' returned number=1, and when it ran again number=2"
    assert third.startswith("after 'Order anew' there was {'order 0': 1}, and when it had run again {'order 0': 1, ")


async def test_values_that_may_differ_are_ignored(workflow_engine: Engine) -> None:
    with workflow_engine.assert_idempotent("Order anew", ignoring=["number"]):
        await workflow_engine.run_workflow(order_without_key)


async def test_what_is_observed_may_be_awaited(workflow_engine: Engine) -> None:
    async def count() -> int:
        return len(controller.calls)

    with (
        pytest.raises(AssertionError, match="after 'Order' there was 1, and when it had run again 2"),
        workflow_engine.assert_idempotent("Order", observe=count),
    ):
        await workflow_engine.run_workflow(order_something)


async def test_a_step_that_fails_the_second_time_is_found(workflow_engine: Engine) -> None:
    @step("Create")
    def create() -> None:
        assert "it" not in controller.orders, "it exists"
        controller.order("it")

    @workflow("Create something")
    def create_something() -> StepList:
        return begin >> create >> done

    with (
        pytest.raises(
            AssertionError, match="'Create' succeeded, and failed when it ran again: AssertionError: it exists"
        ),
        workflow_engine.assert_idempotent(),
    ):
        assert_failed(await workflow_engine.run_workflow(create_something), "Create")


async def test_a_step_that_was_not_run_is_not_idempotent(workflow_engine: Engine) -> None:
    with (
        pytest.raises(AssertionError, match="no consumer has run 'Oder' twice"),
        workflow_engine.assert_idempotent("Oder"),
    ):
        await workflow_engine.run_workflow(order_something)


async def test_the_token_stays_the_same_when_its_action_is_run_again(workflow_engine: Engine) -> None:
    tokens: list[str] = []

    @step("Send")
    async def send(callback_token: str) -> None:
        tokens.append(callback_token)

    @step("Check")
    async def check(callback_result: dict[str, int]) -> None: ...

    @workflow("Send something")
    def send_something() -> StepList:
        return begin >> callback_step("Wait", send, check) >> done

    with workflow_engine.crash_at("Send"), workflow_engine.crash_at("Send", when="after_commit"):
        process = await workflow_engine.run_workflow(send_something)
    assert_awaiting_callback(process)
    assert len(tokens) == 2
    assert tokens[0] == tokens[1]
    await process.callback()
    assert_complete(process)


async def test_processes_that_a_step_starts_run_too_and_once(workflow_engine: Engine) -> None:
    @step("Start orders")
    async def start_orders(session: AsyncSession) -> dict[str, int]:
        started = await start_processes(session, "order_something", {"first": [], "second": []})
        return {"started": started.started}

    @workflow("Order twice")
    def order_twice() -> StepList:
        return begin >> start_orders >> done

    await workflow_engine.register(order_something)
    with workflow_engine.crash_at("Start orders"):
        process = await workflow_engine.run_workflow(order_twice)
    assert_complete(process)
    assert process.state["started"] == 2
    assert len(controller.calls) == 2
