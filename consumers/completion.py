"""Store the outcome of an attempt together with the step's writes in one commit, and publish it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import ParamSpec, Protocol, TypeVar
from uuid import UUID

import asyncpg
import structlog
import tenacity
from sqlalchemy.exc import SQLAlchemyError

from consumers.attempt import ClaimedAttempt
from consumers.batching import Batcher
from consumers.precedence import Precedence
from consumers.result import Result
from orchestrator.broker import outgoing
from orchestrator.broker.outgoing import Outgoing, step_result
from orchestrator.db.processes.advance import Advance, Receipt, advance_many, is_committed
from orchestrator.db.processes.advance import advance as store_advance
from orchestrator.db.processes.claims import Claim, load_following_claim
from orchestrator.db.session import CONNECTION_ERRORS, Database, is_connection_error
from orchestrator.db.step_session import StepSession
from orchestrator.engine.decide import Decision, decide
from orchestrator.engine.decision import Dispatch, Entry, EntryKind
from orchestrator.engine.events import AttemptLost, Event, Loss, StepSucceeded
from orchestrator.engine.process import Process
from orchestrator.errors import (
    CommitNotAllowedError,
    FencedError,
    PlanMismatchError,
    PublishError,
    StepError,
    WorkflowChangedError,
)
from orchestrator.log import TRACEBACK, log_fields
from orchestrator.outage import Outage
from orchestrator.retry import SERVER_AWAY
from orchestrator.services.reconcile import look
from orchestrator.services.results import compute_due_in, make_stamp
from orchestrator.settings import Limits
from orchestrator.shares import Pace, working_for

logger = structlog.get_logger(__name__)

FEW_SUSPECTS = 10
"""The most suspects that are claimed, or whose losses are stored, in one statement."""

P = ParamSpec("P")
T = TypeVar("T")


class Publishes(Protocol):
    """Publishes messages: the broker's publisher, or the consumer of a child process."""

    async def publish(self, message: Outgoing) -> object: ...


class Counts(Protocol):
    """Counts attempts: the metrics, or the consumer of a child process."""

    def count(self, process: Process, entry: Entry, *, blocked: bool) -> None: ...


