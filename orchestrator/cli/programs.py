"""Running the programs: coordinator, consumer, or both in one process for development."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

import structlog
import typer

from orchestrator.cli.context import INTERRUPTED, REFUSED, CliContext, prepare, refuse
from orchestrator.cli.output import Output
from orchestrator.cli.startup_checks import give_notice
from orchestrator.log import configure_logging
from orchestrator.registry import step_queues
from orchestrator.services.pause import engine_status
from orchestrator.settings import Settings
from orchestrator.workflow import DEFAULT_QUEUE, MAX_NAME_LENGTH, TASK_QUEUE
from orchestrator.workflows.shipped import load_workflows

logger = structlog.get_logger(__name__)

Program = Callable[[Settings, asyncio.Event], Coroutine[Any, Any, None]]
"""Runs until the event is set, then finishes what has begun."""

THREADS_END = 1.0
"""Seconds that the event loop's threads get to end; those that run nothing need none."""

DEFAULT_CONCURRENCY = 1000
"""As in the consumer itself, which is imported only when it runs."""


def _checked_queues(names: list[str] | None) -> list[str] | None:
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
        callback=_checked_queues,
        help="A step queue to read; repeat it for several. Default: default and tasks.",
    ),
]
Concurrency = Annotated[int, typer.Option(min=1, metavar="N", help="Steps at once, at most.")]


def coordinator() -> None:
    """Take commands, results and callbacks; look after what is due. Run one or more.

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


def dev(queue: Queues = None, concurrency: Concurrency = DEFAULT_CONCURRENCY) -> None:
    """Run coordinator and consumer in one process, for development.

    The same code against the same servers; only the processes are fewer. Without --queue it reads every step queue that
    its workflows name.
    """
    from consumers.program import run_consumer
    from orchestrator.coordinator.program import run_coordinator

    async def program(settings: Settings, stopping: asyncio.Event) -> None:
        load_workflows(settings.workflows)
        queues = queue or sorted({DEFAULT_QUEUE, TASK_QUEUE, *step_queues()})
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(run_coordinator(settings, stopping))
            tasks.create_task(run_consumer(settings, stopping, queues=queues, concurrency=concurrency))

    run(program)


def run(program: Program) -> None:
    """Run a program until a signal ends it; leaves with its exit code."""
    output = Output(as_json=False)
    code = 0
    try:
        settings = prepare()
        configure_logging(settings.log_format, settings.log_level)
        runner = asyncio.Runner(loop_factory=_loop_factory())
        try:
            runner.run(_until_signalled(program, CliContext(settings, output)))
        finally:
            # Closing the loop waits for its threads, a form that never ends among them.
            if runner.run(_threads_end()):
                runner.close()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception as error:
        # As in context.execute: what is not known to be somebody else's fault keeps its traceback.
        if not refuse(output, error):
            raise
        code = REFUSED
    _leave(code)


async def _until_signalled(program: Program, context: CliContext) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop(number: signal.Signals) -> None:
        if stopping.is_set():
            os._exit(128 + number)
        logger.info("stopping; once more ends at once", signal=number.name)
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    try:
        async with context.database() as database:
            async with database.transaction() as session:
                await engine_status(session)  # says in one line when the database was never migrated
            context.learn_workflows()
            await give_notice(context, database)
        await program(context.settings, stopping)
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def _threads_end() -> bool:
    """Tell the threads of the event loop to end; whether they do so in time."""
    # Not with wait_for: cancelled, it waits for its threads all the same.
    ending = asyncio.create_task(asyncio.get_running_loop().shutdown_default_executor())
    await asyncio.wait({ending}, timeout=THREADS_END)
    return ending.done()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, where there is one."""
    if importlib.util.find_spec("uvloop") is None:
        return None
    import uvloop

    return uvloop.new_event_loop


def _leave(code: int) -> None:
    """End, even if a plain step that outran the drain still sits in its thread: the interpreter would wait for it."""
    if any(one is not threading.main_thread() and not one.daemon for one in threading.enumerate()):
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    raise typer.Exit(code)
