"""Run one attempt of one step: fill its arguments, call the author's function, return the event it stands for.

This module itself uses no server; :class:`Attempt` says what an attempt needs of one.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from pydantic_core import to_json

from orchestrator import user_code
from orchestrator.activity import find_lost_time
from orchestrator.engine.arguments import call
from orchestrator.engine.events import Failure, StepFailed, StepSucceeded
from orchestrator.engine.plan import Leaf, Plan
from orchestrator.engine.process import Process
from orchestrator.engine.state import canonical, check_size, read_back
from orchestrator.errors import (
    CommitNotAllowedError,
    InvalidResultError,
    MissingArgumentError,
    ProcessFailureError,
    StepTimeoutError,
    UnreadableStateError,
)
from orchestrator.services.injection import Loaded, ReturnedModels, check_saved, take_models
from orchestrator.settings import Limits
from orchestrator.text import format_message, format_object, format_traceback, sanitise, shorten
from orchestrator.threads import Threads
from orchestrator.types import JSON, ProcessStatus, Stored
from orchestrator.unawaited import collect_unawaited

NOT_RETRIED = (CommitNotAllowedError, InvalidResultError, MissingArgumentError, UnreadableStateError)
"""Defects of the code or the state: an automatic retry would end the same way, so an operator must act."""

REDACTED = "[callback token]"

MAX_DETAILS = 64_000
"""Characters of JSON of an error's details; longer ones are kept as a text, shortened."""

RUNNING_STEP = "orchestrator.running_step"
"""Under this key a step's session carries its :class:`RunningStep`, in ``session.info``."""


@dataclass(frozen=True, slots=True)
class RunningStep:
    """The attempt to which a session belongs."""

    process: Process
    limits: Limits


class Attempt:
    """One attempt of one step. This base has no database, so its step can use neither models nor a session.

    Args:
        process: the process as this attempt found it.
        token: the callback token of an action; it must not reach the state or the log.
    """

    def __init__(self, process: Process, plan: Plan, token: str | None = None) -> None:
        self.process = process
        self.plan = plan
        self.token = token
        self._leaf: Leaf | None = None

    @property
    def leaf(self) -> Leaf:
        """The step to run; raises WorkflowChangedError when the code no longer has it."""
        found = self._leaf
        if found is None:
            found = self._leaf = self.plan.locate(self.process)
        return found

    def engine_arguments(self, _: Limits) -> dict[str, object]:
        """Return the parameters that the engine fills, by name."""
        arguments: dict[str, object] = {"state": self.process.state, "process_id": self.process.process_id}
        if "idempotency_key" in self.leaf.arguments.engine:  # most steps do not ask for it
            arguments["idempotency_key"] = self.process.idempotency_key(self.leaf.step.name)
        return arguments

    async def load_models(self) -> Loaded:
        """Load the models that the step requests, and release the connection."""
        return {}

    @property
    def saved(self) -> Collection[UUID]:
        """The subscriptions that the step has saved itself."""
        return ()

    async def save_models(self, returned: ReturnedModels) -> object:
        """Save the models that the step returned, in the transaction that its outcome is stored in."""
        return returned.value

    @property
    def has_written(self) -> bool:
        """Whether the step has used its session, so that there may be changes to send."""
        return False

    async def flush(self) -> None:
        """Send pending changes of the step's session."""

    def is_outage(self, error: Exception) -> bool:  # noqa: ARG002 - for those with a database
        """Return whether an error means that our own database was lost, so that it is not the step's failure."""
        return False

    def explain(self, error: Exception) -> Exception:
        """Return the error with which the step fails, for one that its session has raised."""
        return error

    def redact(self, text: str) -> str:
        """Return a text of an error as it is stored: without the token, and not too long."""
        # Redacted before it is cut, because a cut through the token would leave most of it.
        return shorten(self._without_token(text))

    def fail(self, error: BaseException) -> StepFailed:
        """Return the event that an error of this attempt stands for, with the token removed from every text."""
        details = getattr(error, "details", None) if isinstance(error, ProcessFailureError) else None
        is_inconsistent = self.plan.workflow.is_task and isinstance(error, AssertionError)
        failure = Failure(
            type=type(error).__name__.removeprefix("_"),
            message=self.redact(format_message(error)),
            traceback=self.redact(format_traceback(error)),
            details=self._redact_details(details),
            status=ProcessStatus.INCONSISTENT_DATA if is_inconsistent else ProcessStatus.FAILED,
        )
        policy = self.leaf.step.retry
        retry_in = None
        if policy is not None and not isinstance(error, NOT_RETRIED):
            try:
                retry_in = policy.delay(self.process.failures + 1)
            except Exception as defect:
                # The author's own wait strategy raised. Without a delay an operator must act, and needs both texts.
                note = (
                    f"{failure.message} (and its retry policy raised {type(defect).__name__}: {format_message(defect)})"
                )
                failure = replace(failure, message=self.redact(note))
        return StepFailed(self.process.attempt, failure, retry_in)

    def _without_token(self, text: str) -> str:
        return sanitise(text if self.token is None else text.replace(self.token, REDACTED))

    def _redact_details(self, details: object) -> JSON:
        try:
            document = self._without_token(to_json(details, inf_nan_mode="strings").decode())
            if len(document) > MAX_DETAILS:
                return shorten(document)
            return read_back(document.replace("\\u0000", "").encode(), within=1)
        except (ValueError, RecursionError):
            return self.redact(format_object(details))


