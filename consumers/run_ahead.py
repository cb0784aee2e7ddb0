"""Run further steps of a process at once, up to a limit, instead of waiting for a command for each.

The statement that ends one step claims the next (:mod:`orchestrator.db.processes.advance`). The log entries whose
events coordinators publish are collected meanwhile, and sent with the result that ends the stretch, or after a delay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import Context, copy_context
from dataclasses import dataclass

from orchestrator.broker.outgoing import Outgoing, step_result
from orchestrator.db.processes.advance import Receipt
from orchestrator.engine.decision import Decision
from orchestrator.engine.events import Event, StepSucceeded
from orchestrator.engine.plan import Plan
from orchestrator.engine.process import Process
from orchestrator.messages import Advanced
from orchestrator.services.results import EntryFields, describe_entries, read_decision, read_fields
from orchestrator.shares import Shares
from orchestrator.workflow import TASK_QUEUE, Workflow

FLUSH_AFTER, LONGEST_FLUSH_AFTER = 0.05, 1.0
"""Seconds for which a step's events may wait for those of later steps: on an idle consumer, and on a busy one."""

UNREAD_FLUSH_AFTER = 2.0
"""The same if no queue was bound for such events when the stretch began. A reader that binds one since gets them later, but in
order, and before a coordinator would read them from the rows."""

FLUSHES = 100
"""Messages a second that all stretches together may send about processes that go on. Each costs as much as a result, and
hundreds of stretches would send one for each step, because each step waits for its turn for longer than it takes."""

AGAIN = 1.0
"""Seconds until a message that the broker refused is sent again."""

MOST_HELD = 100
"""The most log entries that a message about several steps may have for another step to be added."""


@dataclass(frozen=True, slots=True)
class Budget:
    """The limits of one stretch.

    Args:
        steps: the number of steps after the one that came with a command.
        seconds: the time since that one began, checked between steps, so that no step is cut short.
    """

    steps: int
    seconds: float

    def allows(self, steps: int, seconds: float, limit: Budget | None = None) -> bool:
        """Return whether one more step may follow.

        Args:
            steps: how many have run ahead so far.
            seconds: the duration of the stretch so far.
            limit: a second budget that applies, too, because others wait.
        """
        return steps < self.steps and seconds < self.seconds and (limit is None or limit.allows(steps, seconds))


SHORT = Budget(4, 0.2)
"""The limit while other steps wait for a slot, which a step may hold for long."""

MEDIUM = Budget(9, 1.0)
"""The limit while other steps wait because this consumer is busy. It is larger, because the consumer does as many steps in a
second for any process, and a stretch that ends early costs one more command and result."""


class RunAhead:
    """Decides how far the steps of one consumer run ahead.

    Args:
        budget: for each stretch; workflows may have a number of steps of their own. No step runs ahead when it has none.
        slots: the slots in which steps run.
        draining: set when no step may be claimed any more.
        publish: sends a result; returns whether the broker has accepted it.
        is_held_up: returns whether commands of a queue wait because this consumer is busy.
    """

    def __init__(
        self,
        budget: Budget,
        slots: Shares,
        draining: asyncio.Event,
        publish: Callable[[Outgoing], Awaitable[bool]],
        is_held_up: Callable[[str], bool],
    ) -> None:
        self._budget = budget
        self._slots = slots
        self._draining = draining
        self._publish = publish
        self._is_held_up = is_held_up
        self._sending: set[asyncio.Task[None]] = set()

    def begin(self, workflow: Workflow, queue: str, *, unread: bool = False) -> Stretch:
        """Return a stretch for a slot that the present task has taken; its steps run in copies of the present context.

        Args:
            unread: whether no queue was bound a moment ago for the events of its steps.
        """
        own = self._budget.steps if workflow.run_ahead is None else workflow.run_ahead
        is_background = workflow.is_task or queue == TASK_QUEUE
        steps = 0 if is_background or not self._budget.steps else own
        return Stretch(self, queue, Budget(steps, self._budget.seconds), copy_context(), unread=unread)

    @property
    def has_ended(self) -> bool:
        """Whether the program is about to stop, so that no step may begin."""
        return self._draining.is_set()

    def find_limit(self, queue: str) -> Budget | None:
        """Return the limit of a stretch in a queue while others wait, if they do; background work does not count."""
        if self._slots.is_waited_for(but_not=TASK_QUEUE):
            return SHORT
        return MEDIUM if self._is_held_up(queue) else None

    def find_flush_after(self) -> float:
        """Return the seconds after which the events of a stretch that goes on are sent."""
        return max(FLUSH_AFTER, min(LONGEST_FLUSH_AFTER, self._slots.taken / FLUSHES))

    def send(self, message: Advanced, step: str | None, queue: str, failed: Callable[[], object]) -> None:
        """Send the log entries of a process that goes on here, and is at ``step``."""

        async def send() -> None:
            if not await self._publish(step_result(message, step, queue)):
                failed()

        task = asyncio.create_task(send(), context=Context())
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def finish(self) -> None:
        """Wait until everything is sent."""
        if self._sending:
            await asyncio.wait(self._sending)


