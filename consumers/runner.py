"""Claim steps as slots become free, run them, and pass their outcomes to :mod:`consumers.completion`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

import structlog

from consumers.attempt import ClaimedAttempt
from consumers.batching import Batcher
from consumers.completion import Completion
from consumers.contexts import in_context
from consumers.execution import run_attempt
from consumers.hand_back import HandBack
from consumers.heartbeat import Claims, Heartbeat
from consumers.isolation import Isolation
from consumers.precedence import Precedence
from consumers.run_ahead import Budget, RunAhead, Stretch
from consumers.threads import StepThreads
from orchestrator.broker.deliveries import RequeueError
from orchestrator.broker.incoming import Delivery
from orchestrator.broker.topology import queue_name
from orchestrator.db.processes.bases import Bases
from orchestrator.db.processes.claims import Claim, Wanted, claim_many, list_claims, read_standing
from orchestrator.db.processes.due import postpone
from orchestrator.db.session import Database
from orchestrator.engine.events import Loss
from orchestrator.engine.plan import Plan
from orchestrator.errors import DefinitionError, MessageError, NotFoundError
from orchestrator.log import log_fields
from orchestrator.messages import MessageType, StepCommand, decode
from orchestrator.registry import plan_of
from orchestrator.settings import Limits
from orchestrator.shares import Admission, Pace, Shares, working_for

logger = structlog.get_logger(__name__)

SETTLING_TIME = timedelta(seconds=5)
"""The age of a claim from which a difference between the database and the running steps is an error."""

RELEASE_TIMEOUT = 5.0
"""Seconds for releasing claims when a consumer stops. The others are released when it is presumed dead."""


SUSPECT_PAUSE = 10.0
"""Seconds until a suspect comes again that arrives while no place for it is free."""


def make_claims(
    database: Database,
    heartbeat: Heartbeat,
    *,
    at_once: int = 2,
    largest: int = 50,
    precedence: Precedence | None = None,
) -> Batcher[StepCommand, Claim | None]:
    """Return a batcher that claims the steps of commands; its result is ``None`` for a stale command or another plan.

    Args:
        at_once, largest: the most statements in progress, and the most claims in one.
        precedence: decides which queue goes before others.
    """
    bases = Bases()

    async def claim(commands: list[StepCommand]) -> list[Claim | None]:
        wanted = [Wanted(one, plan_of(one.workflow).fingerprint) for one in commands]
        async with database.pool.acquire() as connection:
            return await claim_many(
                connection, wanted, consumer_id=heartbeat.consumer_id, consumer=heartbeat.name, bases=bases
            )

    return Batcher(claim, at_once=at_once, largest=largest, precedence=precedence)


class Runner:
    """Takes step commands and runs them.

    Args:
        slots: one for each step that may run at once.
        pace: the turns in which steps are claimed, and those that need a connection begin.
        budget: how far steps run ahead.
    """

    def __init__(
        self,
        database: Database,
        completion: Completion,
        heartbeat: Heartbeat,
        hand_back: HandBack,
        claims: Batcher[StepCommand, Claim | None],
        isolation: Isolation,
        limits: Limits,
        threads: StepThreads,
        slots: Shares,
        pace: Pace,
        budget: Budget,
    ) -> None:
        self._database = database
        self._completion = completion
        self._heartbeat = heartbeat
        self._hand_back = hand_back
        self._claims = claims
        self._isolation = isolation
        self._limits = limits
        self._threads = threads
        self._slots = slots
        self._pace = pace
        self._admission = Admission(database.connections, pace)
        self._running: dict[UUID, ClaimedAttempt] = {}
        self._given_back: set[UUID] = set()
        self._draining = asyncio.Event()
        self._ahead = RunAhead(budget, slots, self._draining, completion.publish, completion.is_held_up)

    async def take(self, delivery: Delivery) -> None:
        """Handle a step command; return, which acknowledges it, once it is claimed, found stale, or handed back.

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
        queue = queue_name(delivery.queue)
        working_for.set(queue)
        if command.plan not in (None, plan.fingerprint):
            await self._give_up(command, plan, queue)
        elif command.lost:
            await self._take_suspect(command, plan, queue)
        else:
            await self._take(command, plan, queue)

    async def _take(self, command: StepCommand, plan: Plan, queue: str) -> None:
        async with self._completion.room(queue):
            is_running = await self._claim_and_run(command, plan, queue)
        if not is_running:
            await self._give_up(command, plan, queue)

    async def _claim_and_run(self, command: StepCommand, plan: Plan, queue: str) -> bool:
        await self._slots.acquire(queue)
        is_running = False
        try:
            async with self._pace.turn(queue):
                if self._draining.is_set():
                    raise RequeueError
                claim = await self._claims(command)
            if claim is not None:
                stretch = self._ahead.begin(plan.workflow, queue, unread=command.unread)
                self._run(ClaimedAttempt(self._database, claim, plan), stretch)
                is_running = True
        finally:
            if not is_running:
                self._slots.release(queue)
        return is_running

    async def _take_suspect(self, command: StepCommand, plan: Plan, queue: str) -> None:
        """Claim a step whose consumer fell silent. It takes no slot, so that suspects never delay other steps."""
        if self._draining.is_set():
            raise RequeueError
        if not self._isolation.take_place(queue):
            # The rows are the truth: the reconciler publishes the command again when it is due.
            async with self._database.transaction() as session:
                await postpone(session, [command.process_id], SUSPECT_PAUSE)
            return
        claim = None
        try:
            async with self._pace.turn(queue):
                claim = await self._isolation.claim(command)
        finally:
            if claim is None:
                self._isolation.leave_place(queue)
        if claim is None:
            await self._give_up(command, plan, queue)
        else:
            self._isolation.add(command, queue, ClaimedAttempt(self._database, claim, plan))

    @property
    def running(self) -> int:
        """The number of running steps."""
        return len(self._running) + len(self._isolation)

    @property
    def attempts(self) -> list[ClaimedAttempt]:
        """The attempts that run here, or in child processes."""
        return [*self._running.values(), *self._isolation.attempts.values()]

    def refuse(self) -> None:
        """Claim no more steps: commands that wait for a slot are requeued."""
        self._draining.set()
        self._pace.lift()

    async def drain(self, grace: float) -> None:
        """Let running steps finish within ``grace`` seconds; cancel the rest and release them, without waiting for long."""
        self.refuse()
        isolated = asyncio.create_task(self._isolation.drain(grace))
        # Their functions wait for a thread, perhaps because other functions do not end; another consumer can begin them.
        in_line = [one for one in self._running.values() if one.activity is not None and one.activity.in_line]
        giving = asyncio.create_task(self._hand_over(in_line))
        tasks = [one.task for one in self._running.values() if one not in in_line]
        if tasks:
            logger.info("draining", running=len(tasks), grace=grace)
            await asyncio.wait(tasks, timeout=grace)
        await giving
        running = list(self._running.values())
        await self._cancel(running)
        left = [*running, *await isolated]
        await self._give_back(left, lambda _: True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RELEASE_TIMEOUT):
                await self._ahead.finish()

    async def _hand_over(self, attempts: list[ClaimedAttempt]) -> None:
        """Cancel attempts that have not begun, and release their claims, while others still run."""
        await self._cancel(attempts)
        await self._give_back(attempts, lambda process_id: process_id in self._given_back)

    async def _cancel(self, attempts: list[ClaimedAttempt]) -> None:
        # Between the end of a task and the release of its claim, compare() would take the claim for a lost one.
        self._given_back.update(one.process.process_id for one in attempts)
        for one in attempts:
            one.task.cancel()
        if attempts:
            await asyncio.wait([one.task for one in attempts])

    async def _give_back(self, attempts: list[ClaimedAttempt], is_over: Callable[[UUID], bool]) -> None:
        """Release claims, without waiting for long.

        Args:
            is_over: returns whether other claims of a process are released, too: its next step may have been claimed at the
                moment when the step was cancelled.
        """
        if not attempts:
            return
        try:
            async with asyncio.timeout(RELEASE_TIMEOUT):
                await asyncio.gather(*(self._completion.release(one, Loss.GIVEN_BACK) for one in attempts))
                for claim in await self._completion.retry_outages(self._list_claims):
                    if is_over(claim.process.process_id):
                        await self._release(claim, Loss.GIVEN_BACK)
        except TimeoutError:
            # The database is down. The heartbeat is about to stop, and then the reconciler finds the claims.
            logger.warning(
                "claims not released in time; found when this consumer is presumed dead", running=len(attempts)
            )

    async def compare(self, now: datetime, claims: Claims) -> None:
        """Compare the steps that run here with this consumer's claims in the database, after each heartbeat.

        A step without its claim (it was aborted, or given to another consumer while this one was silent) is cancelled: it
        could not commit. A claim without a step (the answer to the claim was lost) is released. Both only after a while,
        because claims change between the query and its result.
        """
        settled = now - SETTLING_TIME
        for process_id, attempt in list(self._running.items()):
            if process_id not in claims and attempt.claim.claimed_at < settled:
                logger.warning("step cancelled: its claim is gone", **log_fields(attempt.process))
                attempt.task.cancel()
        for process_id, attempt in self._isolation.attempts.items():
            if process_id not in claims and attempt.claim.claimed_at < settled:
                logger.warning("step cancelled: its claim is gone", **log_fields(attempt.process))
                self._isolation.cancel(process_id)
        unknown = {key for key, since in claims.items() if since < settled and not self._knows(key)}
        if not unknown:
            return
        for claim in await self._list_claims():
            if claim.process.process_id in unknown and not self._knows(claim.process.process_id):
                await self._release(claim, Loss.INTERRUPTED, "does not run it: the answer to its claim was lost")

    async def _list_claims(self) -> list[Claim]:
        async with self._database.pool.acquire() as connection:
            return await list_claims(connection, self._heartbeat.consumer_id, self._heartbeat.name)

    async def _release(self, claim: Claim, loss: Loss, because: str = "") -> None:
        """Release a claim whose step this consumer does not run."""
        try:
            plan = plan_of(claim.process.workflow)
        except (NotFoundError, DefinitionError) as error:
            logger.error("claim not released", **log_fields(claim.process), error=str(error))  # noqa: TRY400
            return
        await self._completion.release(ClaimedAttempt(self._database, claim, plan), loss, because)

    def _knows(self, process_id: UUID) -> bool:
        known = (self._running, self._isolation.attempts, self._given_back)
        return any(process_id in one for one in known)

    def _run(self, attempt: ClaimedAttempt, stretch: Stretch) -> None:
        """Run a claimed step and the others of its stretch in a new task, which takes over the slot."""
        task = asyncio.create_task(self._run_stretch(attempt, stretch), context=stretch.context)
        self._begin(attempt, stretch, task)
        task.add_done_callback(partial(self._end, attempt.process.process_id, stretch))

    def _begin(self, attempt: ClaimedAttempt, stretch: Stretch, task: asyncio.Task[None]) -> None:
        attempt.stretch, attempt.task = stretch, task
        self._running[attempt.process.process_id] = attempt

    async def _run_stretch(self, attempt: ClaimedAttempt, stretch: Stretch) -> None:
        task = attempt.task
        while True:
            # One task for all of them, but a context for each, so that no step sees changes of another.
            context = stretch.context.copy()
            step = run_attempt(attempt, self._admission, self._completion, self._limits, self._threads)
            claim = await in_context(step, context)
            if claim is None:
                return
            attempt = ClaimedAttempt(self._database, claim, attempt.plan)
            if self._draining.is_set():
                attempt.stretch = stretch
                await in_context(self._completion.release(attempt, Loss.GIVEN_BACK), context)
                return
            self._begin(attempt, stretch, task)

    def _end(self, process_id: UUID, stretch: Stretch, task: asyncio.Task[None]) -> None:
        # Nothing awaits the task. Its claim is released after the next heartbeats, by compare().
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("an attempt has ended without an outcome", exc_info=error)
        running = self._running.get(process_id)
        if running is not None and running.task is task:
            del self._running[process_id]
        stretch.end()
        self._slots.release(stretch.queue)

    async def _give_up(self, command: StepCommand, plan: Plan, queue: str) -> None:
        """Drop a stale command that was not claimed; pass it on if the process has another plan.

        If this consumer has the registered plan, it moves the process, and a coordinator publishes the command anew.
        """
        found = await read_standing(self._database.pool, command.process_id)
        if found is None:
            logger.debug("stale command", **log_fields(command))
        elif found.plan not in (None, plan.fingerprint) and found.registered == plan.fingerprint:
            await self._completion.move(command.process_id, self._limits)
        elif (found.position, found.attempt) != (command.position, command.attempt):
            # The message about its present position may have been lost.
            await self._completion.request_look(command.process_id, command.workflow, command.step)
        elif plan.fingerprint != (found.plan or found.registered):
            reason = (
                f"the process has the plan {found.plan or found.registered} of the workflow {command.workflow!r}, and this"
                f" consumer has {plan.fingerprint}"
            )
            await self._hand_back(command.model_copy(update={"plan": found.plan}), queue, reason)
