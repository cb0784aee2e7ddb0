"""Running one attempt of one step: arguments in, the author's function, an event out. Touches no server itself."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

from pydantic_core import PydanticSerializationError, from_json, to_json

from orchestrator import user_code as authored
from orchestrator.engine.arguments import Arguments, call, is_async
from orchestrator.engine.events import Failure, StepFailed, StepSucceeded
from orchestrator.engine.plan import Leaf
from orchestrator.engine.process import Process
from orchestrator.engine.state import canonical, check_size
from orchestrator.errors import (
    CommitNotAllowedError,
    InvalidResultError,
    MissingArgumentError,
    ProcessFailureError,
    StepTimeoutError,
)
from orchestrator.services.injection import Loaded, ReturnedModels, take_models
from orchestrator.text import message_of, shortened, storable, traceback_of
from orchestrator.types import JSON, ProcessStatus, State, Stored

NOT_RETRIED = (CommitNotAllowedError, InvalidResultError, MissingArgumentError)
"""Defects of the code or the state: trying again by itself would give the same, so a person must look."""

REDACTED = "[callback token]"


@dataclass(frozen=True, slots=True)
class StepLimits:
    """The settings that running a step needs; the timeout in seconds, the state limits in bytes of JSON."""

    timeout: float
    state_soft_limit: int
    state_hard_limit: int


class Models(Protocol):
    """How a step's models come from the database and go back; made by whoever owns the step's transaction."""

    async def load(self, arguments: Arguments, state: State) -> Loaded:
        """Load what the step asks for, and let go of the connection."""
        ...

    async def save(self, returned: ReturnedModels) -> object:
        """Save the models in what it returned, in the transaction that its outcome is stored in."""
        ...

    async def send(self) -> None:
        """Send what the step has left pending in its session."""
        ...

    def explained(self, error: Exception) -> Exception:
        """The error with which the step fails, for one that the step's session has raised."""
        ...


async def execute(
    leaf: Leaf,
    process: Process,
    engine: Mapping[str, object],
    limits: StepLimits,
    threads: Executor,
    *,
    models: Models | None = None,
    secret: str | None = None,
    is_task: bool = False,
    is_outage: Callable[[BaseException], bool] | None = None,
) -> StepSucceeded | StepFailed:
    """Run the step at ``leaf`` for the attempt that ``process`` is at.

    Whatever the author's code raises becomes a :class:`StepFailed`; only a cancellation from outside goes through.

    Args:
        engine: the parameters that the engine fills, by name.
        threads: where plain functions run.
        models: where domain models come from; without it there are none.
        secret: the callback token, which must not reach the state or the log.
        is_task: in a task, a failed assertion means that the data is inconsistent.
        is_outage: tells an error of our own servers, which goes through, from the author's.
    """
    step = leaf.step
    what = f"the step {step.name!r}"
    seconds = limits.timeout if step.timeout is None else step.timeout.total_seconds()
    deadline = _Deadline(what, seconds, asyncio.get_running_loop().time() + seconds)
    try:
        loaded = None
        if models is not None and leaf.arguments.stored:
            async with deadline.during("while its models were loaded"):
                loaded = await models.load(leaf.arguments, process.state)
        arguments = leaf.arguments.fill(process.state, engine, loaded)
        assert step.function is not None  # noqa: S101 - only steps with a function are dispatched
        returned = await _call(step.function, arguments, deadline, threads)
        if isinstance(returned, Stored):
            raise InvalidResultError(
                f"{what} returned {type(returned).__name__}: return a dict that has it under a key"
            )
        if models is not None and (taken := take_models(returned)) is not None:
            # Somebody else may have locked the rows for as long as they like; that must not cost us a connection meanwhile.
            async with deadline.during("while its models were saved"):
                returned = await models.save(taken)
        if models is not None:
            # Now, within the step's time and as its failure, not when the outcome is stored.
            async with deadline.during("while what it had written was sent"):
                await models.send()
        delta = canonical(returned, what)
        if secret is not None and secret.encode() in to_json(delta):
            raise InvalidResultError(f"{what} returned the callback token: it must not enter the state")
        warning = check_size({**process.state, **delta}, soft=limits.state_soft_limit, hard=limits.state_hard_limit)
    except Exception as error:
        # The author's code may raise anything, sys.exit() included; it fails the step and never the consumer.
        if is_outage is not None and is_outage(error):
            raise
        explained = error if models is None else models.explained(error)
        return failed(leaf, process, explained, secret, is_task=is_task)
    return StepSucceeded(process.attempt, delta, warning)


