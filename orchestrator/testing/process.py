"""One process in a test: what is stored of it, and what people and other systems do to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, cast
from uuid import UUID

from pydantic_core import to_jsonable_python

from orchestrator.engine.log import LogEntry
from orchestrator.types import JSON, ProcessStatus, State, StepStatus

USER = "tester"
"""Who does things in tests that name nobody."""

Page = Mapping[str, object]
Pages = Page | Sequence[Page]
"""What is filled in: the pages of a form in order, or the only one. Ids, dates and the like become JSON, as on their way in."""


def list_pages(pages: Pages) -> list[State]:
    """Return filled pages as a list of JSON objects."""
    listed = [pages] if isinstance(pages, Mapping) else pages
    return [cast("State", to_jsonable_python(dict(one))) for one in listed]


class Drives(Protocol):
    """What a process asks of the engine that runs it; each call returns when every process rests."""

    async def resume(self, process_id: UUID, pages: Sequence[State], user: str) -> None: ...
    async def retry(self, process_id: UUID, user: str) -> None: ...
    async def abort(self, process_id: UUID, user: str, reason: str | None) -> None: ...
    async def answer(self, process_id: UUID, token: str | None, outcome: str, payload: object) -> None: ...
    async def run_when_due(self, process_id: UUID) -> None: ...


class ProcessUnderTest:
    """A process as it is stored. Its attributes are up to date whenever a call to the kit has returned.

    Args:
        process_id: its id.
        workflow: the name of its workflow.
        status: where it stands.
        step: the step at which it rests; ``None`` at its end.
        state: its whole state.
        assignee: who is to act on it; ``SYSTEM`` for the engine.
        log: every entry of its log, in order.
        subscription_ids: the subscriptions that it has touched.
        callback_token: the newest token that an action of it was given; ``None`` when there was none.
    """

    status: ProcessStatus
    step: str | None
    state: State
    assignee: str
    log: tuple[LogEntry, ...]
    subscription_ids: tuple[UUID, ...]
    callback_token: str | None

    def __init__(self, engine: Drives, process_id: UUID, workflow: str) -> None:
        self.process_id = process_id
        self.workflow = workflow
        self._engine = engine

    def __repr__(self) -> str:
        return f"<{self.workflow} {self.process_id}: {self.status.value} at {self.step!r}>"

    @property
    def subscription_id(self) -> UUID:
        """The only subscription that it has touched."""
        assert len(self.subscription_ids) == 1, f"{self!r} has touched {len(self.subscription_ids)} subscriptions"  # noqa: S101
        return self.subscription_ids[0]

    @property
    def error(self) -> str | None:
        """The newest failure of the step at which it rests, as ``type: message``; ``None`` when there is none."""
        failure = self.failure
        return None if failure is None else f"{failure['type']}: {failure['message']}"

    @property
    def failure(self) -> dict[str, JSON] | None:
        """The same with its ``traceback`` and ``details``."""
        if not (self.status.is_failure or self.status is ProcessStatus.WAITING):
            return None
        return next((one.failure for one in reversed(self.log) if one.failure is not None), None)

    def entries(self, step: str) -> list[LogEntry]:
        """Return the log entries about a step, one for each attempt that has ended, in order."""
        return [one for one in self.log if one.kind == "step" and one.name == step]

    @property
    def steps(self) -> list[tuple[str, StepStatus]]:
        """The steps in the log with what became of them, in order."""
        return [(one.name, StepStatus(one.status)) for one in self.log if one.kind == "step"]

    async def resume(self, pages: Pages = (), *, user: str = USER) -> None:
        """Fill in the form of the input step at which it is suspended, and run on.

        Raises:
            FormIncompleteError, InvalidInputError, ForbiddenError, ConflictError: as in production.
        """
        await self._engine.resume(self.process_id, list_pages(pages), user)

    async def retry(self, *, user: str = USER) -> None:
        """Try the step again at which it has failed or waits, as an operator does.

        Raises:
            ForbiddenError, ConflictError: as in production.
        """
        await self._engine.retry(self.process_id, user)

    async def abort(self, *, user: str = USER, reason: str | None = None) -> None:
        """End it.

        Raises:
            ConflictError: it is final already.
        """
        await self._engine.abort(self.process_id, user, reason)

    async def callback(self, result: Mapping[str, object] | None = None, *, token: str | None = None) -> None:
        """Complete the callback that it waits for, as the external system does.

        Args:
            result: a JSON object; default an empty one.
            token: default the one that its action was given.

        Raises:
            CallbackRefusedError, InvalidInputError, MessageError: as in production.
        """
        await self._engine.answer(self.process_id, token, "completed", {} if result is None else result)

    async def fail_callback(self, error: str, *, token: str | None = None, **details: object) -> None:
        """Report that the external job has failed.

        Raises:
            CallbackRefusedError, InvalidInputError: as in production.
        """
        await self._engine.answer(self.process_id, token, "failed", {"error": error, **details})

    async def report_progress(self, progress: Mapping[str, object], *, token: str | None = None) -> None:
        """Report how far the external job has come.

        Raises:
            CallbackRefusedError, InvalidInputError, MessageError: as in production.
        """
        await self._engine.answer(self.process_id, token, "progress", progress)

    async def run_when_due(self) -> None:
        """Let the time pass until its next automatic try, or until its callback's deadline, and run on.

        Raises:
            ValueError: it waits for neither.
        """
        await self._engine.run_when_due(self.process_id)
