"""What people and other systems do to the processes of a test, by the use cases of every entry point."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

from pydantic_core import from_json, to_json
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.processes.detail import read_detail
from orchestrator.db.processes.queries import read_log
from orchestrator.db.processes.rows import find_workflow, load_process
from orchestrator.db.session import Database
from orchestrator.messages import Advanced
from orchestrator.services.callbacks import receive, report_progress
from orchestrator.services.control import abort, resume, retry
from orchestrator.settings import Limits
from orchestrator.testing.consumer import LocalConsumer
from orchestrator.testing.process import ProcessUnderTest
from orchestrator.types import ProcessStatus, State

_UseCase = Callable[[AsyncSession], Awaitable[Advanced]]


class Driver:
    """Carries out what is done to a process, runs what follows, and keeps the processes of the test up to date."""

    def __init__(self, database: Database, consumer: LocalConsumer, limits: Limits) -> None:
        self._database = database
        self._consumer = consumer
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self.processes: dict[UUID, ProcessUnderTest] = {}

    def require_loop(self) -> None:
        """Check that the test runs in the event loop of its engine, to which the connections belong.

        Raises:
            RuntimeError: it does not.
        """
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError(
                "the fixture workflow_engine belongs to another event loop than the test: give asyncio_default_fixture_loop_scope"
                " and asyncio_default_test_loop_scope the same value"
            )

    async def find(self, process_id: UUID) -> ProcessUnderTest:
        """Return a process by its id.

        Raises:
            NotFoundError.
        """
        if process_id not in self.processes:
            async with self._database.transaction() as session:
                workflow = (await load_process(session, process_id)).workflow
            self.processes[process_id] = ProcessUnderTest(self, process_id, workflow)
            await self._refresh()
        return self.processes[process_id]

    async def resume(self, process_id: UUID, pages: Sequence[State], user: str) -> None:
        """Fill in the form of a suspended process; see :meth:`ProcessUnderTest.resume`."""
        await self._apply(process_id, lambda session: resume(session, process_id, pages, user, self._limits))

    async def retry(self, process_id: UUID, user: str) -> None:
        """Retry a process; see :meth:`ProcessUnderTest.retry`."""
        await self._apply(process_id, lambda session: retry(session, process_id, user, self._limits))

    async def abort(self, process_id: UUID, user: str, reason: str | None) -> None:
        """End a process; see :meth:`ProcessUnderTest.abort`."""
        await self._apply(process_id, lambda session: abort(session, process_id, user, self._limits, reason))

    async def answer(self, process_id: UUID, token: str | None, outcome: str, payload: object) -> None:
        """Answer the callback of a process; see :meth:`ProcessUnderTest.callback`."""
        known = token or self._consumer.tokens.get(process_id)
        if known is None:
            raise AssertionError(f"no action of {self.processes.get(process_id)!r} was given a callback token")
        await self.answer_token(known, outcome, payload)

    async def run_when_due(self, process_id: UUID) -> None:
        """Let the time pass until a process is due; see :meth:`ProcessUnderTest.run_when_due`."""
        process = await self.find(process_id)
        if process.status not in {ProcessStatus.WAITING, ProcessStatus.AWAITING_CALLBACK}:
            raise ValueError(f"{process!r} waits for no time")
        before = len(process.log)
        # When it begins to wait for a callback, it is due at once for a first look at whether the answer is there.
        for _ in range(2):
            if not await self._consumer.wait_until_due(process_id):
                raise ValueError(f"{process!r} waits without a deadline")
            await self.run_due()
            if len(process.log) > before:
                return

    async def _apply(self, process_id: UUID, act: _UseCase) -> None:
        workflow = await find_workflow(self._database.pool, process_id)
        await self.go_on(await self._database.author_code.run(workflow or "", act))

    async def answer_token(self, token: str, outcome: str, payload: object) -> None:
        """Answer the callback that has a token."""
        body = to_json(payload)
        async with self._database.transaction() as session:
            if outcome == "progress":
                message = None
                await report_progress(session, token, body)
            else:
                message = await receive(session, token, outcome, body, self._limits)
        if message is not None:
            await self.go_on(message)

    async def go_on(self, message: Advanced | None) -> None:
        """Publish what a use case has returned, and run steps until every process rests."""
        await self._consumer.take(message)
        await self._consumer.run()
        await self._refresh()

    async def run_due(self) -> None:
        """Do what is due by now, and run what follows."""
        await self._consumer.run_due()
        await self._refresh()

    async def _refresh(self) -> None:
        for one in self.processes.values():
            async with self._database.transaction() as session:
                process = await load_process(session, one.process_id)
                detail = await read_detail(session, one.process_id)
                one.log = tuple(await read_log(session, one.process_id))
            one.status, one.step, one.assignee = process.status, process.step, process.assignee
            one.state = dict(process.state)
            one.subscription_ids = tuple(UUID(found["subscription_id"]) for found in from_json(detail.subscriptions))
            one.callback_token = self._consumer.tokens.get(one.process_id)