@dataclass(frozen=True, slots=True)
class _Deadline:
    """Until when an attempt may run: its models are loaded and saved within the step's timeout as well.

    Args:
        what: names the step in error texts.
        seconds: its timeout.
        moment: by the event loop's clock.
    """

    what: str
    seconds: float
    moment: float

    @property
    def left(self) -> float:
        """Seconds."""
        return max(self.moment - asyncio.get_running_loop().time(), 0)

    def passed(self, where: str = "") -> StepTimeoutError:
        """The error to raise."""
        cancelled = f"{self.what} was cancelled {where}".rstrip()
        return StepTimeoutError(f"{cancelled}: it ran longer than its timeout of {self.seconds:g} s")

    @asynccontextmanager
    async def during(self, where: str) -> AsyncIterator[None]:
        """Cancel what stands inside when the time is over."""
        try:
            async with asyncio.timeout_at(self.moment) as limit:
                yield
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise self.passed(where) from error


async def _call(
    function: Callable[..., Any], arguments: Mapping[str, Any], deadline: _Deadline, threads: Executor
) -> object:
    outcome = await authored.run(
        functools.partial(call, function, arguments),
        is_async=is_async(function),
        seconds=deadline.left,
        what=deadline.what,
        threads=threads,
    )
    if outcome is authored.OVERDUE:
        raise deadline.passed()
    if outcome is authored.CANCELLED:
        raise StepTimeoutError(f"{deadline.what} cancelled itself")
    if isinstance(outcome, authored.Raised):
        raise authored.as_error(outcome, "the step")
    return outcome


def failed(
    leaf: Leaf, process: Process, error: BaseException, secret: str | None, *, is_task: bool = False
) -> StepFailed:
    """The event that an error of this attempt stands for, with the secret taken out of every text."""
    details = getattr(error, "details", None) if isinstance(error, ProcessFailureError) else None
    failure = Failure(
        type=type(error).__name__.removeprefix("_"),
        message=shown(message_of(error), secret),
        traceback=shown(traceback_of(error), secret),
        details=_document(details, secret),
        status=(
            ProcessStatus.INCONSISTENT_DATA if is_task and isinstance(error, AssertionError) else ProcessStatus.FAILED
        ),
    )
    policy = leaf.step.retry
    retry_in = None
    if policy is not None and not isinstance(error, NOT_RETRIED):
        try:
            retry_in = policy.delay(process.failures + 1)
        except Exception as defect:
            # A wait strategy of the author's own. Without a delay a person must look, and both texts are needed for that.
            note = f"{failure.message} (and its retry policy raised {type(defect).__name__}: {message_of(defect)})"
            failure = replace(failure, message=shown(note, secret))
    return StepFailed(process.attempt, failure, retry_in)


def shown(text: str, secret: str | None) -> str:
    """A text of an error as it is stored: without the secret, and not too long."""
    # Cleaned before it is cut, because a cut through the secret would leave most of it.
    return shortened(_clean(text, secret))


def _clean(text: str, secret: str | None) -> str:
    return storable(text if secret is None else text.replace(secret, REDACTED))


def _document(details: object, secret: str | None) -> JSON:
    try:
        return cast(
            "JSON", from_json(_clean(to_json(details, inf_nan_mode="strings").decode(), secret).replace("\\u0000", ""))
        )
    except (PydanticSerializationError, ValueError):
        return _clean(repr(details), secret)
