"""Share the turns of requests that call user code among workflows, and know whose code takes long."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar

from orchestrator.errors import WorkflowBusyError

MOST_WAITING, LONG = 20, 10.0
"""Requests of one workflow that wait for a turn for longer than so many seconds. A coordinator holds a few dozen messages, and
behind these are those of other workflows."""

SLOW = 3.0
"""Seconds that user code takes in a turn of a workflow which holds up others. What the engine and the
database take around it does not count: then all wait, and the next one has its turn as soon as any other has."""


class _Turn:
    """One turn, and how long it has spent in user code."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._spent = 0.0
        self._since: float | None = None

    @property
    def spent(self) -> float:
        """Seconds, the call that is under way included."""
        return self._spent + (0.0 if self._since is None else self._loop.time() - self._since)

    @contextmanager
    def call(self) -> Iterator[None]:
        self._since = self._loop.time()
        try:
            yield
        finally:
            self._spent, self._since = self.spent, None


_present: ContextVar[_Turn | None] = ContextVar("present_turn", default=None)


@contextmanager
def calling_author() -> Iterator[None]:
    """Count the time of the body as that of user code, in the turn that the present request has, if it has one."""
    turn = _present.get()
    if turn is None:
        yield
        return
    with turn.call():
        yield


class FairTurns:
    """Turns of requests that call user code: no workflow has more of them than it leaves to all others.

    Of eight turns the first workflow may have four at once, a second one then two, two more one each. So functions that hang
    hold up the requests of their own workflow.

    Args:
        limit: turns at once.
    """

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._held: Counter[str] = Counter()
        self._waiting: dict[str, deque[tuple[float, asyncio.Future[None]]]] = {}
        self._turns: dict[str, list[_Turn]] = {}
        self._took: dict[str, float] = {}

    @asynccontextmanager
    async def turn(self, workflow: str, patience: float | None = None) -> AsyncIterator[None]:
        """Wait for a turn, and end it with the block.

        Args:
            patience: seconds for which to wait; default until there is a turn.

        Raises:
            WorkflowBusyError: there was none in time, or too many have waited before it and for long while code of the workflow's
                author held turns.
        """
        await self._begin(workflow, patience)
        turn = _Turn()
        self._turns.setdefault(workflow, []).append(turn)
        before = _present.set(turn)
        try:
            yield
        finally:
            self._turns[workflow].remove(turn)
            self._took[workflow] = turn.spent
            self._end(workflow)
            _present.reset(before)

    async def _begin(self, workflow: str, patience: float | None) -> None:
        waiting = self._find_waiting(workflow)
        if not waiting and self._may_begin(workflow):
            self._take(workflow)
            return
        loop = asyncio.get_running_loop()
        if len(waiting) >= MOST_WAITING and loop.time() - waiting[0][0] > LONG and self._is_slow(workflow):
            raise WorkflowBusyError(self._explain(workflow, f"{len(waiting)} others have waited for longer"))
        turn = loop.create_future()
        waiting.append((loop.time(), turn))
        try:
            async with asyncio.timeout(patience):
                while not turn.done() and len(waiting) > MOST_WAITING:
                    await asyncio.wait({turn}, timeout=LONG)
                    self._require_place(workflow, turn)
                await turn
        except TimeoutError:
            self._give_up(workflow, turn)
            raise WorkflowBusyError(self._explain(workflow, f"there was no turn within {patience:g} s")) from None
        except BaseException:
            self._give_up(workflow, turn)
            raise

    def _require_place(self, workflow: str, turn: asyncio.Future[None]) -> None:
        if turn.done() or not self._is_slow(workflow):
            return
        before = [one for _, one in self._find_waiting(workflow) if not one.cancelled()].index(turn)
        if before >= MOST_WAITING:
            raise WorkflowBusyError(self._explain(workflow, f"{before} others have waited for longer"))

    def _is_slow(self, workflow: str) -> bool:
        """Return whether the code of a workflow takes long: in a turn that it has now, or in the one that ended last."""
        return self._took.get(workflow, 0.0) > SLOW or any(one.spent > SLOW for one in self._turns.get(workflow, ()))

    def _explain(self, workflow: str, why: str) -> str:
        held_up = (
            f"the form, predicate or authorization callback of {workflow!r} takes long in the requests before this one"
            if self._is_slow(workflow)
            else f"many requests of {workflow!r} or other workflows came before this one"
        )
        return f"{held_up}, and {why}: send it again later"

    def _give_up(self, workflow: str, turn: asyncio.Future[None]) -> None:
        if turn.done() and not turn.cancelled():
            self._end(workflow)  # the turn has come at this moment
        else:
            turn.cancel()

    def _end(self, workflow: str) -> None:
        self._free += 1
        self._held[workflow] -= 1
        while (following := self._find_next()) is not None:
            self._take(following)
            self._waiting[following].popleft()[1].set_result(None)
        self._held += Counter()  # forgets those that have none
        self._waiting = {name: waiting for name, waiting in self._waiting.items() if waiting}
        known = self._held.keys() | self._waiting.keys()
        self._turns = {name: turns for name, turns in self._turns.items() if name in known}
        self._took = {name: took for name, took in self._took.items() if name in known}

    def _find_next(self) -> str | None:
        """Return which workflow has the next turn: of those that may, the one that has the fewest and waits for longest."""
        found = [name for name in self._waiting if self._find_waiting(name) and self._may_begin(name)]
        return min(found, key=lambda name: (self._held[name], self._waiting[name][0][0]), default=None)

    def _find_waiting(self, workflow: str) -> deque[tuple[float, asyncio.Future[None]]]:
        waiting = self._waiting.setdefault(workflow, deque())
        while waiting and waiting[0][1].cancelled():
            waiting.popleft()
        return waiting

    def _may_begin(self, workflow: str) -> bool:
        return self._free > self._held[workflow]

    def _take(self, workflow: str) -> None:
        self._free -= 1
        self._held[workflow] += 1
