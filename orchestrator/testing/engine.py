"""Run workflows in a test: by the code that decides, runs and stores in production, without broker and programs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Self
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.processes.passing import pass_time
from orchestrator.db.registration.workflows import register_workflow
from orchestrator.db.session import Database, get_connection
from orchestrator.db.workflows import list_workflows
from orchestrator.registry import registered
from orchestrator.services.products import get_product_by_name
from orchestrator.services.registrations import describe_workflow
from orchestrator.services.start import StartRequest
from orchestrator.services.starter import Starter
from orchestrator.settings import Settings
from orchestrator.testing.assertions import describe
from orchestrator.testing.consumer import LocalConsumer
from orchestrator.testing.crashes import Crashes, CrashPoint, Observe, Repetition, When
from orchestrator.testing.driver import Driver
from orchestrator.testing.log_lines import readable_log
from orchestrator.testing.process import USER, Pages, ProcessUnderTest, list_pages
from orchestrator.workflow import Workflow


class Engine:
    """Runs processes until they rest. Made by :func:`open_engine`.

    A call returns when every process waits for something – a person, an external system, a time – or has ended.
    """

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._limits = settings.limits
        self._crashes = Crashes()
        self._consumer = LocalConsumer(database, settings, self._crashes)
        self._starter = Starter(database, self._limits)
        self._driver = Driver(database, self._consumer, self._limits)
        self._registrations = ExitStack()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """Open a session on the test database, for what a test prepares and looks up; it commits at the end of the block."""
        self._driver.require_loop()
        async with self._database.transaction() as session:
            yield session

    async def register(self, workflow: Workflow, *, products: Iterable[str] = ()) -> None:
        """Register a workflow for this test, unless code and database know it already.

        Args:
            products: the names of products that have it.

        Raises:
            DefinitionError: it is wrong as written, or its name is that of another one.
            ConfigurationError: there is no such product, or one has another workflow of this kind.
        """
        self._driver.require_loop()
        self._registrations.enter_context(registered(workflow))
        async with self._database.transaction() as session:
            if workflow.name in {one.name for one in await list_workflows(session)}:
                return
            known = describe_workflow(workflow.name)
            connection = await get_connection(session)
            await connection.run_sync(
                lambda sync: register_workflow(
                    sync,
                    name=known.name,
                    target=known.target,
                    is_task=known.is_task,
                    description=known.description,
                    products=products,
                )
            )
        await self._consumer.register()

    async def product_id(self, name: str) -> UUID:
        """Return the id of a product, which the first page of its create workflow asks for.

        Raises:
            NotFoundError: there is none of this name.
        """
        async with self.transaction() as session:
            return (await get_product_by_name(session, name)).product_id

    async def run_workflow(
        self, workflow: str | Workflow, pages: Pages = (), *, user: str = USER, key: str | None = None
    ) -> ProcessUnderTest:
        """Start a workflow and run its steps until the process rests.

        Args:
            workflow: the name of one that code and database know, or one that need not be registered.
            pages: of its form, in order; or the only one. The first page of a workflow on a subscription is that of its type.
            key: of a start that may come twice: the same process is returned.

        Raises:
            NotFoundError, ForbiddenError, PredicateFailedError, WorkflowNotUsableError, InvalidInputError, FormIncompleteError,
            ConflictError: the start is refused, as in production.
        """
        self._driver.require_loop()
        if isinstance(workflow, Workflow):
            await self.register(workflow)
            workflow = workflow.name
        request = StartRequest(workflow, list_pages(pages), user, key)
        outcome = await self._starter.start(request)
        await self._driver.go_on(outcome.message)
        return await self.find_process(outcome.process_id)

    async def find_process(self, process_id: UUID) -> ProcessUnderTest:
        """Return a process by its id.

        Raises:
            NotFoundError.
        """
        return await self._driver.find(process_id)

    async def callback(self, token: str, result: Mapping[str, object] | None = None) -> None:
        """Complete a callback by its token. Called in a step's own time, it is an answer that comes early.

        Raises:
            CallbackRefusedError, InvalidInputError, MessageError: as in production.
        """
        await self._driver.answer_token(token, "completed", {} if result is None else result)

    async def pass_time(self, time: timedelta | float) -> None:
        """Let the time pass, or seconds of it, and run what is due then: automatic tries, deadlines of callbacks.

        The clocks stand still: everything that processes wait for is brought forward.
        """
        seconds = time.total_seconds() if isinstance(time, timedelta) else time
        async with self._database.transaction() as session:
            await pass_time(session, seconds)
        await self._driver.run_due()

    @contextmanager
    def crash_at(self, step: str, *, when: When = "after_run") -> Iterator[None]:
        """Kill the consumer once, as ``kill -9`` does, when it comes to a step; another one takes over.

        Args:
            step: the name of the step.
            when: ``before`` its function runs; ``after_run``, when that has run and nothing is stored; ``after_commit``, when
                all is stored and no message says so.

        Raises:
            AssertionError: at the end of the block, when no consumer has come to that point.
        """
        if when not in ("before", "after_run", "after_commit"):
            raise ValueError(f"when is 'before', 'after_run' or 'after_commit', not {when!r}")
        point = CrashPoint(step, when)
        self._crashes.points.append(point)
        try:
            yield
        finally:
            self._crashes.points.remove(point)
        if not point.has_happened:
            raise AssertionError(f"no consumer came to {step!r}, so none died there{self._describe()}")

    @contextmanager
    def assert_idempotent(
        self, *steps: str, observe: Observe | None = None, ignoring: Collection[str] = ()
    ) -> Iterator[None]:
        """Run steps twice, as when their consumer dies before the commit, and compare the two runs.

        Both must succeed and return the same. What the first has written to the database is rolled back.

        Args:
            steps: their names; default every step that runs in the block.
            observe: returns what must be the same after both, such as what an external system holds; it may be async.
            ignoring: keys of the state that may differ, such as the id of a subscription that the step makes.

        Raises:
            AssertionError: at the end of the block; the text has each difference. Or one of the steps was not run.
        """
        repetition = Repetition(steps, observe, ignoring)
        self._crashes.repetitions.append(repetition)
        try:
            yield
        finally:
            self._crashes.repetitions.remove(repetition)
        if repetition.differences:
            raise AssertionError("\n".join(["steps are not idempotent:", *repetition.differences]))
        missing = sorted(set(steps) - repetition.repeated)
        if missing or not repetition.repeated:
            names = ", ".join(map(repr, missing)) or "any step"
            raise AssertionError(f"no consumer has run {names} twice with success{self._describe()}")

    async def __aenter__(self) -> Self:
        await self._consumer.register()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._registrations.close()
        self._consumer.close()

    def _describe(self) -> str:
        return "".join(f"\n{describe(one)}" for one in self._driver.processes.values())


@asynccontextmanager
async def open_engine(settings: Settings) -> AsyncIterator[Engine]:
    """Provide an engine for one test, in the event loop of that test.

    Args:
        settings: with the URL of a test database, as :func:`~orchestrator.testing.open_database` has them.

    Raises:
        ServerUnavailableError: PostgreSQL does not answer or refuses the connection.
    """
    database = Database.of(settings, "orchestrator testing")
    with readable_log():
        try:
            await database.open()
            async with Engine(database, settings) as engine:
                yield engine
        finally:
            await database.close()
