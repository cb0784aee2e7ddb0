"""B5: whatever a step raises becomes a failure that an operator can read; the callback token is in none of it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from concurrent import futures
from typing import Any

import pytest
import tenacity
from tenacity.wait import wait_base

from orchestrator.errors import CommitNotAllowedError, InvalidResultError, ProcessFailureError
from orchestrator.retry import RetryPolicy
from orchestrator.services.steps import REDACTED
from orchestrator.text import MAX_TEXT
from orchestrator.types import ProcessStatus
from orchestrator.workflow import retrystep, step
from tests.unit.attempts import attempt, failure

TOKEN = "WcUj3lq0eBEDIzWxJzw9cMbhvQyh0TlyvJ5qvOHvHkc"


class StrangeError(BaseException):
    """Not an Exception: what some libraries raise to end a program or a task group."""


class Broken(wait_base):
    """A wait strategy of an author's own."""

    def __call__(self, retry_state: tenacity.RetryCallState) -> float:
        raise ZeroDivisionError(f"after {retry_state.attempt_number}")


def needs_a_vlan(vlan: int) -> None: ...


class MuteError(Exception):
    """Its text cannot be made."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def untyped(value: object) -> Any:
    """The value, as a program without type checker passes it."""
    return value


def as_plain(error: BaseException) -> Callable[[], None]:
    def author() -> None:
        raise error

    return author


def as_async(error: BaseException) -> Callable[[], Any]:
    async def author() -> None:
        raise error

    return author


KINDS = pytest.mark.parametrize("kind", [as_plain, as_async])


@KINDS
@pytest.mark.parametrize(
    ("error", "type_", "message"),
    [
        (ValueError("the node does not answer"), "ValueError", "the node does not answer"),
        (ValueError(), "ValueError", "ValueError"),
        (KeyError("x"), "KeyError", "'x'"),
        (SystemExit(3), "ExitedError", "the step called sys.exit(3)"),
        (SystemExit(), "ExitedError", "the step called sys.exit(None)"),
        (KeyboardInterrupt(), "ExitedError", "the step raised KeyboardInterrupt"),
        (StrangeError("strange"), "ExitedError", "the step raised StrangeError"),
        (MuteError(), "MuteError", "MuteError"),
        (ExceptionGroup("two", [ValueError("a"), TypeError("b")]), "ExceptionGroup", "two (2 sub-exceptions)"),
        (TimeoutError("their own"), "TimeoutError", "their own"),
        (CommitNotAllowedError("no"), "CommitNotAllowedError", "no"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
async def test_whatever_a_step_raises_is_a_failure(
    kind: Callable[[BaseException], Any], error: BaseException, type_: str, message: str
) -> None:
    outcome = await failure(kind(error))

    assert (outcome.attempt, outcome.failure.type, outcome.failure.message) == (3, type_, message)
    assert outcome.failure.status is ProcessStatus.FAILED
    assert outcome.retry_in is None
    assert "author" in outcome.failure.traceback


async def test_a_plain_step_that_raises_stop_iteration_fails() -> None:
    outcome = await failure(as_plain(StopIteration()))

    assert (outcome.failure.type, outcome.failure.message) == ("RuntimeError", "the step raised StopIteration")


@pytest.mark.parametrize("error", [asyncio.CancelledError(), futures.CancelledError()])
async def test_a_plain_step_cannot_look_as_if_its_consumer_had_been_stopped(error: BaseException) -> None:
    """A future of its own that was cancelled, for example."""
    outcome = await failure(as_plain(error))

    assert "CancelledError" in outcome.failure.message
    assert "author" in outcome.failure.traceback


async def test_an_async_step_cannot_look_as_if_its_consumer_had_been_stopped() -> None:
    outcome = await failure(as_async(asyncio.CancelledError()))

    assert outcome.failure.message == "the step 's' cancelled itself"


async def test_sys_exit_leaves_the_program_running() -> None:
    assert (await failure(lambda: sys.exit("bye"))).failure.message == "the step called sys.exit('bye')"


async def test_a_missing_argument_fails_the_step_before_it_runs() -> None:
    ran = []

    def author(vlan: int) -> None:
        ran.append(vlan)

    outcome = await failure(author, {"node": "n"})

    assert outcome.failure.type == "MissingArgumentError"
    assert "asks for 'vlan' (int), which the state does not have. It has: node" in outcome.failure.message
    assert ran == []


@pytest.mark.parametrize(
    ("details", "kept"),
    [
        ({"port": 7, "reasons": ["a", "b"]}, {"port": 7, "reasons": ["a", "b"]}),
        (None, None),
        ("text", "text"),
        ({"n": float("nan")}, {"n": "NaN"}),
        ({"a": "b\0c"}, {"a": "bc"}),
    ],
)
async def test_the_details_of_a_process_failure_are_logged(details: Any, kept: Any) -> None:
    outcome = await failure(as_plain(ProcessFailureError("the node refused", details)))

    assert (outcome.failure.type, outcome.failure.message) == ("ProcessFailureError", "the node refused")
    assert outcome.failure.details == kept


async def test_details_that_are_not_json_are_logged_as_text() -> None:
    outcome = await failure(as_plain(ProcessFailureError("no", untyped([object(), complex(1, 2)]))))

    assert isinstance(outcome.failure.details, str)
    assert "(1+2j)" in outcome.failure.details


async def test_a_process_failure_of_the_authors_own_kind_need_not_call_its_base() -> None:
    class NodeError(ProcessFailureError):
        def __init__(self, node: str) -> None:
            self.node = node
            Exception.__init__(self, f"{node} refused")

    outcome = await failure(as_plain(NodeError("ams-1")))

    assert (outcome.failure.message, outcome.failure.details) == ("ams-1 refused", None)


async def test_characters_that_the_database_cannot_hold_are_made_visible() -> None:
    outcome = await failure(as_plain(ValueError("a\0b\ud800c")))

    assert outcome.failure.message == "a\\0b?c"
    assert "\0" not in outcome.failure.traceback


async def test_long_texts_of_an_error_keep_their_beginning_and_their_end() -> None:
    """Every try writes them again, and messages carry them."""
    outcome = await failure(as_plain(ValueError("the beginning" + "x" * 3_000_000 + "the end")))

    message, traceback = outcome.failure.message, outcome.failure.traceback
    assert MAX_TEXT - 100 < len(message) <= MAX_TEXT
    assert MAX_TEXT - 100 < len(traceback) <= MAX_TEXT
    assert message.startswith("the beginning")
    assert message.endswith("the end")
    assert "characters left out" in message
    assert traceback.startswith("Traceback")
    assert traceback.endswith("the end\n")


async def test_the_text_of_an_error_that_is_just_short_enough_is_kept_as_it_is() -> None:
    outcome = await failure(as_plain(ValueError("x" * MAX_TEXT)))

    assert outcome.failure.message == "x" * MAX_TEXT


def leaking(how: str) -> Callable[..., Any]:
    def author(callback_token: str) -> dict[str, Any]:
        match how:
            case "message":
                raise ValueError(f"POST /callback/{callback_token} failed")
            case "details":
                raise ProcessFailureError("no", {"url": [f"/callback/{callback_token}"], callback_token: 1})
            case "details that are not JSON":
                raise ProcessFailureError("no", untyped([callback_token, object()]))
            case "cause":
                try:
                    raise KeyError(callback_token)
                except KeyError as error:
                    raise ValueError("no") from error
            case "value":
                return {"job": {"reply_to": f"https://us/{callback_token}"}}
            case "key":
                return {callback_token: 1}
            case "cut":
                # so long that the cut through the texts would go through the token
                raise ValueError("a" * MAX_TEXT + callback_token + "b" * (MAX_TEXT // 2 - 80))
        raise AssertionError(how)

    return author


@pytest.mark.parametrize("how", ["message", "details", "details that are not JSON", "cause", "value", "key", "cut"])
async def test_the_callback_token_reaches_neither_state_nor_log(how: str) -> None:
    """B36, B40."""
    outcome = await failure(leaking(how), {"callback_token": TOKEN}, token=TOKEN)

    text = repr(outcome)
    assert TOKEN not in text
    assert TOKEN[-20:] not in text
    if how in {"value", "key"}:
        assert outcome.failure.message == "the step 's' returned the callback token: it must not enter the state"
    else:
        assert REDACTED in text


async def test_without_a_callback_nothing_is_redacted() -> None:
    outcome = await failure(as_plain(ValueError(f"token {TOKEN}")))

    assert outcome.failure.message == f"token {TOKEN}"


@pytest.mark.parametrize(("failures", "retry_in"), [(0, 2.0), (1, 4.0), (4, 32.0)])
async def test_a_retrystep_is_tried_again_after_a_delay_that_grows(failures: int, retry_in: float) -> None:
    """B33."""
    policy = RetryPolicy(wait=tenacity.wait_exponential(multiplier=2))

    outcome = await failure(retrystep("s", retry=policy)(as_async(ValueError("no"))), failures=failures)

    assert outcome.retry_in == retry_in


@pytest.mark.parametrize(("failures", "retry_in"), [(0, 5.0), (1, 5.0), (2, None), (7, None)])
async def test_a_retrystep_with_a_limit_ends_failed(failures: int, retry_in: float | None) -> None:
    """B33."""
    policy = RetryPolicy(wait=tenacity.wait_fixed(5), limit=3)

    outcome = await failure(retrystep("s", retry=policy)(as_async(ValueError("no"))), failures=failures)

    assert outcome.retry_in == retry_in


@pytest.mark.parametrize(
    "author",
    [as_async(CommitNotAllowedError("no")), as_async(InvalidResultError("no")), lambda: ["a list"], needs_a_vlan],
)
async def test_defects_of_code_and_state_are_not_tried_again_by_themselves(author: Callable[..., Any]) -> None:
    """B33: the same would come of it; a person must look."""
    assert (await failure(retrystep("s")(author))).retry_in is None


async def test_a_timeout_of_a_retrystep_is_tried_again() -> None:
    """B33."""

    async def author() -> None:
        await asyncio.Event().wait()

    outcome = await failure(retrystep("s", timeout=0.01)(author))

    assert outcome.failure.type == "StepTimeoutError"
    assert outcome.retry_in is not None


async def test_a_retry_policy_that_raises_leaves_the_failure_to_a_person() -> None:
    policy = RetryPolicy(wait=Broken())

    outcome = await failure(retrystep("s", retry=policy)(as_async(ValueError("the node does not answer"))))

    assert outcome.retry_in is None
    assert outcome.failure.message == (
        "the node does not answer (and its retry policy raised ZeroDivisionError: after 1)"
    )


async def test_a_failure_says_nothing_of_the_state() -> None:
    outcome = await failure(step("s")(as_async(ValueError("no"))), {"password": "hunter2"})

    assert "hunter2" not in repr(outcome)


async def test_a_success_after_failures_has_nothing_to_say_of_them() -> None:
    assert (await attempt(retrystep("s")(lambda: None), failures=5)).attempt == 3