async def execute(attempt: Attempt, limits: Limits, threads: Threads) -> StepSucceeded | StepFailed:
    """Run the step of an attempt; plain functions run in ``threads``.

    Whatever user code raises becomes a :class:`StepFailed`; only a cancellation from outside and an outage of our
    own servers are raised.
    """
    leaf, process = attempt.leaf, attempt.process
    step = leaf.step
    what = f"the step {step.name!r}"
    seconds = limits.step_timeout if step.timeout is None else step.timeout.total_seconds()
    deadline = _Deadline(what, seconds, asyncio.get_running_loop().time() + seconds, find_lost_time())
    try:
        process.require_readable()
        loaded = None
        if leaf.arguments.stored:
            async with deadline.during("while its models were loaded"):
                loaded = await attempt.load_models()
        given = attempt.engine_arguments(limits) if leaf.arguments.engine else {}  # most steps ask for none of them
        arguments = leaf.arguments.fill(process.state, given, loaded)
        with collect_unawaited() as unawaited:
            returned = await _call(leaf, arguments, deadline, threads)
        if unawaited:
            raise InvalidResultError(f"{what} has not awaited {unawaited[0]}: write 'await' before the call")
        if isinstance(returned, Stored):
            raise InvalidResultError(
                f"{what} returned {type(returned).__name__}: return a dict that has it under a key"
            )
        models = take_models(returned)
        if models is not None:
            # Another process may hold row locks for as long as it likes; waiting for them must not cost us a connection.
            async with deadline.during("while its models were saved"):
                returned = await attempt.save_models(models)
        if loaded:
            check_saved(loaded, models, attempt.saved)
        # Now, within the step's time and as its failure, not when the outcome is stored.
        if attempt.has_written:
            async with deadline.during("while what it had written was sent"):
                await attempt.flush()
        delta = canonical(returned, what)
        if attempt.token is not None and attempt.token.encode() in to_json(delta):
            raise InvalidResultError(f"{what} returned the callback token: it must not enter the state")
        warning = check_size({**process.state, **delta}, soft=limits.state_soft_limit, hard=limits.state_hard_limit)
    except Exception as error:
        # User code may raise anything, sys.exit() included; it fails the step and never the consumer.
        if attempt.is_outage(error):
            raise
        return attempt.fail(attempt.explain(error))
    return StepSucceeded(process.attempt, delta, warning)


@dataclass(slots=True)
class _Deadline:
    """The moment at which an attempt must end. Loading and saving its models counts towards the step's timeout.

    Args:
        what: names the step in error texts.
        seconds: the step's timeout.
        planned: the moment by the event loop's clock, unless others block the loop.
        lost_before: for how many seconds others had blocked the loop when the attempt began.
    """

    what: str
    seconds: float
    planned: float
    lost_before: float

    @property
    def moment(self) -> float:
        """The moment by the event loop's clock: time in which others block the loop does not count."""
        return self.planned + find_lost_time() - self.lost_before

    @property
    def left(self) -> float:
        """Seconds until the moment."""
        return max(self.moment - asyncio.get_running_loop().time(), 0)

    def error(self, where: str = "") -> StepTimeoutError:
        """Build the error for an attempt that was cancelled at this deadline."""
        cancelled = f"{self.what} was cancelled {where}".rstrip()
        return StepTimeoutError(f"{cancelled}: it ran longer than its timeout of {self.seconds:g} s")

    @asynccontextmanager
    async def during(self, where: str) -> AsyncIterator[None]:
        """Cancel the body when the deadline passes."""
        loop = asyncio.get_running_loop()
        looking: asyncio.TimerHandle | None = None

        def look() -> None:
            """End the body, or look again later: time may have been lost meanwhile."""
            nonlocal looking
            if self.left > 0:
                looking = loop.call_later(max(self.left, 0.01), look)
            else:
                limit.reschedule(loop.time())

        try:
            async with asyncio.timeout(None) as limit:
                looking = loop.call_later(self.left, look)
                try:
                    yield
                finally:
                    looking.cancel()
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise self.error(where) from error


async def _call(leaf: Leaf, arguments: Mapping[str, Any], deadline: _Deadline, threads: Threads) -> object:
    assert leaf.step.function is not None  # noqa: S101 - only steps with a function are dispatched
    outcome = await user_code.run(
        functools.partial(call, leaf.step.function, arguments),
        is_async=leaf.arguments.is_async,
        seconds=deadline.left,
        what=deadline.what,
        threads=threads,
    )
    if outcome is user_code.OVERDUE:
        raise deadline.error()
    if outcome is user_code.CANCELLED:
        raise StepTimeoutError(f"{deadline.what} cancelled itself")
    return user_code.unwrap(outcome, "the step")
