"""Stores the outcome of an attempt – with the author's writes, in one commit – and publishes it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar
from uuid import UUID

import asyncpg
import structlog
import tenacity
from sqlalchemy.exc import SQLAlchemyError

from consumers.batching import Batches
from consumers.metrics import Metrics
from orchestrator.broker.outgoing import Outgoing, look, step_result
from orchestrator.broker.publisher import Publisher
from orchestrator.db.processes.advance import Advance, advance, advance_many, is_committed
from orchestrator.db.processes.claims import Claim
from orchestrator.db.session import CONNECTION_ERRORS, Database, is_connection_error
from orchestrator.db.step_session import StepSession
from orchestrator.engine.decide import Decision, decide
from orchestrator.engine.events import AttemptLost, Event, StepSucceeded
from orchestrator.engine.plan import Leaf, Plan
from orchestrator.engine.process import Process
from orchestrator.errors import CommitNotAllowedError, FencedError, PublishError, StepError, WorkflowChangedError
from orchestrator.messages import StepCommand
from orchestrator.retry import SERVER_AWAY
from orchestrator.services.results import advanced, due_in, new_stamp
from orchestrator.services.steps import failed

logger = structlog.get_logger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Held:
    """A claimed step and the plan that it belongs to."""

    claim: Claim
    plan: Plan


class Finisher:
    """Ends attempts.

    Args:
        redispatch_after: seconds until a coordinator looks whether the next command was lost.
        max_lost_attempts: how often in a row a step may be lost before it is failed.
    """

    def __init__(
        self,
        database: Database,
        publisher: Publisher,
        metrics: Metrics,
        *,
        redispatch_after: float,
        max_lost_attempts: int,
    ) -> None:
        self._database = database
        self._metrics = metrics
        self._publisher = publisher
        self._redispatch_after = redispatch_after
        self._max_lost = max_lost_attempts
        # Commits wait for the disk, so a few are under way while the next gather.
        self._advances = Batches(self._advance_many, at_once=3, largest=50)

    async def store_with_writes(
        self, held: Held, leaf: Leaf, event: Event, session: StepSession, token: str | None
    ) -> None:
        """Store the outcome of a step that had a session: its writes in the same commit, or none if it failed.

        Raises:
            FencedError: another attempt holds the process.
        """
        if not isinstance(event, StepSucceeded) or not session.used:
            await session.discard()
            await self.store(held, event)
            return
        decision = decide(held.plan, held.claim.process, event, new_stamp())
        try:
            connection = await session.hand_over()
            due = due_in(decision, self._redispatch_after)
            one = Advance(held.claim.process, decision, due, held.claim)
            at = await advance(connection, one, mark=session.guard.mark)
            if at is None:
                await _explain(held, session)
            await session.conclude()
        except (SQLAlchemyError, asyncpg.PostgresError, StepError, *CONNECTION_ERRORS) as error:
            await session.discard()
            if not is_connection_error(error):
                # The database refuses what the author wrote only now (a constraint, say), or the step broke the rules.
                explained = session.explained(error)
                await self.store(
                    held, failed(leaf, held.claim.process, explained, token, is_task=held.plan.workflow.is_task)
                )
                return
            # The answer to the commit may be what was lost. Look it up; never repeat it blindly.
            if not await self._patiently(lambda: self._was_committed(held)):
                await self.give_back(held, "lost the database while it committed")
                return
            at = None
        await self._tell(held, decision, at)

    async def store(self, held: Held, event: Event) -> None:
        """Store an outcome that comes without the author's writes. Such a commit may be repeated: the fence decides.

        Raises:
            FencedError: another attempt holds the process.
        """
        decision = decide(held.plan, held.claim.process, event, new_stamp())
        one = Advance(held.claim.process, decision, due_in(decision, self._redispatch_after), held.claim)

        async def commit() -> datetime | None:
            if decision.callback is None:
                return await self._advances(one)
            async with self._database.pool.acquire() as connection:
                return await advance(connection, one)

        at = await self._patiently(commit)
        if at is None and not await self._patiently(lambda: self._was_committed(held)):
            raise FencedError(f"attempt {held.claim.process.attempt} no longer holds the process")
        await self._tell(held, decision, at)

    async def give_back(self, held: Held, because: str | None = None) -> None:
        """Let another attempt run the step. With a reason it counts as lost, and too many in a row fail the step."""
        attempt, consumer = held.claim.process.attempt, held.claim.consumer
        event = AttemptLost(attempt, consumer, given_back=because is None, limit=self._max_lost, because=because or "")
        try:
            await self.store(held, event)
        except (FencedError, WorkflowChangedError) as error:
            logger.info("nothing to give back", **names(held.claim.process), reason=str(error))

    async def nudge(self, process_id: UUID, workflow: str, step: str | None = None) -> None:
        """Ask a coordinator to look at the rows."""
        await self._publish(look(process_id, workflow, step))

    async def _advance_many(self, advances: list[Advance]) -> list[datetime | None]:
        async with self._database.pool.acquire() as connection:
            return await advance_many(connection, advances)

    async def _was_committed(self, held: Held) -> bool:
        async with self._database.pool.acquire() as connection:
            return await is_committed(connection, held.claim.process.process_id, held.claim.process.attempt)

    async def _patiently(self, action: Callable[[], Awaitable[T]]) -> T:
        """Repeat while the database is away: the outcome is kept in memory, and nothing else can store it."""
        try:
            return await action()
        except CONNECTION_ERRORS as error:
            logger.warning("the database is away, outcome kept", error=str(error) or type(error).__name__)
        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(is_connection_error), wait=SERVER_AWAY, reraise=True
        )

        async def again() -> (
            T
        ):  # tenacity awaits only what it can see to be a coroutine function, which a lambda is not
            return await action()

        return await retrying(again)

    async def _tell(self, held: Held, decision: Decision, at: datetime | None) -> None:
        """Publish the result. If that fails the reconciler finds the process in the database.

        Without ``at`` the commit's answer was lost, and the rows know better than we do what happened.
        """
        process = held.claim.process
        if at is None:
            await self.nudge(process.process_id, process.workflow, process.step)
            return
        entry = decision.entries[0]
        if entry.ran:
            self._metrics.ended(process, entry)
        if entry.failure is None:
            logger.info("step finished", status=entry.status.value, process_status=decision.process.status.value)
        else:
            error = f"{entry.failure.type}: {entry.failure.message}"
            logger.warning("step failed", process_status=decision.process.status.value, error=error)
        await self._publish(step_result(advanced(held.plan, decision, at), process.step))

    async def _publish(self, message: Outgoing) -> None:
        try:
            await self._publisher.publish(message)
        except PublishError as error:
            logger.warning(
                "result not published; a coordinator will find it",
                process_id=message.correlation_id,
                workflow=message.headers.get("workflow"),
                step=message.headers.get("step"),
                error=str(error),
            )


def names(attempt: Process | StepCommand) -> dict[str, object]:
    """What a log line says of an attempt."""
    return {
        "process_id": str(attempt.process_id),
        "workflow": attempt.workflow,
        "step": attempt.step,
        "attempt": attempt.attempt,
    }


async def _explain(held: Held, session: StepSession) -> None:
    """Nothing was stored: because the step ended its transaction behind our back, or because we were overtaken."""
    if not await session.mark_is_intact():
        raise CommitNotAllowedError(
            "the step has ended its transaction: what it wrote before may be stored, its result is not"
        )
    raise FencedError(f"attempt {held.claim.process.attempt} no longer holds the process")