class Stretch:
    """The steps of one process that run one after the other in one slot, and their log entries that are not confirmed yet.

    Attributes:
        queue: the step queue of all of them.
        context: the context before the first step, so that no step sees changes of another.
    """

    def __init__(
        self, program: RunAhead, queue: str, budget: Budget, context: Context, *, unread: bool = False
    ) -> None:
        self.queue = queue
        self.context = context
        self._program = program
        self._budget = budget
        self._unread = unread
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._steps = 0
        self._held: list[EntryFields] = []
        self._newest: tuple[Plan, Process, Receipt] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def may_go_on(self, event: Event, decision: Decision) -> bool:
        """Return whether this consumer should claim the next step itself."""
        following = decision.dispatch
        return (
            isinstance(event, StepSucceeded)
            and following is not None
            and following.queue == self.queue
            and not following.lost
            and not self._program.has_ended
            and (not self._held or len(self._held) + len(decision.entries) <= MOST_HELD)
            and self._budget.allows(self._steps, self._loop.time() - self._began, self._program.find_limit(self.queue))
        )

    @property
    def held_from(self) -> int | None:
        """The log entry before the first kept one; ``None`` when none is kept."""
        return self._held[0]["sequence"] - 1 if self._held else None

    def hold(self, plan: Plan, decision: Decision, receipt: Receipt) -> None:
        """Keep the log entries to be sent later, because the next step runs here."""
        self._steps += 1
        self._forget_confirmed(receipt)
        self._held += read_fields(decision, receipt.at)
        # The process with the next step's state, so that the former state need not be kept in memory.
        process = decision.process if receipt.following is None else receipt.following.process
        self._newest = plan, process, receipt
        if self._timer is None:
            after = UNREAD_FLUSH_AFTER if self._unread else self._program.find_flush_after()
            self._timer = self._loop.call_later(after, self._flush)

    def read(self, plan: Plan, decision: Decision) -> dict[str, object]:
        """Return the fields of the message about the last step and the kept log entries, see :func:`read_decision`."""
        return read_decision(plan, decision, self._held)

    def end(self) -> None:
        """Drop the kept log entries. If the last step has no outcome, the events were read from the rows with its claim."""
        self._held, self._newest = [], None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _forget_confirmed(self, receipt: Receipt) -> None:
        """Leave out the entries whose events the rows know to be confirmed; the entries are in order."""
        if self._held and self._held[0]["sequence"] <= receipt.announced:
            self._held = [one for one in self._held if one["sequence"] > receipt.announced]

    def _flush(self) -> None:
        # The entries are kept until the rows say, with the next outcome, that their events are confirmed.
        self._timer = None
        if self._newest is not None:
            plan, process, receipt = self._newest
            message = describe_entries(plan, process, receipt.at, receipt.announced, self._held)
            self._program.send(message, process.step, self.queue, self._flush_again)

    def _flush_again(self) -> None:
        if self._held and self._timer is None:
            self._timer = self._loop.call_later(AGAIN, self._flush)
