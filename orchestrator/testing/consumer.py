"""The consumer of a test, and as much of a coordinator as it needs: it runs steps one after the other, without a broker.

It claims, runs and stores as the consumer program does, by the same code. What programs would publish is a queue in memory.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import Context
from dataclasses import replace
from uuid import UUID, uuid4

from sqlalchemy.ext.asyncio import AsyncSession

from consumers.attempt import ClaimedAttempt
from consumers.completion import Completion
from consumers.execution import run_attempt
from consumers.threads import StepThreads
from orchestrator.broker.outgoing import Outgoing, step_command
from orchestrator.db.consumers import ConsumerFacts, record_heartbeat, remove_consumer
from orchestrator.db.processes.claims import Claim, Wanted, claim_many, lock_lost_claims
from orchestrator.db.processes.due import find_due, lock_scheduled
from orchestrator.db.processes.passing import pass_time, seconds_until
from orchestrator.db.session import Database
from orchestrator.engine.decision import Entry
from orchestrator.engine.events import Event
from orchestrator.engine.process import Process
from orchestrator.messages import Advanced, Look, MessageType, StepCommand, decode
from orchestrator.registry import find_abilities, plan_of, step_queues
from orchestrator.services.plans import ProgramPlans
from orchestrator.services.reconcile import apply_early_answer, begin, look, release_lost_claim
from orchestrator.settings import Settings
from orchestrator.shares import MANY, Admission, Pace
from orchestrator.testing.crashes import ConsumerCrash, Crashes
from orchestrator.types import ProcessStatus
from orchestrator.workflow import DEFAULT_QUEUE, TASK_QUEUE

_NAME = "of the test"
"""Logs say: the consumer of the test."""

_BATCH = 1000
"""Processes that are looked at in one round."""

_LEASE = 60.0
"""Seconds for which a process counts as published: nothing else publishes here."""


class LocalConsumer:
    """Runs all steps that are due, and those that follow.

    Args:
        crashes: where it dies.
    """

    def __init__(self, database: Database, settings: Settings, crashes: Crashes) -> None:
        self._database = database
        self._settings = settings
        self._crashes = crashes
        self._queues = sorted({DEFAULT_QUEUE, TASK_QUEUE} | step_queues())
        self._threads = StepThreads(settings.step_threads)
        # Without rests: nothing else competes for this program.
        pace = Pace(few=MANY, rest=0)
        database.share(self._queues)
        self._admission = Admission(database.connections, pace)
        self._completion = _Completion(crashes, database, self, pace, settings)
        self._published: deque[Outgoing] = deque()
        self._commands: deque[StepCommand] = deque()
        self._running: ClaimedAttempt | None = None
        self.tokens: dict[UUID, str] = {}
        """The newest callback token of each process."""

    async def register(self) -> None:
        """Record that there is a consumer that has never run anything."""
        self._id = uuid4()
        patience = self._settings.presumed_dead_after
        facts = ConsumerFacts(
            self._id,
            _NAME,
            tuple(self._queues),
            1,
            self._settings.heartbeat_interval,
            patience,
            find_abilities(),
        )
        await record_heartbeat(self._database.pool, facts)

    def close(self) -> None:
        """End the threads of plain steps."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def publish(self, message: Outgoing) -> None:
        """Take what a consumer publishes when it has stored an outcome."""
        if self._running is not None:
            self._crashes.reach(self._running.leaf.step.name, "after_commit")
        self._published.append(message)

    def count(self, process: Process, entry: Entry, *, blocked: bool) -> None:
        """Count nothing: a test has no metrics."""

    async def take(self, message: Advanced | None) -> None:
        """Do what a coordinator does when a process has advanced: publish its next command; apply an answer that came early."""
        if message is None:
            return
        if message.next is not None:
            published = step_command(message, message.next, message.sequence)
            self._commands.append(decode(StepCommand, published.body))
        if message.status == ProcessStatus.AWAITING_CALLBACK.value:
            await self.take(await self._act(message.process_id, self._apply_early_answer))

    async def run(self) -> None:
        """Run steps until every process rests."""
        while True:
            if self._published:
                await self._receive(self._published.popleft())
            elif self._commands:
                await self._run_step(self._commands.popleft())
            elif not await self._begin_new():
                return

    async def run_due(self) -> None:
        """Do what is due by now, as a coordinator's reconciler does, and run what follows."""
        for process_id, _ in await self._find_due():
            await self.take(await self._act(process_id, self._look))
        await self.run()

    async def _receive(self, message: Outgoing) -> None:
        if message.type == MessageType.STEP_RESULT:
            await self.take(decode(Advanced, message.body))
        elif message.type == MessageType.LOOK:
            await self.take(await self._act(decode(Look, message.body).process_id, self._look))

    async def _run_step(self, command: StepCommand) -> None:
        claim = await self._claim(command)
        if claim is None:
            return  # the engine is paused, or the process was aborted meanwhile
        attempt = ClaimedAttempt(self._database, claim, plan_of(command.workflow))
        try:
            self._crashes.reach(command.step, "before")
            self._running = attempt
            limits = self._settings.limits
            running = run_attempt(attempt, self._admission, self._completion, limits, self._threads)
            # A context of its own, as in a consumer: nothing of the step is left in the test's.
            await asyncio.create_task(running, context=Context())
        except ConsumerCrash:
            self._running = None
            await attempt.discard()
            await self._take_over(command.process_id)
        finally:
            self._running = None
            if attempt.token is not None:
                self.tokens[command.process_id] = attempt.token

    async def _claim(self, command: StepCommand) -> Claim | None:
        wanted = Wanted(command, plan_of(command.workflow).fingerprint)
        async with self._database.pool.acquire() as connection:
            (claim,) = await claim_many(connection, [wanted], consumer_id=self._id, consumer=_NAME)
        return claim

    async def _take_over(self, process_id: UUID) -> None:
        """Do what a coordinator does when a consumer has fallen silent, and let another one go on."""
        async with self._database.pool.acquire() as connection:
            await remove_consumer(connection, self._id)
        async with self._database.transaction() as session:
            lost = await lock_lost_claims(session, reads_for=0, presumed_dead_after=0, limit=_BATCH)
            # Its row has gone, because no test waits until it has been silent for so long.
            lost = [replace(one, consumer=_NAME, silent_for=self._settings.presumed_dead_after) for one in lost]
            messages = [await release_lost_claim(session, one, self._settings.limits) for one in lost]
        await self.register()
        if not messages:
            # The outcome is stored, and the message about it lost.
            await self.take(await self._act(process_id, self._look))
        for message in messages:
            await self.take(message)
            if message.status == ProcessStatus.WAITING.value:
                # A step that is lost again waits for a while before it is run once more.
                await self.wait_until_due(message.process_id)
                await self.take(await self._act(message.process_id, self._look))

    async def wait_until_due(self, process_id: UUID) -> bool:
        """Let the time pass until a process is due; return whether it is due at all."""
        async with self._database.transaction() as session:
            found = await lock_scheduled(session, process_id)
            if found is None or found.due_at is None:
                return False
            await pass_time(session, await seconds_until(session, found.due_at))
        return True

    async def _begin_new(self) -> bool:
        """Publish the first commands of processes that steps have started; return whether there were some."""
        new = [process_id for process_id, is_new in await self._find_due() if is_new]
        async with self._database.transaction() as session:
            messages = await begin(session, new, _LEASE) if new else []
        for message in messages:
            await self.take(message)
        return bool(messages)

    async def _find_due(self) -> list[tuple[UUID, bool]]:
        plans = ProgramPlans.load()
        async with self._database.transaction() as session:
            await plans.refresh(session)
            found = await find_due(session, plans.fingerprints, plans.current, at_rest=_BATCH, running=_BATCH)
        return [(one.process_id, one.is_new) for one in found]

    async def _look(self, session: AsyncSession, process_id: UUID) -> Advanced | None:
        return await look(session, process_id, self._settings.limits)

    async def _apply_early_answer(self, session: AsyncSession, process_id: UUID) -> Advanced | None:
        return await apply_early_answer(session, process_id, self._settings.limits)

    async def _act(
        self, process_id: UUID, use_case: Callable[[AsyncSession, UUID], Awaitable[Advanced | None]]
    ) -> Advanced | None:
        async with self._database.transaction() as session:
            return await use_case(session, process_id)


class _Completion(Completion):
    """Stores outcomes, unless the consumer dies before."""

    def __init__(
        self, crashes: Crashes, database: Database, consumer: LocalConsumer, pace: Pace, settings: Settings
    ) -> None:
        super().__init__(
            database,
            consumer,
            consumer,
            pace,
            redispatch_after=settings.redispatch_after,
            max_lost_attempts=settings.max_lost_attempts,
        )
        self._crashes = crashes

    async def store(self, attempt: ClaimedAttempt, event: Event) -> Claim | None:
        await self._crashes.end_run(attempt.process, attempt.leaf.step.name, event)
        return await super().store(attempt, event)
