"""Runs steps: claim, execute, finish in one commit, publish the result."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg
import structlog
import tenacity
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from consumers.heartbeat import Claims, Heartbeat
from orchestrator.broker.deliveries import Delivery, NotTakenError
from orchestrator.broker.publisher import Outgoing, Publisher, trace_headers
from orchestrator.broker.topology import RESULT_KEY, Exchanges
from orchestrator.db.processes import Claim, advance, callback_token, claim, committed, held
from orchestrator.db.session import CONNECTION_ERRORS, Database, is_connection_error
from orchestrator.db.step_session import StepSession
from orchestrator.engine.decide import decide
from orchestrator.engine.decision import Decision
from orchestrator.engine.events import AttemptLost, CodeChanged, Event, Failure, StepFailed, StepSucceeded
from orchestrator.engine.plan import Leaf, Plan
from orchestrator.errors import (
    CommitNotAllowedError,
    DefinitionError,
    FencedError,
    MessageError,
    NotFoundError,
    PublishError,
    WorkflowChangedError,
)
from orchestrator.messages import Advanced, Look, MessageType, StepCommand, decode, encode
from orchestrator.registry import plan_of
from orchestrator.services.execute import StepLimits, execute, failed
from orchestrator.services.outcome import advanced, due_in
from orchestrator.services.start import new_stamp
from orchestrator.workflow import StepKind

logger = structlog.get_logger(__name__)

SETTLING_TIME = timedelta(seconds=5)
"""How old a claim must be before a difference between it and what runs here means something."""

_STALE = "SELECT status, claimed_by, position, attempt FROM processes WHERE process_id = $1"


@dataclass(slots=True)
class Running:
    """A step under way."""

    claim: Claim
    plan: Plan
    task: asyncio.Task[None] = field(init=False)


class Runner:
    """Takes step commands and runs them, at most ``concurrency`` at once."""

    def __init__(
        self,
        database: Database,
        publisher: Publisher,
        heartbeat: Heartbeat,
        limits: StepLimits,
        threads: Executor,
        *,
        concurrency: int,
        redispatch_after: float,
    ) -> None:
        self._database = database
        self._publisher = publisher
        self._heartbeat = heartbeat
        self._limits = limits
        self._threads = threads
        self._slots = asyncio.Semaphore(concurrency)
        self._redispatch_after = redispatch_after
        self._running: dict[UUID, Running] = {}
        self._draining = asyncio.Event()

    async def take(self, delivery: Delivery) -> None:
        """Handle a step command: returns, and so acknowledges it, once the step is claimed or the command found stale.

        From the claim on PostgreSQL, not the broker, answers for the step.
        """
        if delivery.type != MessageType.STEP_COMMAND:
            raise MessageError(
                f"a step queue takes messages of type {MessageType.STEP_COMMAND.value!r}, not {delivery.type!r}"
            )
        command = decode(StepCommand, delivery.body)
        try:
            plan = plan_of(command.workflow)
        except (NotFoundError, DefinitionError) as error:
            # Another consumer may have the code (a rolling deploy): the reconciler publishes the command again.
            logger.error("step not run: this consumer lacks the workflow", error=str(error), **_names(command))  # noqa: TRY400
            return
        await self._slots.acquire()
        taken = False
        try:
            if self._draining.is_set():
                raise NotTakenError
            taken = await self._claim(command, plan)
        finally:
            if not taken:
                self._slots.release()

    def refuse(self) -> None:
        """Claim nothing more: commands that wait for a slot go back to their queue."""
        self._draining.set()

    async def drain(self, grace: float) -> None:
        """Let running steps finish within ``grace`` seconds; cancel the rest and give them back."""
        self._draining.set()
        tasks = [one.task for one in self._running.values()]
        if tasks:
            logger.info("draining", running=len(tasks), grace=grace)
            await asyncio.wait(tasks, timeout=grace)
        left = list(self._running.values())
        for one in left:
            one.task.cancel()
        if left:
            await asyncio.wait([one.task for one in left])
        for one in left:
            await self._give_back(one)

    async def compare(self, now: datetime, claims: Claims) -> None:
        """Compare what runs here with what the database says runs here, after each heartbeat.

        A step whose claim is no longer ours (aborted, or given to others while we were silent) is cancelled: it could not
        commit any more. A claim that we know nothing of (the answer to the claim was lost) is given back. Both only after
        a while, because claims come and go between the question and the answer.
        """
        settled = now - SETTLING_TIME
        for process_id, one in list(self._running.items()):
            if process_id not in claims and one.claim.claimed_at < settled:
                logger.warning("step cancelled: its claim is gone", process_id=str(process_id))
                one.task.cancel()
        unknown = {key for key, since in claims.items() if since < settled and key not in self._running}
        if not unknown:
            return
        async with self._database.pool.acquire() as connection:
            found = await held(connection, self._heartbeat.consumer_id, self._heartbeat.name)
        for one_claim in found:
            if one_claim.process.process_id not in unknown or one_claim.process.process_id in self._running:
                continue
            try:
                plan = plan_of(one_claim.process.workflow)
            except (NotFoundError, DefinitionError) as error:
                logger.error("claim not given back", process_id=str(one_claim.process.process_id), error=str(error))  # noqa: TRY400
                continue
            await self._give_back(Running(one_claim, plan))

    async def _claim(self, command: StepCommand, plan: Plan) -> bool:
        async with self._database.pool.acquire() as connection:
            claimed = await claim(
                connection,
                command.process_id,
                position=command.position,
                attempt=command.attempt,
                consumer_id=self._heartbeat.consumer_id,
                consumer=self._heartbeat.name,
                announced=command.announced,
            )
        if claimed is None:
            await self._drop(command)
            return False
        running = Running(claimed, plan)
        running.task = asyncio.create_task(self._run(running))
        self._running[command.process_id] = running
        running.task.add_done_callback(lambda _: self._forget(running))
        return True

    def _forget(self, running: Running) -> None:
        if self._running.get(running.claim.process.process_id) is running:
            del self._running[running.claim.process.process_id]
        self._slots.release()

    async def _drop(self, command: StepCommand) -> None:
        """A stale command. If the process has moved on and nobody runs it, the message that said so may be what was lost."""
        row = await self._database.pool.fetchrow(_STALE, command.process_id)
        logger.debug("stale command", **_names(command))
        if row is None or row["status"] != "running" or row["claimed_by"] is not None:
            return
        if (row["position"], row["attempt"]) != (command.position, command.attempt):
            await self._publish(MessageType.LOOK, Look(process_id=command.process_id), command.workflow, None)

    async def _run(self, running: Running) -> None:
        process = running.claim.process
        structlog.contextvars.bind_contextvars(
            process_id=str(process.process_id), workflow=process.workflow, step=process.step, attempt=process.attempt
        )
        session = None
        try:
            leaf = running.plan.locate(process)
            token = await self._token(leaf, process.process_id)
            if "session" in leaf.arguments.engine:
                session = StepSession(self._database.engine)
            engine = self._engine_arguments(leaf, running.claim, session, token)
            event: Event = await execute(leaf, process, engine, self._limits, self._threads, secret=token)
            await self._finish(running, leaf, event, session, token)
        except WorkflowChangedError as error:
            await self._store(running, CodeChanged(Failure(type(error).__name__, str(error))))
        except FencedError as error:
            logger.info("attempt overtaken", reason=str(error))
        except Exception as error:
            # A defect of ours. The process must not stay claimed for ever by a consumer that lives on.
            logger.exception("attempt not finished")
            if is_connection_error(error):
                await self._give_back(running)
            else:
                failure = Failure(type(error).__name__, f"the engine could not finish this attempt: {error}")
                await self._store(running, StepFailed(process.attempt, failure))
        finally:
            if session is not None:
                await session.discard()

    async def _finish(
        self, running: Running, leaf: Leaf, event: Event, session: StepSession | None, token: str | None
    ) -> None:
        """Store the outcome: with the author's writes in one commit, or without them when the step failed."""
        if session is None or not isinstance(event, StepSucceeded):
            if session is not None:
                await session.discard()
            await self._store(running, event)
            return
        try:
            if not session.used:
                await self._store(running, event)
                return
            decision = self._decide(running, event)
            connection = await session.hand_over()
            at = await advance(
                connection,
                running.claim.process,
                decision,
                due_in=due_in(decision, self._redispatch_after),
                claim=running.claim,
                mark=session.guard.mark,
            )
            if at is None:
                await self._explain(session, running)
            await _commit(session)
        except (SQLAlchemyError, asyncpg.PostgresError, CommitNotAllowedError, *CONNECTION_ERRORS) as error:
            await session.discard()
            if is_connection_error(error):
                # The answer to the commit may be what was lost. Look it up; never repeat it blindly.
                if not await self._was_committed_patiently(running):
                    await self._give_back(running)
                    return
                at = None
            else:
                # What the author wrote is refused by the database only now (a constraint, say), or the step broke the rules.
                await self._store(running, failed(leaf, running.claim.process, error, token))
                return
        await self._tell(running, decision, at)

    async def _explain(self, session: StepSession, running: Running) -> None:
        """Nothing was stored: because the step has ended its transaction behind our back, or because we were overtaken."""
        if not await session.mark_is_intact():
            raise CommitNotAllowedError(
                "the step has ended its transaction: what it wrote before may be stored, its result is not"
            )
        raise FencedError(f"attempt {running.claim.process.attempt} no longer holds the process")

    async def _store(self, running: Running, event: Event) -> None:
        """Store an outcome that comes without the author's writes; such a commit may be tried again, the fence decides."""
        decision = self._decide(running, event)
        at = None
        async for attempt in tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(is_connection_error),
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=5),
            before_sleep=lambda state: logger.warning("the database is away, outcome kept", tries=state.attempt_number),
            reraise=True,
        ):
            with attempt:
                if attempt.retry_state.attempt_number > 1 and await self._was_committed(running):
                    break
                async with self._database.pool.acquire() as connection:
                    at = await advance(
                        connection,
                        running.claim.process,
                        decision,
                        due_in=due_in(decision, self._redispatch_after),
                        claim=running.claim,
                    )
                if at is None and not await self._was_committed(running):
                    raise FencedError(f"attempt {running.claim.process.attempt} no longer holds the process")
        await self._tell(running, decision, at)

    def _decide(self, running: Running, event: Event) -> Decision:
        return decide(running.plan, running.claim.process, event, new_stamp())

    async def _was_committed(self, running: Running) -> bool:
        async with self._database.pool.acquire() as connection:
            process = running.claim.process
            return await committed(connection, process.process_id, process.attempt)

    async def _was_committed_patiently(self, running: Running) -> bool:
        async for attempt in tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(is_connection_error),
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=5),
            reraise=True,
        ):
            with attempt:
                return await self._was_committed(running)
        raise AssertionError("unreachable: the loop above returns or raises")

    async def _tell(self, running: Running, decision: Decision, at: datetime | None) -> None:
        """Publish the result. If that fails the reconciler finds the process in the database.

        Without ``at`` the commit's answer was lost and the rows know better than we do what happened.
        """
        process = running.claim.process
        if at is None:
            await self._publish(MessageType.LOOK, Look(process_id=process.process_id), process.workflow, process.step)
            return
        last = decision.entries[0]
        level = "warning" if last.failure is not None else "info"
        getattr(logger, level)(
            "step finished",
            status=last.status.value,
            process_status=decision.process.status.value,
            error=None if last.failure is None else f"{last.failure.type}: {last.failure.message}",
        )
        message = advanced(running.plan, decision, at)
        await self._publish(MessageType.STEP_RESULT, message, process.workflow, process.step)

    async def _publish(self, kind: MessageType, message: Look | Advanced, workflow: str, step: str | None) -> None:
        try:
            await self._publisher.publish(
                Outgoing(
                    exchange=Exchanges.RESULTS,
                    routing_key=RESULT_KEY,
                    type=kind.value,
                    body=encode(message),
                    correlation_id=str(message.process_id),
                    headers=trace_headers(message.process_id, workflow, step),
                )
            )
        except PublishError as error:
            logger.warning("result not published; a coordinator will find it", error=str(error))

    async def _give_back(self, running: Running) -> None:
        process = running.claim.process
        try:
            await self._store(running, AttemptLost(process.attempt, running.claim.consumer, given_back=True))
        except FencedError:
            logger.info("nothing to give back", process_id=str(process.process_id))
        except (DBAPIError, *CONNECTION_ERRORS) as error:
            logger.warning("not given back; the heartbeat's silence will do it", error=str(error))

    async def _token(self, leaf: Leaf, process_id: UUID) -> str | None:
        if leaf.step.kind is not StepKind.ACTION:
            return None
        async with self._database.pool.acquire() as connection:
            return await callback_token(connection, process_id)

    def _engine_arguments(
        self, leaf: Leaf, claimed: Claim, session: StepSession | None, token: str | None
    ) -> dict[str, object]:
        process = claimed.process
        arguments: dict[str, object] = {
            "state": process.state,
            "process_id": process.process_id,
            "idempotency_key": process.idempotency_key(leaf.step.name),
        }
        if session is not None:
            arguments["session"] = session
        if token is not None and leaf.step.callback is not None:
            arguments["callback_token"] = token
            arguments["callback_exchange"] = Exchanges.CALLBACKS.value
            arguments[leaf.step.callback.route_key] = f"/api/processes/{process.process_id}/callback/{token}"
        return arguments


async def _commit(session: StepSession) -> None:
    """Commit; a cancellation on the way must not leave the outcome unknown, so it waits for the answer first."""
    commit = asyncio.ensure_future(session.commit())
    try:
        await asyncio.shield(commit)
    except asyncio.CancelledError:
        await asyncio.wait({commit})
        raise


def _names(command: StepCommand) -> dict[str, object]:
    return {
        "process_id": str(command.process_id),
        "workflow": command.workflow,
        "step": command.step,
        "attempt": command.attempt,
    }
