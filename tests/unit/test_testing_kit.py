"""The parts of the test kit that need no database: what runs twice is compared, what is asserted is described."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any, cast
from uuid import UUID, uuid4

import asyncpg
import pytest

from orchestrator import registry
from orchestrator.engine.events import Event, Failure, StepFailed, StepSucceeded
from orchestrator.engine.log import LogEntry
from orchestrator.engine.process import Process
from orchestrator.errors import ConfigurationError, DefinitionError, NotFoundError
from orchestrator.settings import load_settings
from orchestrator.testing import (
    ProcessUnderTest,
    WorkflowDatabase,
    assert_complete,
    assert_failed,
    assert_state,
    describe,
)
from orchestrator.testing.crashes import ConsumerCrash, Crashes, CrashPoint, Repetition
from orchestrator.testing.process import list_pages
from orchestrator.types import ProcessStatus
from orchestrator.workflow import StepList, begin, done, step, workflow

PROCESS = Process(uuid4(), "order", ProcessStatus.RUNNING, 0, "Order", 1, 3, {}, "me", "me")
BROKEN = StepFailed(2, Failure("KeyError", "'node'", "Traceback: line 7"))


async def repeat(first: Event, second: Event, **options: Any) -> Repetition:
    repetition = Repetition(options.pop("steps", ()), options.pop("observe", None), options.pop("ignoring", ()))
    if await repetition.see(PROCESS, "Order", first):
        assert not await repetition.see(PROCESS, "Order", second)
    return repetition


async def test_two_runs_that_are_alike_have_no_difference() -> None:
    seen = await repeat(StepSucceeded(1, {"number": 1}), StepSucceeded(2, {"number": 1}))
    assert (seen.repeated, seen.differences) == ({"Order"}, [])


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ({"number": 1}, {"number": 2}, ["'Order' returned number=1, and when it ran again number=2"]),
        ({"number": 1}, {}, ["'Order' returned number=1, and when it ran again number=None"]),
        ({"a": 1}, {"b": 1, "a": 1}, ["'Order' returned b=None, and when it ran again b=1"]),
    ],
)
async def test_each_difference_is_named(first: Any, second: Any, said: list[str]) -> None:
    assert (await repeat(StepSucceeded(1, first), StepSucceeded(2, second))).differences == said
    assert (await repeat(StepSucceeded(1, first), StepSucceeded(2, second), ignoring=["number", "b"])).differences == []


async def test_a_step_that_fails_again_is_a_difference_and_one_that_failed_at_first_is_not_repeated() -> None:
    seen = await repeat(StepSucceeded(1, {}), BROKEN)
    assert seen.differences == ["'Order' succeeded, and failed when it ran again: KeyError: 'node'\nTraceback: line 7"]
    assert (await repeat(BROKEN, BROKEN)).repeated == set()


async def test_what_is_observed_is_kept_as_it_was() -> None:
    orders: list[int] = []

    def observe() -> list[int]:
        orders.append(1)
        return orders

    seen = await repeat(StepSucceeded(1, {}), StepSucceeded(2, {}), observe=observe)
    assert seen.differences == ["after 'Order' there was [1], and when it had run again [1, 1]"]


async def test_only_the_named_steps_run_twice_and_each_once_in_a_process() -> None:
    assert not await Repetition(["Pay"], None, ()).see(PROCESS, "Order", StepSucceeded(1, {}))
    seen = await repeat(StepSucceeded(1, {}), StepSucceeded(2, {}))
    assert not await seen.see(PROCESS, "Order", StepSucceeded(3, {}))
    assert await seen.see(replace(PROCESS, rewinds=1), "Order", StepSucceeded(4, {}))


def test_a_crash_comes_once_and_where_it_is_to_come() -> None:
    crashes = Crashes([CrashPoint("Order", "before")])
    crashes.reach("Order", "after_run")
    crashes.reach("Pay", "before")
    with pytest.raises(ConsumerCrash):
        crashes.reach("Order", "before")
    crashes.reach("Order", "before")


def test_no_code_that_handles_errors_sees_a_crash() -> None:
    assert not issubclass(ConsumerCrash, Exception)


def test_pages_become_json() -> None:
    page = {"product": UUID(int=7), "day": date(2026, 1, 2), "ports": ("a", "b")}
    expected = [{"product": str(UUID(int=7)), "day": "2026-01-02", "ports": ["a", "b"]}]
    assert list_pages(page) == list_pages([page]) == expected
    assert list_pages(()) == []


# What assertions say


def entry(sequence: int, name: str, status: str, failure: dict[str, Any] | None = None) -> LogEntry:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return LogEntry(sequence, "step", name, 0, 1, status, {}, (), failure, None, "me", None, at, at)


@pytest.fixture
def failed() -> ProcessUnderTest:
    made = ProcessUnderTest(cast("Any", None), uuid4(), "order")
    made.status, made.step, made.state, made.assignee = ProcessStatus.FAILED, "Pay", {"number": 1}, "SYSTEM"
    failure = {"type": "KeyError", "message": "'node'", "traceback": "Traceback:\n  line 7", "details": {"code": 4}}
    made.log = (entry(1, "Order", "success"), entry(2, "Pay", "failed", failure))
    made.subscription_ids = (UUID(int=1),)
    return made


def test_a_process_is_described_with_its_error_and_its_log(failed: ProcessUnderTest) -> None:
    assert describe(failed).splitlines() == [
        "the process of 'order' is failed at the step 'Pay'",
        "  KeyError: 'node'",
        "  Traceback:",
        "    line 7",
        "  details: {'code': 4}",
        "its log:",
        "    1  Order  success",
        "    2  Pay  failed  KeyError: 'node'",
    ]


def test_assertions_end_with_the_description(failed: ProcessUnderTest) -> None:
    assert_failed(failed, "Pay", "KeyError")
    assert_state(failed, {"number": 1})
    assert failed.subscription_id == UUID(int=1)
    with pytest.raises(AssertionError, match="expected completed\nthe process of 'order' is failed at the step 'Pay'"):
        assert_complete(failed)
    with pytest.raises(AssertionError, match=r"-{'number': 2}\n\+{'number': 1}\nthe process"):
        assert_state(failed, {"number": 2})


# What the kit asks of the engine


@step("Order")
def order() -> None: ...


@step("Impossible")
def impossible(*_: object) -> None: ...


@workflow("Order something")
def order_something() -> StepList:
    return begin >> order >> done


def test_a_workflow_is_registered_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_instances", {})
    with registry.registered(order_something), registry.registered(order_something):
        assert registry.plan_of("order_something").workflow is order_something
    with pytest.raises(NotFoundError):
        registry.plan_of("order_something")
    with (
        registry.registered(order_something),
        pytest.raises(DefinitionError, match="another workflow is registered as 'order_something'"),
        registry.registered(replace(order_something, description="other")),
    ):
        pass
    with pytest.raises(DefinitionError), registry.registered(replace(order_something, steps=begin >> impossible)):
        pass
    assert list(registry.known_workflows()) == []


def test_the_settings_need_no_broker_where_nothing_is_published(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_DATABASE_URL", "postgresql://here/orders")
    monkeypatch.delenv("ORCHESTRATOR_AMQP_URL", raising=False)
    assert "no-broker" in load_settings(needs_broker=False).amqp_url.get_secret_value()


class Forbidding:
    """A server whose user may create no databases; the user of the servers of tests may."""

    async def fetchval(self, *_: object) -> None: ...

    async def execute(self, _: str) -> None:
        raise asyncpg.InsufficientPrivilegeError("permission denied to create database")


def test_who_may_create_no_database_learns_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_DATABASE_URL", "postgresql://here/orders")
    database = WorkflowDatabase(load_settings(needs_broker=False), "orders_test", is_created=True)
    with pytest.raises(ConfigurationError, match=r"'orders_test' cannot be created: permission denied .* CREATEDB"):
        asyncio.run(database._create(cast("Any", Forbidding())))
    database._end()
