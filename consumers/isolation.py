"""Run suspects (steps whose consumer fell silent) in child processes, and bisect them whenever a child dies.

A suspect is claimed like any other step, by this consumer; a child process runs it under that claim. The consumer notices the
end of a child at once. If the child ran one step, its death counts against that step. If it ran several, each half of them runs
in a child of its own, until the deadly one is alone. No other step shares a process with a suspect.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import structlog

from consumers.attempt import ClaimedAttempt
from consumers.child import ChildError, ChildProcess
from consumers.completion import Completion
from consumers.halving import LARGEST_GROUP, Group, Halving
from consumers.metrics import Metrics
from consumers.nursery import Nursery
from consumers.pipe import Begin, Cancel, Count, Ended, Failed, Publish, Ready, Run
from orchestrator.db.processes.claims import Claim
from orchestrator.db.session import Database
from orchestrator.engine.events import Loss
from orchestrator.log import log_fields
from orchestrator.messages import StepCommand
from orchestrator.retry import SERVER_AWAY, backoff
from orchestrator.shares import Shares
from orchestrator.stopping import wait_or_stop

logger = structlog.get_logger(__name__)

MAX_CHILDREN = 12
"""The most child processes; each has an interpreter and the workflows in memory."""

MAX_TESTS = 8
"""The most child processes whose steps have not outlived the test before."""

LINGER = 60.0
"""Seconds for which the process that is forked is kept after the last test."""

CLAIMED_AT_ONCE = 5
"""The most steps of a dead child to claim again at once, because for each the coordinator handles a message beside new work."""

GATHERING = 0.5
"""Seconds without an arrival after which the present suspects are tested, unless they fill a group before."""

MARGIN = 1.0
"""Seconds by which steps must outlive the test before to be cleared."""

MIN_POOL = 2
"""The fewest database connections for the steps of a child."""


@dataclass(eq=False)
class Suspect:
    """A step that this consumer has claimed to run in a child process."""

    command: StepCommand
    queue: str
    attempt: ClaimedAttempt

    @property
    def key(self) -> tuple[UUID, int]:
        """The id of the attempt in the lines to and from a child."""
        return self.attempt.process.process_id, self.attempt.process.attempt


@dataclass(eq=False)
class _Test:
    """A child process, and the suspects that it still has to run."""

    child: ChildProcess | None = None
    left: dict[tuple[UUID, int], Suspect] = field(default_factory=dict)
    is_cleared: bool = False
    task: asyncio.Task[None] | None = None


class Isolation:
    """Runs the suspects of one consumer.

    Args:
        claim: claims the step of a command for this consumer. The runner uses it for suspects, too.
        pool_size: database connections for steps; a child gets half as many, and half of these for each bisection.
        places: limits how many suspects may be claimed at once.
        dangerous_for: seconds after which steps that were lost with their consumer are cleared, unless a test clears them
            sooner.
    """

    def __init__(
        self,
        database: Database,
        completion: Completion,
        metrics: Metrics,
        claim: Callable[[StepCommand], Awaitable[Claim | None]],
        *,
        pool_size: int,
        places: Shares,
        dangerous_for: float,
    ) -> None:
        self._database = database
        self._completion = completion
        self._metrics = metrics
        self.claim = claim
        self._pool_size = pool_size
        self._places = places
        self._dangerous_for = dangerous_for
        self._suspects: dict[UUID, Suspect] = {}
        self._halving: Halving[Suspect] = Halving()
        self._tests: set[_Test] = set()
        self._nursery = Nursery()
        self._closing: asyncio.TimerHandle | None = None
        self._background: set[asyncio.Task[object]] = set()
        self._draining = asyncio.Event()

    def __len__(self) -> int:
        """Return the number of suspects."""
        return len(self._suspects)

    def take_place(self, queue: str) -> bool:
        """Take a place for a suspect of a queue if one is free; return whether one was."""
        return self._places.take(queue)

    def leave_place(self, queue: str) -> None:
        """Release a place that was taken."""
        self._places.release(queue)

    @property
    def attempts(self) -> dict[UUID, ClaimedAttempt]:
        """The suspects' attempts, by process."""
        return {process_id: one.attempt for process_id, one in self._suspects.items()}

    def add(self, command: StepCommand, queue: str, attempt: ClaimedAttempt) -> None:
        """Run a claimed step in a child process, in a place that was taken before."""
        self._add(Suspect(command, queue, attempt))
        self._start_tests()

    def cancel(self, process_id: UUID) -> None:
        """Cancel a suspect's attempt, because its claim is gone."""
        suspect = self._suspects.get(process_id)
        if suspect is None:
            return
        if self._halving.discard(suspect):
            self._forget(suspect)
            return
        for test in self._tests:
            if test.child is not None and suspect.key in test.left:
                test.child.send(Cancel(process_id=suspect.key[0], attempt=suspect.key[1]))

    async def drain(self, grace: float) -> list[ClaimedAttempt]:
        """Test nothing more, let running suspects finish within ``grace`` seconds, and end the children.

        Returns:
            The attempts that are left, whose claims must be released.
        """
        self._draining.set()
        tasks = [test.task for test in self._tests if test.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=grace)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._nursery.close()
        return [one.attempt for one in self._suspects.values()]

    def _add(self, suspect: Suspect) -> None:
        before = self._suspects.get(suspect.command.process_id)
        self._suspects[suspect.command.process_id] = suspect
        if before is not None:
            self._places.release(before.queue)
        if suspect.attempt.process.crashes:
            self._halving.add_alone(suspect)
        else:
            self._halving.add(suspect)

    def _forget(self, suspect: Suspect) -> None:
        if self._suspects.get(suspect.command.process_id) is suspect:
            del self._suspects[suspect.command.process_id]
            self._places.release(suspect.queue)

    def _start_tests(self) -> None:
        """Start a test for each waiting group, as far as the limits allow."""
        while (
            not self._draining.is_set()
            and len(self._halving) > sum(not test.left for test in self._tests)
            and len(self._tests) < MAX_CHILDREN
            and sum(not test.is_cleared for test in self._tests) < MAX_TESTS
        ):
            test = _Test()
            self._tests.add(test)
            test.task = asyncio.create_task(self._run(test))

    async def _run(self, test: _Test) -> None:
        try:
            test.child = await self._take_child()
            if self._halving.has_only_arrived:
                # Those that were lost together arrive one after the other, and are tested together.
                await self._gather()
            group = self._halving.take()
            if group is not None:
                test.left = {one.key: one for one in group.members}
                await self._test(test, group)
        except Exception:
            # A bug in the engine. The claims are released after the next heartbeats, because nothing here runs them.
            logger.exception("a test of suspects has ended without an outcome")
            for suspect in test.left.values():
                self._forget(suspect)
        finally:
            self._tests.discard(test)
            self._start_tests()
            if not self._tests and not self._draining.is_set():
                self._closing = asyncio.get_running_loop().call_later(LINGER, self._close_nursery)
            if test.child is not None:
                await test.child.close()

    async def _gather(self) -> None:
        arrived = 0
        while arrived < self._halving.arrived < LARGEST_GROUP and not self._draining.is_set():
            arrived = self._halving.arrived
            await wait_or_stop(GATHERING, self._draining)

    async def _test(self, test: _Test, group: Group[Suspect]) -> None:
        """Run a group in a child, until all have ended or the child has."""
        loop = asyncio.get_running_loop()
        child = await self._begin(test, group)
        began = loop.time()
        for process_id, attempt in test.left:
            child.send(Run(process_id=process_id, attempt=attempt))
        wait = self._dangerous_for if group.outlived is None else group.outlived + MARGIN
        clearing = loop.call_later(wait, self._clear, test)
        error = None
        try:
            async for line in child.lines():
                if isinstance(line, Failed):
                    error = line.error
                else:
                    self._handle(test, line)
                if not test.left:
                    return
        finally:
            clearing.cancel()
        took = loop.time() - began
        how = await child.wait()
        if error is not None or how is None:
            problem = error or "it has ended, and nothing has seen how"
            await self._release_all(test, f"could not run it in a child process: {problem}")
        elif len(group.members) == 1:
            await self._blame(test, how)
        else:
            await self._halve(test, group, how, took)

    async def _begin(self, test: _Test, group: Group[Suspect]) -> ChildProcess:
        """Prepare a child for a group; if it ends meanwhile, which says nothing about the group, take another one."""
        queues = sorted({one.queue for one in group.members})
        begin = Begin(
            consumer_id=group.members[0].attempt.claim.consumer_id,
            consumer=group.members[0].attempt.claim.consumer,
            pool_size=max(MIN_POOL, len(queues), self._pool_size >> (group.depth + 1)),
            queues=tuple(queues),
        )
        while True:
            child = test.child or await self._take_child()
            test.child = child
            try:
                await child.begin(begin)
            except ChildError as error:
                logger.error("child process not prepared", error=str(error))  # noqa: TRY400 - it is a line
                test.child = None
                await child.close()
            else:
                return child

    def _handle(self, test: _Test, line: Ready | Ended | Publish | Count) -> None:
        match line:
            case Ended():
                suspect = test.left.pop((line.process_id, line.attempt), None)
                if suspect is None:
                    return
                self._forget(suspect)
                if line.error is not None:
                    because = f"could not run it in a child process: {line.error}"
                    self._do(self._completion.release(suspect.attempt, Loss.INTERRUPTED, because))
            case Publish():
                self._do(self._completion.publish(line.message))
            case Count():
                self._metrics.count_attempt(
                    line.workflow, line.step, line.status.value, warned=line.warned, blocked=line.blocked
                )

    def _clear(self, test: _Test) -> None:
        test.is_cleared = True
        self._start_tests()

    async def _blame(self, test: _Test, how: str) -> None:
        """Count the death of a child against the only step that it ran."""
        (suspect,) = test.left.values()
        logger.warning("a step has brought down its child process", how=how, **log_fields(suspect.attempt.process))
        await self._completion.release(
            suspect.attempt, Loss.CRASHED, f"lost the child process that ran it alone: it {how}"
        )
        self._forget(suspect)
        test.left = {}

    async def _halve(self, test: _Test, group: Group[Suspect], how: str, took: float) -> None:
        """Bisect the steps that a child ran when it died: each half runs in a child of its own."""
        lost = list(test.left.values())
        logger.warning("a child process has died; its steps run by halves", how=how, steps=len(lost))
        others = f"and {len(lost) - 1} others" if len(lost) > 1 else "after other steps"
        because = f"lost the child process that ran it {others}: it {how}"
        few = asyncio.Semaphore(CLAIMED_AT_ONCE)

        async def claim(suspect: Suspect) -> Suspect | None:
            async with few:
                return await self._claim_again(suspect, because)

        again = await asyncio.gather(*map(claim, lost))
        self._halving.halve(group, [one for one in again if one is not None], took)
        test.left = {}

    async def _claim_again(self, suspect: Suspect, because: str) -> Suspect | None:
        """Log the loss of an attempt, and claim the next one; return ``None`` when this consumer does not get it."""
        dispatch = None
        if self._draining.is_set():
            await self._completion.release(suspect.attempt, Loss.SHARED, because)
        else:
            dispatch = await self._completion.release_to_own(suspect.attempt, Loss.SHARED, because)
        claim = None
        if dispatch is not None:
            suspect.command = suspect.command.model_copy(
                update={"position": dispatch.position, "attempt": dispatch.attempt, "lost": dispatch.lost}
            )
            claim = await self._completion.retry_outages(self.claim, suspect.command)
        if claim is None:
            # Stored after all, aborted, or the engine is paused: then the reconciler publishes the command.
            self._forget(suspect)
            return None
        suspect.attempt = ClaimedAttempt(self._database, claim, suspect.attempt.plan)
        return suspect

    async def _release_all(self, test: _Test, because: str) -> None:
        lost = list(test.left.values())
        await asyncio.gather(*(self._completion.release(one.attempt, Loss.INTERRUPTED, because) for one in lost))
        for suspect in lost:
            self._forget(suspect)
        test.left = {}

    async def _take_child(self) -> ChildProcess:
        tries = 0
        if self._closing is not None:
            self._closing.cancel()
        while True:
            try:
                return await self._nursery.start_child()
            except ChildError as error:
                tries += 1
                logger.error("child process not started", error=str(error), tries=tries)  # noqa: TRY400 - it is a line
                await wait_or_stop(backoff(SERVER_AWAY, tries), self._draining)

    def _close_nursery(self) -> None:
        if not self._tests:
            self._do(self._nursery.close())

    def _do(self, action: Coroutine[Any, Any, object]) -> None:
        task = asyncio.create_task(action)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