class Completion:
    """Stores outcomes and publishes results.

    Args:
        pace: the turns in which outcomes are stored.
        redispatch_after: seconds until the reconciler checks whether the next command was lost.
        max_lost_attempts: how often in a row a step may be lost before it is failed.
    """

    def __init__(
        self,
        database: Database,
        publisher: Publishes,
        metrics: Counts,
        pace: Pace,
        *,
        redispatch_after: float,
        max_lost_attempts: int,
    ) -> None:
        self._database = database
        self._metrics = metrics
        self._publisher = publisher
        self._pace = pace
        self._redispatch_after = redispatch_after
        self._max_lost = max_lost_attempts
        self.precedence = Precedence()
        """The order in which results of statements are passed on, of outcomes as of claims."""
        # Commits wait for the disk, so a few are in progress while the next gather.
        self._advances = Batcher(self._advance_many, at_once=3, largest=50, precedence=self.precedence)
        # Hundreds of suspects may be lost together. In statements of their own they delay no other outcome.
        self._losses = Batcher(self._advance_many, at_once=1, largest=FEW_SUSPECTS)
        self._outage = Outage("the database is away; outcome kept", "outcomes are stored again")
        # Bound once: an unbound logger is bound anew for each line, and there is one for each step.
        self._logger = logger.bind()

    def room(self, queue: str) -> AbstractAsyncContextManager[None]:
        """Return a context manager that delays claims of a queue while its outcomes come faster than they are stored."""
        return self._advances.room(queue)

    def is_held_up(self, queue: str) -> bool:
        """Return whether steps of a queue wait until they may be claimed."""
        return self._advances.is_held_up(queue)

    async def store(self, attempt: ClaimedAttempt, event: Event) -> Claim | None:
        """Store the outcome of an attempt, together with what a successful step has written through its session.

        Returns:
            The claim of the next step, if this consumer goes on with it; then nothing has been published yet.

        Raises:
            FencedError: another attempt holds the process.
        """
        # A session that was used has a connection, and may have locks that others wait for.
        holds = attempt.session is not None and attempt.session.used
        async with self._pace.turn(working_for.get(), at_once=holds, has_begun=True):
            return await self._store(attempt, event)

    async def _store(self, attempt: ClaimedAttempt, event: Event) -> Claim | None:
        decision = decide(attempt.plan, attempt.process, event, make_stamp())
        stretch = attempt.stretch
        advance = Advance(
            attempt.process,
            decision,
            compute_due_in(decision, self._redispatch_after),
            attempt.claim,
            goes_on=stretch is not None and stretch.may_go_on(event, decision),
            held_from=None if stretch is None else stretch.held_from,
        )
        result = Result(attempt, decision)
        if not advance.goes_on:
            result.build_meanwhile()
        session = attempt.session
        if session is not None and session.used and isinstance(event, StepSucceeded):
            return await self._store_with_writes(attempt, session, advance, result)
        await attempt.discard()
        # Such a commit may be repeated: the fence decides.
        receipt = await self.retry_outages(self._advance, advance)
        if receipt is None and not await self.retry_outages(self._was_committed, attempt):
            raise FencedError(f"attempt {attempt.process.attempt} no longer holds the process")
        return await self._report(result, receipt)

    async def release(self, attempt: ClaimedAttempt, loss: Loss, because: str = "") -> None:
        """Release the claim, so that another attempt runs the step.

        Args:
            because: what was observed, as a predicate that follows the consumer's name.
        """
        event = AttemptLost(attempt.process.attempt, attempt.claim.consumer, loss, because, self._max_lost)
        try:
            await self._store(attempt, event)
        except (FencedError, WorkflowChangedError) as error:
            logger.info("no claim to release", **log_fields(attempt.process), reason=str(error))

    async def release_to_own(self, attempt: ClaimedAttempt, loss: Loss, because: str) -> Dispatch | None:
        """Release the claim for another attempt by this consumer; publish only the events.

        Returns:
            The next attempt; ``None`` when the outcome was stored after all, or another attempt holds the process.
        """
        event = AttemptLost(attempt.process.attempt, attempt.claim.consumer, loss, because, self._max_lost)
        try:
            decision = decide(attempt.plan, attempt.process, event, make_stamp())
        except WorkflowChangedError as error:
            logger.info("no claim to release", **log_fields(attempt.process), reason=str(error))
            return None
        advance = Advance(attempt.process, decision, compute_due_in(decision, self._redispatch_after), attempt.claim)
        receipt = await self.retry_outages(self._losses, advance)
        await self._report(Result(attempt, replace(decision, dispatch=None)), receipt)
        return None if receipt is None else decision.dispatch

    async def request_look(self, process_id: UUID, workflow: str, step: str | None = None) -> None:
        """Ask a coordinator to read the rows of a process and publish what is due."""
        await self.publish(outgoing.look(process_id, workflow, step))

    async def move(self, process_id: UUID, limits: Limits) -> None:
        """Move a process to the registered plan, which this consumer has, and let a coordinator publish its command anew."""
        try:
            async with self._database.transaction() as session:
                message = await look(session, process_id, limits)
        except PlanMismatchError as error:
            # Another plan was registered meanwhile; programs that have it move the process.
            logger.info("process not moved", process_id=str(process_id), reason=str(error))
            return
        if message is not None:
            logger.info("process moved to the registered plan", process_id=str(process_id), workflow=message.workflow)
            await self.publish(step_result(message, None if message.next is None else message.next.step))

    async def _store_with_writes(
        self, attempt: ClaimedAttempt, session: StepSession, advance: Advance, result: Result
    ) -> Claim | None:
        """Commit the outcome in the transaction of the step's writes."""
        try:
            connection = await session.hand_over()
            receipt = await store_advance(connection, advance, mark=session.guard.mark)
            if receipt is None:
                await _explain(attempt, session)
            await session.conclude()
        except (SQLAlchemyError, asyncpg.PostgresError, StepError, *CONNECTION_ERRORS) as error:
            await session.discard()
            if not is_connection_error(error):
                # The database rejects the step's writes only now (by a constraint, say), or the step broke the rules.
                return await self._store(attempt, attempt.fail(session.explained(error)))
            # Perhaps only the answer to the commit was lost. Look it up; never repeat it blindly.
            if not await self.retry_outages(self._was_committed, attempt):
                await self.release(attempt, Loss.INTERRUPTED, "lost its database connection during the commit")
                return None
            receipt = None
        return await self._report(result, receipt)

    async def _advance(self, advance: Advance) -> Receipt | None:
        if advance.decision.callback is None:
            return await self._advances(advance)
        async with self._database.pool.acquire() as connection:
            return await store_advance(connection, advance)

    async def _advance_many(self, advances: list[Advance]) -> list[Receipt | None]:
        async with self._database.pool.acquire() as connection:
            return await advance_many(connection, advances)

    async def _was_committed(self, attempt: ClaimedAttempt) -> bool:
        async with self._database.pool.acquire() as connection:
            return await is_committed(connection, attempt.process.process_id, attempt.process.attempt)

    async def _load_following(self, before: Claim) -> Claim | None:
        async with self._database.pool.acquire() as connection:
            return await load_following_claim(connection, before)

    async def retry_outages(self, action: Callable[P, Awaitable[T]], *args: P.args, **options: P.kwargs) -> T:
        """Repeat an action while the database is down, because only this program has the outcome, in memory."""
        try:
            outcome: T = await action(*args, **options)
        except Exception as error:
            if not is_connection_error(error):
                raise
            self._outage.report(error)
            # The first retry is immediate, because the pool may merely have kept a dead connection. Built only here, because it
            # costs as much as a decision.
            retrying = tenacity.AsyncRetrying(
                retry=tenacity.retry_if_exception(is_connection_error),
                wait=SERVER_AWAY,
                before_sleep=lambda call: self._outage.report(
                    None if call.outcome is None else call.outcome.exception()
                ),
                reraise=True,
            )
            outcome = await retrying(action, *args, **options)
        self._outage.over()
        return outcome

    async def _report(self, result: Result, receipt: Receipt | None) -> Claim | None:
        """Publish the result, unless the next step is claimed. If publishing fails, the reconciler finds the process.

        Without a receipt the answer to the commit was lost, so the coordinator must read from the rows what happened.
        """
        attempt, decision = result.attempt, result.decision
        process = attempt.process
        if receipt is None:
            if attempt.stretch is not None:
                following = await self.retry_outages(self._load_following, attempt.claim)
                if following is not None:
                    await self.release(ClaimedAttempt(self._database, following, attempt.plan), Loss.GIVEN_BACK)
            await self.request_look(process.process_id, process.workflow, process.step)
            return None
        stretch = attempt.stretch
        if stretch is not None and receipt.following is not None:
            self._note(attempt, decision)
            stretch.hold(attempt.plan, decision, receipt)
            return receipt.following
        message = result.complete(receipt)
        if stretch is not None:
            stretch.end()
        # Behind the message: others wait for that.
        asyncio.get_running_loop().call_soon(self._note, attempt, decision)
        await self.publish(message)
        return None

    def _note(self, attempt: ClaimedAttempt, decision: Decision) -> None:
        """Count the outcome and write the line of the log."""
        entry = decision.entries[0]
        if entry.ran:
            self._metrics.count(attempt.process, entry, blocked=attempt.note is not None)
        if entry.kind is EntryKind.PROCESS:
            self._logger.info("claim released", reason=entry.note)
        elif entry.failure is None:
            self._logger.info("step finished", status=entry.status, process_status=decision.process.status)
        else:
            error = f"{entry.failure.type}: {entry.failure.message}"
            fields = {TRACEBACK: entry.failure.traceback}
            self._logger.warning("step failed", process_status=decision.process.status.value, error=error, **fields)

    async def publish(self, message: Outgoing) -> bool:
        """Publish a result; return whether the broker has accepted it. If not, the reconciler finds the process."""
        try:
            await self._publisher.publish(message)
        except PublishError as error:
            logger.warning(
                "result not published; the reconciler will find it",
                process_id=message.correlation_id,
                workflow=message.headers.get("workflow"),
                step=message.headers.get("step"),
                error=str(error),
            )
            return False
        return True


async def _explain(attempt: ClaimedAttempt, session: StepSession) -> None:
    """Raise the error that says why nothing was stored: the step ended its transaction, or the attempt was overtaken."""
    if not await session.mark_is_intact():
        raise CommitNotAllowedError(
            "the step has ended its transaction: what it wrote before may be stored, its result is not"
        )
    raise FencedError(f"attempt {attempt.process.attempt} no longer holds the process")
