"""The child process of a consumer: a fork of :mod:`consumers.forks`, or ``python -m consumers.isolated``.

It runs steps that the consumer has claimed, stores their outcomes under the consumer's claims, and ends with the consumer. It
has connections to the database, but none to the broker: the consumer publishes for it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from uuid import UUID

import structlog
import tenacity

from consumers.attempt import ClaimedAttempt
from consumers.completion import Completion
from consumers.execution import run_attempt
from consumers.pipe import Begin, Cancel, Count, Ended, Ending, Failed, Publish, Ready, Run, encode_line, to_child
from consumers.threads import StepThreads
from orchestrator.broker.outgoing import Outgoing
from orchestrator.db.processes.claims import load_claim
from orchestrator.db.session import Database
from orchestrator.engine.decision import Entry
from orchestrator.engine.process import Process
from orchestrator.errors import DefinitionError, NotFoundError, ServerUnavailableError
from orchestrator.forked import end_process, guard_forks, keep_private
from orchestrator.hosts import session_name
from orchestrator.log import configure_logging
from orchestrator.outage import Outage
from orchestrator.registry import find_abilities, plan_of
from orchestrator.retry import SERVER_AWAY
from orchestrator.runtime import find_loop_factory
from orchestrator.settings import Settings, load_settings
from orchestrator.shares import Admission, Pace
from orchestrator.streams import guard_streams
from orchestrator.text import format_error
from orchestrator.types import StepStatus
from orchestrator.watchdog import LoopWatch, watch_loop
from orchestrator.workflows.shipped import load_workflows

logger = structlog.get_logger(__name__)

ENGINE_CONNECTIONS = 3
"""Database connections for the engine's own statements: as many as there may be commits at once."""


class Consumer:
    """A child's handle of its consumer, which ends the child by closing the connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lines: asyncio.Queue[Begin | Run | Cancel] = asyncio.Queue()

    def listen(self) -> None:
        """Read lines in a thread, which ends this process with the consumer even if a step blocks the event loop."""
        threading.Thread(target=self._read, args=(asyncio.get_running_loop(),), daemon=True).start()

    def _read(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            with self._connection.makefile("rb") as lines:
                for line in lines:
                    loop.call_soon_threadsafe(self._lines.put_nowait, to_child.validate_json(line))
        except Exception as error:
            # The consumer may be an older program than the code that this process has imported.
            _fail(self, error)
        end_process(0)

    async def next_line(self) -> Begin | Run | Cancel:
        """Wait for the next line."""
        return await self._lines.get()

    def send(self, line: Ready | Ended | Publish | Count | Failed | Ending) -> None:
        """Send a line; end this process if the consumer has ended."""
        try:
            self._connection.sendall(encode_line(line))
        except OSError:
            end_process(0)

    async def publish(self, message: Outgoing) -> None:
        """Let the consumer publish a message."""
        self.send(Publish(message=message))
        # The attempt is counted and logged behind its message. The consumer may close this process once the attempt has ended.
        await asyncio.sleep(0)

    def count(self, process: Process, entry: Entry, *, blocked: bool) -> None:
        """Let the consumer count an attempt."""
        warned = entry.status is StepStatus.SUCCESS and entry.note is not None and not blocked
        status = StepStatus(entry.status)
        self.send(Count(workflow=process.workflow, step=entry.name, status=status, warned=warned, blocked=blocked))


class IsolatedSteps:
    """Runs the attempts that the consumer names."""

    def __init__(self, settings: Settings, consumer: Consumer, begin: Begin) -> None:
        self._settings = settings
        self._consumer = consumer
        self._begin = begin
        self._database = Database.of(
            settings,
            session_name("isolated", begin.consumer_id),
            pool_size=begin.pool_size,
            engine_connections=ENGINE_CONNECTIONS,
        )
        self._database.share(begin.queues)
        self._threads = StepThreads(settings.step_threads)
        pace = Pace()
        self._admission = Admission(self._database.connections, pace)
        self._completion = Completion(
            self._database,
            consumer,
            consumer,
            pace,
            redispatch_after=settings.redispatch_after,
            max_lost_attempts=settings.max_lost_attempts,
        )
        self._running: dict[tuple[UUID, int], asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Run attempts until the consumer ends this process."""
        outage = Outage("the database is away", "the database answers again")
        opening = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(ServerUnavailableError),
            wait=SERVER_AWAY,
            before_sleep=lambda call: outage.report(None if call.outcome is None else call.outcome.exception()),
        )
        await opening(self._database.open)
        outage.over()
        self._watching = asyncio.create_task(self._database.watch(asyncio.Event()))  # until this process ends
        self._consumer.send(Ready())
        while True:
            line = await self._consumer.next_line()
            if isinstance(line, Run):
                self._running[line.process_id, line.attempt] = asyncio.create_task(self._run(line))
            elif isinstance(line, Cancel) and (line.process_id, line.attempt) in self._running:
                self._running[line.process_id, line.attempt].cancel()

    async def _run(self, line: Run) -> None:
        problem = None
        try:
            attempt = await self._completion.retry_outages(self._load, line)
            if attempt is not None:
                await run_attempt(attempt, self._admission, self._completion, self._settings.limits, self._threads)
        except (NotFoundError, DefinitionError) as error:
            problem = str(error)
        except Exception:
            # Nothing awaits the task. Its claim is released after the consumer's next heartbeats.
            logger.exception("an attempt has ended without an outcome", process_id=str(line.process_id))
        finally:
            del self._running[line.process_id, line.attempt]
            self._consumer.send(Ended(process_id=line.process_id, attempt=line.attempt, error=problem))

    async def _load(self, line: Run) -> ClaimedAttempt | None:
        begin = self._begin
        async with self._database.pool.acquire() as connection:
            claim = await load_claim(connection, begin.consumer_id, begin.consumer, line.process_id, line.attempt)
        if claim is None:
            return None
        process = claim.process
        plan = plan_of(process.workflow)
        if process.plan not in (None, plan.fingerprint):
            raise DefinitionError(
                f"the code of the workflow {process.workflow!r} has changed since this consumer was started: restart it"
            )
        return ClaimedAttempt(self._database, claim, plan)


