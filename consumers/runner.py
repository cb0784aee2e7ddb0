"""Claim steps as slots become free, run them, and pass their outcomes to :mod:`consumers.completion`."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from datetime import datetime, timedelta
from uuid import UUID

import structlog

from consumers.attempt import ClaimedAttempt
from consumers.batching import Batcher
from consumers.completion import Completion
from consumers.hand_back import HandBack
from consumers.heartbeat import Claims, Heartbeat
from orchestrator.broker.deliveries import RequeueError
from orchestrator.broker.incoming import Delivery
from orchestrator.broker.topology import queue_name
from orchestrator.db.processes.claims import Claim, claim_many, has_moved_on, list_claims
from orchestrator.db.session import Database, is_connection_error
from orchestrator.engine.events import CodeChanged, Failure, Loss, StepFailed
from orchestrator.engine.plan import Plan
from orchestrator.errors import DefinitionError, FencedError, MessageError, NotFoundError, WorkflowChangedError
from orchestrator.log import log_fields
from orchestrator.messages import MessageType, StepCommand, decode
from orchestrator.registry import plan_of
from orchestrator.services.steps import execute
from orchestrator.settings import Limits
from orchestrator.text import format_error, format_message

logger = structlog.get_logger(__name__)

SETTLING_TIME = timedelta(seconds=5)
"""Age of a claim from which a difference between the database and this program's running steps is a fault."""

RELEASE_TIMEOUT = 5.0
"""Seconds for releasing claims when a consumer stops, or its grace period if that is longer."""


