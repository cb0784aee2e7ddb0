"""Takes step commands: claims a step when there is a free slot, runs it, and hands its outcome over to be stored."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

import structlog

from consumers.attempt import Work
from consumers.batching import Batches
from consumers.completion import Finisher, Held, names
from consumers.heartbeat import Claims, Heartbeat
from orchestrator.broker.deliveries import RequeueError
from orchestrator.broker.incoming import Delivery
from orchestrator.broker.topology import Exchanges
from orchestrator.db.callbacks import read_token
from orchestrator.db.processes.claims import Claim, ClaimRequest, claim_many, has_moved_on, list_claims
from orchestrator.db.session import Database, is_connection_error
from orchestrator.engine.events import CodeChanged, Failure, StepFailed
from orchestrator.engine.plan import Leaf, Plan
from orchestrator.errors import DefinitionError, FencedError, MessageError, NotFoundError, WorkflowChangedError
from orchestrator.messages import MessageType, StepCommand, decode
from orchestrator.registry import plan_of
from orchestrator.services.steps import StepLimits, execute, shown
from orchestrator.services.subscriptions import passes_locks
from orchestrator.text import class_and_message
from orchestrator.workflow import StepKind

logger = structlog.get_logger(__name__)

SETTLING_TIME = timedelta(seconds=5)
"""How old a claim must be before a difference between it and what runs here means something."""

GIVE_BACK_TIME = 5.0
"""Seconds that giving back may take when a consumer stops, or its grace period if that is longer."""


@dataclass(slots=True)
class Running:
    """A step under way."""

    held: Held
    task: asyncio.Task[None] = field(init=False)


class Runner:
    """Takes step commands and runs them, at most ``concurrency`` at once."""

    def __init__(
        self,
        database: Database,
        finisher: Finisher,
        heartbeat: Heartbeat,
        limits: StepLimits,
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
        self._finisher = finisher
        self._heartbeat = heartbeat
        self._limits = limits
        self._threads = threads
        self._slots = asyncio.Semaphore(concurrency)
        # Two: one under way while the next gathers.
        self._claims = Batches(self._claim_many, at_once=2, largest=50)
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
            logger.error("step not run: this consumer lacks the workflow", error=str(error), **names(command))  # noqa: TRY400
            return
        if 0 < command.lost >= self._max_lost - 1:
            await self._take_on_probation(command, plan)
        else:
            await self._take(command, plan)

    async def _take(self, command: StepCommand, plan: Plan) -> asyncio.Task[None] | None:
        await self._slots.acquire()
        taken = None
        try:
            if self._draining.is_set():
                raise RequeueError
            taken = await self._claim(command, plan)
        finally:
            if taken is None:
                self._slots.release()
        return taken

    async def _take_on_probation(self, command: StepCommand, plan: Plan) -> None:
        """Take a step whose next loss would fail it: one after the other, so that it is clear which one is deadly.

        One that has survived as long as a death takes to be noticed makes room for the next.
        """
        async with self._probation:
            task = await self._take(command, plan)
            if task is not None:
                await asyncio.wait({task}, timeout=self._probation_time)

    @property
    def running(self) -> int:
        """How many steps run at this moment."""
        return len(self._running)

    def refuse(self) -> None:
        """Claim nothing more: commands that wait for a slot go back to their queue."""
        self._draining.set()

    async def drain(self, grace: float) -> None:
        """Let running steps finish within ``grace`` seconds; cancel the rest and give them back, in as long again at most."""
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
        try:
            async with asyncio.timeout(max(grace, GIVE_BACK_TIME)):
                await asyncio.gather(*(self._finisher.give_back(one.held) for one in left))
        except TimeoutError:
            # The database is away. We are about to fall silent, and then a coordinator finds the claims.
            logger.warning("not given back in time; found when this consumer is presumed dead", running=len(left))

    async def compare(self, now: datetime, claims: Claims) -> None:
        """Compare what runs here with what the database says runs here, after each heartbeat.

        A step whose claim is no longer ours (aborted, or given to others while we were silent) is cancelled: it could not
        commit any more. A claim that we know nothing of (the answer to the claim was lost) is given back. Both only after
        a while, because claims come and go between the question and the answer.
        """
        settled = now - SETTLING_TIME
        for process_id, one in list(self._running.items()):
            if process_id not in claims and one.held.claim.claimed_at < settled:
                logger.warning("step cancelled: its claim is gone", **names(one.held.claim.process))
                one.task.cancel()
        unknown = {key for key, since in claims.items() if since < settled and key not in self._running}
        if not unknown:
            return
        async with self._database.pool.acquire() as connection:
            found = await list_claims(connection, self._heartbeat.consumer_id, self._heartbeat.name)
        for one_claim in found:
            if one_claim.process.process_id not in unknown or one_claim.process.process_id in self._running:
                continue
            try:
                plan = plan_of(one_claim.process.workflow)
            except (NotFoundError, DefinitionError) as error:
                logger.error("claim not given back", **names(one_claim.process), error=str(error))  # noqa: TRY400
                continue
            await self._finisher.give_back(Held(one_claim, plan), "does not know of it")

    async def _claim(self, command: StepCommand, plan: Plan) -> asyncio.Task[None] | None:
        wanted = ClaimRequest(command.process_id, command.position, command.attempt, command.announced)
        claimed = await self._claims(wanted)
        if claimed is None:
            await self._drop(command)
            return None
        running = Running(Held(claimed, plan))
        running.task = asyncio.create_task(self._run(running))
        self._running[command.process_id] = running
        running.task.add_done_callback(lambda task: self._forget(running, task))
        return running.task

    async def _claim_many(self, wanted: list[ClaimRequest]) -> list[Claim | None]:
        async with self._database.pool.acquire() as connection:
            return await claim_many(
                connection, wanted, consumer_id=self._heartbeat.consumer_id, consumer=self._heartbeat.name
            )

    def _forget(self, running: Running, task: asyncio.Task[None]) -> None:
        # Nobody awaits it. The claim is given back after the next heartbeats, by compare().
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("an attempt has ended without an outcome", exc_info=error)
        if self._running.get(running.held.claim.process.process_id) is running:
            del self._running[running.held.claim.process.process_id]
        self._slots.release()

    async def _drop(self, command: StepCommand) -> None:
        """A stale command. If the process has moved on and nobody runs it, the message that said so may be what was lost."""
        moved_on = await has_moved_on(self._database.pool, command.process_id, command.position, command.attempt)
        logger.debug("stale command", **names(command))
        if moved_on:
            await self._finisher.nudge(command.process_id, command.workflow)

    async def _run(self, running: Running) -> None:
        held = running.held
        process = held.claim.process
        structlog.contextvars.bind_contextvars(**names(process))
        work = Work(self._database, process.process_id, passes_locks=passes_locks(held.plan.workflow))
        token: str | None = None
        try:
            leaf = held.plan.locate(process)
            token = await self._token(leaf, process.process_id)
            event = await execute(
                leaf,
                process,
                _engine_arguments(leaf, held.claim, work, token),
                self._limits,
                self._threads,
                models=work,
                secret=token,
                is_task=held.plan.workflow.is_task,
                is_outage=work.is_outage,
            )
            if work.session is None:
                await self._finisher.store(held, event)
            else:
                await self._finisher.store_with_writes(held, leaf, event, work.session, token)
        except WorkflowChangedError as error:
            await self._finisher.store(held, CodeChanged(Failure(type(error).__name__, str(error))))
        except FencedError as error:
            logger.info("attempt overtaken", reason=str(error))
        except Exception as error:
            await work.discard()
            if is_connection_error(error):
                logger.warning("the database went away under the step", error=str(error) or type(error).__name__)
                await self._finisher.give_back(held, "lost the database in the middle of it")
                return
            # A defect of ours. The process must not stay claimed for ever by a consumer that lives on.
            logger.exception("attempt not finished")
            message = shown(f"the engine could not finish this attempt: {class_and_message(error)}", token)
            await self._fail(held, Failure(type(error).__name__, message))
        finally:
            await work.discard()

    async def _fail(self, held: Held, failure: Failure) -> None:
        try:
            await self._finisher.store(held, StepFailed(held.claim.process.attempt, failure))
        except FencedError as error:
            logger.info("attempt overtaken", reason=str(error))

    async def _token(self, leaf: Leaf, process_id: UUID) -> str | None:
        if leaf.step.kind is not StepKind.ACTION:
            return None
        async with self._database.pool.acquire() as connection:
            return await read_token(connection, process_id)


def _engine_arguments(leaf: Leaf, claimed: Claim, work: Work, token: str | None) -> dict[str, object]:
    process = claimed.process
    arguments: dict[str, object] = {
        "state": process.state,
        "process_id": process.process_id,
        "idempotency_key": process.idempotency_key(leaf.step.name),
    }
    if "session" in leaf.arguments.engine:
        arguments["session"] = work.open()
    if token is not None and leaf.step.callback is not None:
        arguments["callback_token"] = token
        arguments["callback_exchange"] = Exchanges.CALLBACKS.value
        arguments[leaf.step.callback.route_key] = f"/api/processes/{process.process_id}/callback/{token}"
    return arguments
