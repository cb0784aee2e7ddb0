"""The test kit runs workflows as production does: start, input, callbacks, retries, abort; and says what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from tenacity import wait_fixed

from orchestrator.errors import (
    CallbackRefusedError,
    ConflictError,
    FormIncompleteError,
    InvalidInputError,
    NotFoundError,
)
from orchestrator.forms import FormGenerator, FormPage
from orchestrator.retry import RetryPolicy
from orchestrator.testing import (
    Engine,
    WorkflowDatabase,
    assert_aborted,
    assert_assignee,
    assert_awaiting_callback,
    assert_complete,
    assert_failed,
    assert_state,
    assert_state_equal,
    assert_step_name,
    assert_suspended,
    assert_waiting,
    extract_error,
    extract_state,
    run_form_generator,
)
from orchestrator.workflow import (
    StepList,
    begin,
    callback_step,
    conditional,
    done,
    init,
    inputstep,
    retrystep,
    step,
    workflow,
)
from tests.integration.kit import kit_database
from tests.servers import Servers


@pytest.fixture(scope="module")
def workflow_database(servers: Servers) -> Iterator[WorkflowDatabase]:
    with kit_database(servers) as database:
        yield database


class Order(FormPage):
    node: str
    speed: int = 1000


class Colour(FormPage):
    colour: str = "blue"


def order_form() -> FormGenerator:
    order = yield Order
    colour = yield Colour
    return {**order.model_dump(), **colour.model_dump()}


@step("Reserve")
async def reserve(node: str) -> dict[str, str]:
    return {"reserved": f"{node}/1"}


@step("Configure")
def configure(reserved: str, idempotency_key: str) -> dict[str, str]:
    return {"configured": reserved, "order": idempotency_key}


@step("Protect")
def protect() -> dict[str, bool]:
    return {"is_protected": True}


@inputstep("Choose the hour", assignee="NOC")
def choose_hour(node: str) -> FormGenerator:
    class Hour(FormPage):
        hour: int

    filled = yield Hour
    return {"window": f"{node} at {filled.hour}"}  # type: ignore[attr-defined]


@workflow("Create a line", initial_input_form=order_form)
def create_line() -> StepList:
    return (
        init >> reserve >> configure >> conditional(lambda state: state["speed"] > 5000)(protect) >> choose_hour >> done
    )


PAGES: list[dict[str, Any]] = [{"node": "ams", "speed": 10}, {}]


async def test_a_process_runs_to_its_input_step_and_on(workflow_engine: Engine) -> None:
    process = await workflow_engine.run_workflow(create_line, PAGES, user="sales")

    assert_suspended(process, "Choose the hour")
    assert_assignee(process, "NOC")
    assert_state(process, {"node": "ams", "colour": "blue", "configured": "ams/1"})
    assert [name for name, _ in process.steps][:3] == ["Start", "Reserve", "Configure"]
    assert process.entries("Protect")[0].status == "skipped"
    assert process.entries("Reserve")[0].author == "sales"
    assert process.entries("Reserve")[0].delta == {"reserved": "ams/1"}

    await process.resume({"hour": 3}, user="noc")

    assert_complete(process)
    assert_step_name(process, "Done")
    assert extract_state(process)["window"] == "ams at 3"
    assert process.step is None
    assert process.error is None
    without = [key for key in process.state if key not in {"node", "speed"}]
    assert_state_equal(process, {"node": "ams", "speed": 10}, without)


async def test_input_is_validated_as_in_production(workflow_engine: Engine) -> None:
    with pytest.raises(FormIncompleteError):
        await workflow_engine.run_workflow(create_line, {"node": "ams"})
    with pytest.raises(InvalidInputError, match="speed"):
        await workflow_engine.run_workflow(create_line, [{"node": "ams", "speed": "fast"}, {}])
    process = await workflow_engine.run_workflow(create_line, PAGES)
    with pytest.raises(InvalidInputError, match="hour"):
        await process.resume({"hour": "noon"})
    assert_suspended(process)
    with pytest.raises(NotFoundError, match="nothing_like_it"):
        await workflow_engine.run_workflow("nothing_like_it")


async def test_a_start_that_comes_twice_is_one_process(workflow_engine: Engine) -> None:
    first = await workflow_engine.run_workflow(create_line, PAGES, key="order 7")
    second = await workflow_engine.run_workflow(create_line, PAGES, key="order 7")
    assert first is second


async def test_each_test_begins_with_what_the_migrations_have_left(workflow_engine: Engine) -> None:
    """The others of this file have left processes, and registered this workflow."""
    from orchestrator.db.workflows import list_workflows

    async with workflow_engine.transaction() as session:
        names = {one.name for one in await list_workflows(session)}
    assert "modify_note" in names
    assert "create_line" not in names


async def test_a_process_is_aborted(workflow_engine: Engine) -> None:
    process = await workflow_engine.run_workflow(create_line, PAGES)
    await process.abort(user="noc", reason="the customer has left")
    assert_aborted(process)
    assert "the customer has left" in str(process.log[-1].note)
    with pytest.raises(ConflictError):
        await process.abort()


# Callbacks

sent: list[str] = []


@step("Send the job")
async def send_job(callback_token: str) -> None:
    sent.append(callback_token)


@step("Check the report")
async def check_report(callback_result: dict[str, int]) -> dict[str, int]:
    assert callback_result["light"] > -20, "too little light"
    return {"light": callback_result["light"]}


@workflow("Visit a site")
def visit() -> StepList:
    return begin >> callback_step("Wait for the engineers", send_job, check_report, timeout=3600) >> done


async def test_a_callback_is_answered(workflow_engine: Engine) -> None:
    process = await workflow_engine.run_workflow(visit)
    assert_awaiting_callback(process, "Wait for the engineers")
    await process.report_progress({"percent": 50})
    assert_awaiting_callback(process)
    await process.callback({"light": -5})
    assert_complete(process)
    assert process.state["light"] == -5
    with pytest.raises(CallbackRefusedError, match="already answered"):
        await process.callback({"light": -5})


async def test_a_callback_is_answered_by_the_token_that_the_action_has_sent(workflow_engine: Engine) -> None:
    process = await workflow_engine.run_workflow(visit)
    assert process.callback_token == sent[-1]
    await workflow_engine.callback(sent[-1], {"light": -5})
    assert_complete(process)
    with pytest.raises(CallbackRefusedError):
        await workflow_engine.callback("forged")


async def test_a_job_that_fails_fails_its_step_and_a_retry_sends_it_again(workflow_engine: Engine) -> None:
    process = await workflow_engine.run_workflow(visit)
    first = process.callback_token
    await process.fail_callback("the ladder broke", at="roof")
    assert_failed(process, "Wait for the engineers", "the ladder broke")
    assert process.failure is not None
    assert process.failure["details"] == {"error": "the ladder broke", "at": "roof"}
    await process.retry()
    assert_awaiting_callback(process)
    assert process.callback_token != first
    await process.callback({"light": -30})
    assert_failed(process, "Check the report", "AssertionError: too little light")


async def test_a_callback_is_not_waited_for_longer_than_its_deadline(workflow_engine: Engine) -> None:
    process = await workflow_engine.run_workflow(visit)
    await workflow_engine.pass_time(timedelta(minutes=59))
    assert_awaiting_callback(process)
    await process.run_when_due()
    assert_failed(process, error="CallbackTimeoutError")


async def test_an_answer_may_come_before_the_action_has_ended(
    workflow_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    @step("Send the job")
    async def answered_at_once(callback_token: str) -> None:
        await workflow_engine.callback(callback_token, {"light": -1})

    @workflow("Visit a site")
    def quick_visit() -> StepList:
        return begin >> callback_step("Wait", answered_at_once, check_report) >> done

    process = await workflow_engine.run_workflow(quick_visit)
    assert_complete(process)
    assert process.state["light"] == -1


# Failures and tries

failing: list[str] = []


def fail_if_asked() -> None:
    if failing:
        raise ValueError(failing.pop())


@step("Fail")
def fail() -> dict[str, int]:
    fail_if_asked()
    return {"worked": 1}


@retrystep("Try", retry=RetryPolicy(wait_fixed(60), limit=3))
def attempt() -> dict[str, int]:
    fail_if_asked()
    return {"tried": 1}


@workflow("Fail at first")
def fail_at_first() -> StepList:
    return begin >> fail >> done


@workflow("Try again")
def try_again() -> StepList:
    return begin >> attempt >> done


async def test_a_failed_process_is_retried(workflow_engine: Engine) -> None:
    failing[:] = ["no such node"]
    process = await workflow_engine.run_workflow(fail_at_first)
    assert_failed(process, "Fail", "ValueError: no such node")
    assert extract_error(process) == "ValueError: no such node"
    await process.retry(user="noc")
    assert_complete(process)
    assert [one.status for one in process.entries("Fail")] == ["failed", "success"]


async def test_tries_come_when_the_test_lets_the_time_pass(workflow_engine: Engine) -> None:
    failing[:] = ["third", "second", "first"]
    process = await workflow_engine.run_workflow(try_again)
    assert_waiting(process, "Try")
    assert extract_error(process) == "ValueError: first"
    await workflow_engine.pass_time(30)
    assert len(process.entries("Try")) == 1
    await workflow_engine.pass_time(31)
    assert extract_error(process) == "ValueError: second"
    await process.run_when_due()
    assert_failed(process, "Try", "third")
    with pytest.raises(ValueError, match="waits for no time"):
        await process.run_when_due()


async def test_a_try_may_be_made_at_once_by_hand(workflow_engine: Engine) -> None:
    failing[:] = ["first"]
    process = await workflow_engine.run_workflow(try_again)
    await process.retry()
    assert_complete(process)


# What a failed assertion says


async def test_a_failed_assertion_says_where_and_why(workflow_engine: Engine) -> None:
    failing[:] = ["no such node"]
    process = await workflow_engine.run_workflow(fail_at_first)
    with pytest.raises(AssertionError) as raised:
        assert_complete(process)
    said = str(raised.value)
    assert said.startswith(
        "expected completed\nthe process of 'fail_at_first' is failed at the step 'Fail'\n  ValueError: no such node\n"
    )
    assert "in fail_if_asked" in said
    assert "services/steps.py" not in said
    assert "Fail  failed  ValueError: no such node" in said
    with pytest.raises(AssertionError, match="expected an error with 'timeout'"):
        assert_failed(process, error="timeout")
    with pytest.raises(AssertionError, match=r"expected failed or .* at 'Reserve'"):
        assert_failed(process, "Reserve")
    with pytest.raises(AssertionError, match=r"-{'worked': 1}\n\+{}"):
        assert_state(process, {"worked": 1})
    with pytest.raises(AssertionError, match="the state is not as expected"):
        assert_state_equal(process, {"worked": 1})
    with pytest.raises(AssertionError, match="expected 'Done' as the newest step in the log, not 'Fail'"):
        assert_step_name(process, "Done")
    with pytest.raises(AssertionError, match="expected the assignee 'NOC', not 'SYSTEM'"):
        assert_assignee(process, "NOC")
    with pytest.raises(AssertionError, match="was given a callback token"):
        await process.callback()
    with pytest.raises(AssertionError, match="has touched 0 subscriptions"):
        _ = process.subscription_id
    with pytest.raises(NotFoundError):
        await workflow_engine.find_process(uuid4())


async def test_a_form_is_filled_in_without_a_process() -> None:
    schemas, result = await run_form_generator(order_form, [{"node": "ams"}])
    assert [one["title"] for one in schemas if isinstance(one, dict)] == ["unknown", "unknown"]
    assert result == {"node": "ams", "speed": 1000, "colour": "blue"}
    _, result = await run_form_generator(choose_hour, {"hour": 3}, node="ams")
    assert result == {"window": "ams at 3"}
    with pytest.raises(InvalidInputError, match="node"):
        await run_form_generator(order_form)
    with pytest.raises(InvalidInputError, match="fewer pages"):
        await run_form_generator(order_form, [{"node": "ams"}, {}, {}])
    with pytest.raises(TypeError, match="no input step"):
        await run_form_generator(reserve)