class Runner:
    """Takes step commands and runs them, at most ``concurrency`` at once."""

    def __init__(
        self,
        database: Database,
        completion: Completion,
        heartbeat: Heartbeat,
        hand_back: HandBack,
        limits: Limits,
        threads: Executor,
        *,
        concurrency: int,
        max_lost_attempts: int,
        probation_time: float,
    ) -> None:
        self._database = database
        self._max_lost = max_lost_attempts
        self._probation_time = probation_time
        self._probation = asyncio.Lock()
        self._completion = completion
        self._heartbeat = heartbeat
        self._hand_back = hand_back
        self._limits = limits
        self._threads = threads
        self._slots = asyncio.Semaphore(concurrency)
        # Two statements: one in progress while the next gathers.
        self._claims = Batcher(self._claim_many, at_once=2, largest=50)
        self._running: dict[UUID, ClaimedAttempt] = {}
        self._draining = asyncio.Event()

    async def take(self, delivery: Delivery) -> None:
        """Handle a step command: return, and so acknowledge it, once the step is claimed or the command is stale or handed back.

        From the claim on PostgreSQL, not the broker, accounts for the step.
        """
        if delivery.type != MessageType.STEP_COMMAND:
            raise MessageError(
                f"a step queue takes messages of type {MessageType.STEP_COMMAND.value!r}, not {delivery.type!r}"
            )
        command = decode(StepCommand, delivery.body)
        try:
            plan = plan_of(command.workflow)
        except (NotFoundError, DefinitionError) as error:
            await self._hand_back(command, queue_name(delivery.queue), str(error))
            return
        if 0 < command.lost >= self._max_lost - 1:
            await self._take_on_probation(command, plan)
        else:
            await self._take(command, plan)

    async def _take(self, command: StepCommand, plan: Plan) -> asyncio.Task[None] | None:
        await self._slots.acquire()
        task = None
        try:
            if self._draining.is_set():
                raise RequeueError
            task = await self._claim(command, plan)
        finally:
            if task is None:
                self._slots.release()
        return task

    async def _take_on_probation(self, command: StepCommand, plan: Plan) -> None:
        """Take a step that one more loss would fail. Such steps run one at a time, so that a crash can be attributed.

        The next one may start when this one has run for as long as it takes to notice that a consumer died.
        """
        async with self._probation:
            task = await self._take(command, plan)
            if task is not None:
                await asyncio.wait({task}, timeout=self._probation_time)

    @property
    def running(self) -> int:
        """The number of running steps."""
        return len(self._running)

    def refuse(self) -> None:
        """Claim no more steps: commands that wait for a slot are requeued."""
        self._draining.set()

    async def drain(self, grace: float) -> None:
        """Let running steps finish within ``grace`` seconds; cancel the rest and release them, within as long again."""
        self._draining.set()
        tasks = [attempt.task for attempt in self._running.values()]
        if tasks:
            logger.info("draining", running=len(tasks), grace=grace)
            await asyncio.wait(tasks, timeout=grace)
        left = list(self._running.values())
        for attempt in left:
            attempt.task.cancel()
        if left:
            await asyncio.wait([attempt.task for attempt in left])
        try:
            async with asyncio.timeout(max(grace, RELEASE_TIMEOUT)):
                await asyncio.gather(*(self._completion.release(attempt, Loss.GIVEN_BACK) for attempt in left))
        except TimeoutError:
            # The database is down. The heartbeat is about to stop, and then the reconciler finds the claims.
            logger.warning("claims not released in time; found when this consumer is presumed dead", running=len(left))

    async def compare(self, now: datetime, claims: Claims) -> None:
        """Compare the steps that run here with this consumer's claims in the database, after each heartbeat.

        A step without its claim (it was aborted, or given to another consumer while this one was silent) is cancelled: it
        could not commit. A claim without a step (the answer to the claim was lost) is released. Both only after a while,
        because claims come and go between the query and its result.
        """
        settled = now - SETTLING_TIME
        for process_id, attempt in list(self._running.items()):
            if process_id not in claims and attempt.claim.claimed_at < settled:
                logger.warning("step cancelled: its claim is gone", **log_fields(attempt.process))
                attempt.task.cancel()
        unknown = {key for key, since in claims.items() if since < settled and key not in self._running}
        if not unknown:
            return
        async with self._database.pool.acquire() as connection:
            found = await list_claims(connection, self._heartbeat.consumer_id, self._heartbeat.name)
        for claim in found:
            process = claim.process
            if process.process_id not in unknown or process.process_id in self._running:
                continue
            try:
                plan = plan_of(process.workflow)
            except (NotFoundError, DefinitionError) as error:
                logger.error("claim not released", **log_fields(process), error=str(error))  # noqa: TRY400
                continue
            await self._completion.release(
                ClaimedAttempt(self._database, claim, plan),
                Loss.INTERRUPTED,
                "does not run it: the answer to its claim was lost",
            )

    async def _claim(self, command: StepCommand, plan: Plan) -> asyncio.Task[None] | None:
        claim = await self._claims(command)
        if claim is None:
            await self._drop(command)
            return None
        attempt = ClaimedAttempt(self._database, claim, plan)
        attempt.task = asyncio.create_task(self._run(attempt))
        self._running[command.process_id] = attempt
        attempt.task.add_done_callback(lambda task: self._forget(attempt, task))
        return attempt.task

    async def _claim_many(self, commands: list[StepCommand]) -> list[Claim | None]:
        async with self._database.pool.acquire() as connection:
            return await claim_many(
                connection, commands, consumer_id=self._heartbeat.consumer_id, consumer=self._heartbeat.name
            )

    def _forget(self, attempt: ClaimedAttempt, task: asyncio.Task[None]) -> None:
        # Nothing awaits the task. Its claim is released after the next heartbeats, by compare().
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("an attempt has ended without an outcome", exc_info=error)
        if self._running.get(attempt.process.process_id) is attempt:
            del self._running[attempt.process.process_id]
        self._slots.release()

    async def _drop(self, command: StepCommand) -> None:
        """Drop a stale command. If the process has moved on and waits, the message that said so may have been lost."""
        moved_on = await has_moved_on(self._database.pool, command.process_id, command.position, command.attempt)
        logger.debug("stale command", **log_fields(command))
        if moved_on:
            await self._completion.request_look(command.process_id, command.workflow)

    async def _run(self, attempt: ClaimedAttempt) -> None:
        structlog.contextvars.bind_contextvars(**log_fields(attempt.process))
        try:
            await attempt.read_token()
            await self._completion.store(attempt, await execute(attempt, self._limits, self._threads))
        except WorkflowChangedError as error:
            await self._completion.store(attempt, CodeChanged(Failure(type(error).__name__, str(error))))
        except FencedError as error:
            logger.info("attempt overtaken", reason=str(error))
        except Exception as error:
            await attempt.discard()
            if is_connection_error(error):
                logger.warning("database lost during the step", error=format_message(error))
                await self._completion.release(
                    attempt, Loss.INTERRUPTED, "lost its database connection during the step"
                )
                return
            # A defect of ours. The process must not stay claimed for ever by a consumer that lives on.
            logger.exception("attempt not finished")
            text = attempt.redact(f"the engine could not finish this attempt: {format_error(error)}")
            await self._fail(attempt, Failure(type(error).__name__, text))
        finally:
            await attempt.discard()

    async def _fail(self, attempt: ClaimedAttempt, failure: Failure) -> None:
        try:
            await self._completion.store(attempt, StepFailed(attempt.process.attempt, failure))
        except FencedError as error:
            logger.info("attempt overtaken", reason=str(error))