def prepare() -> Settings:
    """Read the settings, and import the workflows."""
    # As the command line does: user modules may be imported from the current folder.
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    settings = load_settings()
    guard_streams()
    configure_logging(settings.log_format, settings.log_level, settings.log_levels)
    load_workflows(settings.workflows, shipped_schedules=settings.shipped_schedules)
    # They are imported on first use, which is too late for forks.
    find_abilities()
    return settings


def serve(connection: socket.socket, settings: Settings) -> None:
    """Run attempts until the consumer closes the connection."""
    # Programs started by a step must not keep the connection open.
    connection.set_inheritable(False)
    keep_private(connection)
    consumer = Consumer(connection)
    try:
        with asyncio.Runner(loop_factory=find_loop_factory()) as runner:
            runner.run(_serve(settings, consumer))
    except BaseException as error:
        _fail(consumer, error)


def ignore_signals() -> None:
    """Ignore stop signals, because a signal to the consumer may go to its whole group, and the consumer ends its children."""
    # With SIG_IGN, programs started by steps would ignore them, too.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ignore)


def ignore(number: int, frame: object) -> None:
    """Handle a signal by doing nothing."""


def _fail(consumer: Consumer, error: BaseException) -> None:
    """Report an error that is not a step's, and end this process."""
    logger.error("a child process ends by an error of its own", exc_info=error)
    consumer.send(Failed(error=format_error(error)))
    end_process(1)


async def _serve(settings: Settings, consumer: Consumer) -> None:
    consumer.listen()
    consumer.send(Ready())
    begin = await consumer.next_line()
    assert isinstance(begin, Begin), "the first line"  # noqa: S101 - a programming error, not a user's
    with guard_forks(), watch_loop() as watch:
        watch.end_program_with(lambda: _give_up(consumer, watch))
        await IsolatedSteps(settings, consumer, begin).run()


def _give_up(consumer: Consumer, watch: LoopWatch) -> None:
    """End this process because a call blocks its event loop."""
    consumer.send(Ending(how=f"ended itself, because its event loop was {watch.blockage or 'blocked'}"))
    end_process(os.EX_SOFTWARE)


def main() -> None:
    """Run a child that is a new interpreter."""
    ignore_signals()
    serve(socket.socket(fileno=int(sys.argv[1])), prepare())


if __name__ == "__main__":
    main()
