"""Commands that run the programs: coordinator, consumer, API, or all in one process for development."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.context import INTERRUPTED, REFUSED, CliContext, prepare, refuse
from orchestrator.cli.output import Output
from orchestrator.cli.startup_checks import warn_about_environment, warn_about_project
from orchestrator.db.engine_lock import is_paused
from orchestrator.loading import load_in_thread
from orchestrator.log import configure_logging
from orchestrator.registry import import_workflows, step_queues
from orchestrator.runtime import leave, run_program, run_together
from orchestrator.settings import Settings
from orchestrator.stopping import unless_stopping
from orchestrator.streams import guard_streams
from orchestrator.workflow import DEFAULT_QUEUE, MAX_NAME_LENGTH, TASK_QUEUE

if TYPE_CHECKING:
    from orchestrator.db.session import Database

Program = Callable[[Settings, asyncio.Event], Coroutine[Any, Any, None]]
"""Runs until the event is set, then finishes what has begun."""

LOOPBACK, API_PORT = "127.0.0.1", 8000

DEFAULT_CONCURRENCY = 1000
"""As in the consumer itself, which is imported only when it runs."""


def _check_queues(names: list[str] | None) -> list[str] | None:
    for name in names or ():
        if not name.replace("-", "").replace("_", "").isalnum() or len(name) > MAX_NAME_LENGTH:
            raise typer.BadParameter(f"a step queue's name holds letters, digits, '-' and '_' only, not {name!r}")
    return names


Queues = Annotated[
    list[str] | None,
    typer.Option(
        "--queue",
        "-q",
        metavar="NAME",
        callback=_check_queues,
        help="A step queue to read; repeat it for several. Default: default and tasks.",
    ),
]
MOST_AT_ONCE = 65_535
"""Of messages that AMQP 0-9-1 delivers before they are acknowledged: ``prefetch-count`` is a short."""

Concurrency = Annotated[int, typer.Option(min=1, max=MOST_AT_ONCE, metavar="N", help="Steps at once, at most.")]


Host = Annotated[str, typer.Option(metavar="ADDRESS", help="Where the API listens; 0.0.0.0 for all addresses.")]


def coordinator() -> None:
    """Take commands, results and callbacks, and dispatch what is due. Run one or more.

    SIGTERM and Ctrl-C let it finish what has begun; a second one ends it at once.
    """
    from orchestrator.coordinator.program import run_coordinator

    run(run_coordinator)


def consumer(queue: Queues = None, concurrency: Concurrency = DEFAULT_CONCURRENCY) -> None:
    """Run steps. Run one or more; the same as: python -m consumers.

    SIGTERM and Ctrl-C let running steps finish; a second one ends it at once.

    Example: orchestrator consumer --queue default --queue ims --concurrency 200
    """
    from consumers.program import run_consumer

    async def program(settings: Settings, stopping: asyncio.Event) -> None:
        await run_consumer(settings, stopping, queues=queue or (), concurrency=concurrency)

    run(program)


def api(
    host: Host = LOOPBACK,
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="N", help="0 takes a free one.")] = API_PORT,
    workers: Annotated[int, typer.Option(min=1, max=64, metavar="N", help="Processes that share the address.")] = 1,
) -> None:
    """Serve the HTTP API. Run one or more.

    Without ORCHESTRATOR_AUTH it serves this machine only, and asks nobody who they are.

    SIGTERM and Ctrl-C let requests in progress finish; a second one ends it at once.

    Example: orchestrator api --host 0.0.0.0 --port 8000 --workers 2
    """
    from orchestrator.api.program import bind, run_api
    from orchestrator.api.workers import run_workers

    async def program(settings: Settings, stopping: asyncio.Event) -> None:
        with bind(host, port) as listener:
            if workers == 1:
                await run_api(settings, stopping, listener)
            else:
                await run_workers(settings, stopping, listener, workers)

    run(program)


def dev(
    queue: Queues = None,
    concurrency: Concurrency = DEFAULT_CONCURRENCY,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, metavar="N", help="The API's; default 8000, or a free one.")
    ] = None,
) -> None:
    """Run coordinator, consumer and API in one process, for development.

    The same code against the same servers; only the processes are fewer. Without --queue it reads every step queue that
    its workflows name.
    """
    from consumers.program import run_consumer
    from orchestrator.api.program import bind, bind_default, run_api
    from orchestrator.coordinator.program import run_coordinator

    async def program(settings: Settings, stopping: asyncio.Event) -> None:
        queues = queue or sorted({DEFAULT_QUEUE, TASK_QUEUE, *step_queues()})
        listener = bind_default(LOOPBACK, API_PORT) if port is None else bind(LOOPBACK, port)
        with listener:
            await _run_all(settings, stopping, queues, listener)

    async def _run_all(settings: Settings, stopping: asyncio.Event, queues: list[str], listener: socket.socket) -> None:
        programs = (
            run_coordinator(settings, stopping),
            # Coordinator and consumer need the broker, and a second account of its absence would not help.
            run_api(settings, stopping, listener, require_broker=True),
            run_consumer(settings, stopping, queues=queues, concurrency=concurrency),
        )
        await run_together(programs, stopping)

    run(program, tracebacks=True)


def run(program: Program, *, tracebacks: bool = False) -> None:
    """Run a program until a signal ends it, and exit with its code.

    Args:
        tracebacks: whether its log has those of failed steps.
    """
    guard_streams()
    output = Output(as_json=False)
    code = 0
    try:
        settings = prepare()
        configure_logging(settings.log_format, settings.log_level, settings.log_levels, tracebacks=tracebacks)
        warn_about_environment()
        code = run_program(
            lambda stopping: _check_and_run(program, CliContext(settings, output), stopping), settings.drain_grace
        )
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception as error:
        # As in context.execute: a defect of the engine keeps its traceback.
        if not refuse(output, error):
            raise
        code = REFUSED
    leave(code)
    raise typer.Exit(code)


async def _check_and_run(program: Program, context: CliContext, stopping: asyncio.Event) -> None:
    async with context.database() as database:
        await unless_stopping(_require_tables(database), stopping)
        if stopping.is_set() or not await load_in_thread(lambda: _load(context), stopping):
            return
        await unless_stopping(warn_about_project(context, database), stopping)
    if not stopping.is_set():
        await program(context.settings, stopping)


async def _require_tables(database: Database) -> None:
    async with database.transaction() as session:
        await is_paused(session)  # in a database that was never migrated its error is explained in one line


def _load(context: CliContext) -> None:
    context.load_workflows()
    import_workflows()
