"""Tells the demo's two stories, one after the other. Start it with ``scripts/demo``."""

from __future__ import annotations

import asyncio
import shlex
import signal
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
from rich.table import Table
from rich.text import Text

from .amqp import may_publish, other_service, read_dead_letters, watching
from .books import Books, Process
from .checks import Check, Evidence, judge, placed_orders
from .corner import Corner, own_ground
from .errors import DemoError
from .network_story import tell_of_network
from .programs import FOLDER, REPOSITORY, Programs, forget_old_runs
from .screen import STYLES, Screen
from .story import ORDERS, Demo


async def tell(screen: Screen) -> list[Check]:
    """Tell both stories; return what was checked. Cleaning up is not watched: each of its parts has a limit of its own."""
    forget_old_runs()
    checks: list[Check] = []
    async with own_ground() as ground:
        for number, (title, project, story) in enumerate(STORIES, 1):
            screen.headline(f"Story {number} of {len(STORIES)}: {title}")
            async with AsyncExitStack() as stack, screen.patience.watch():
                corner = await stack.enter_async_context(ground.fresh_corner())
                environment = _environment(corner, screen, project)
                programs = await stack.enter_async_context(Programs(environment, project, screen.patience))
                _write_environment(environment, project)
                checks += await story(screen, stack, corner, programs)
                _tell_where(screen, corner, project)
    return checks


def _environment(corner: Corner, screen: Screen, project: str) -> dict[str, str]:
    return {
        "ORCHESTRATOR_DATABASE_URL": corner.database_url,
        "ORCHESTRATOR_AMQP_URL": corner.amqp_url,
        "ORCHESTRATOR_WORKFLOWS": f"examples.{project}",
        "ORCHESTRATOR_MIGRATIONS": str(REPOSITORY / "examples" / project / "migrations"),
        "ORCHESTRATOR_LOG_FORMAT": "console",
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "COLUMNS": str(screen.console.width),
    }


async def _tell_of_lines(screen: Screen, stack: AsyncExitStack, corner: Corner, programs: Programs) -> list[Check]:
    began = time.monotonic()
    pool = await stack.enter_async_context(asyncpg.create_pool(corner.dsn, min_size=1, max_size=4, timeout=60))
    demo = Demo(screen, corner, programs, Books(pool))
    await demo.start_programs()
    await stack.enter_async_context(watching(corner.amqp_url, demo.see))
    service = await stack.enter_async_context(other_service(corner.service_url, screen.patience))

    screen.headline(f"{ORDERS} orders, from the command line and as bare AMQP messages")
    repeated = await demo.send_twice(service)
    unknown, incomplete = await demo.send_nonsense(service)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(demo.place_orders(service))
        tasks.create_task(demo.give_input())
        kill = tasks.create_task(demo.kill_a_consumer())
    await programs.until("every process is completed", demo.all_are_completed)
    await programs.until("every event has come and every queue is empty", demo.all_is_told)
    took = time.monotonic() - began

    evidence = Evidence(
        processes=await demo.books.processes(),
        lines=await demo.books.lines(),
        log=await demo.books.log(),
        callbacks=await demo.books.callbacks(),
        started=demo.started,
        repeated=repeated,
        unknown=unknown,
        incomplete=incomplete,
        killed=kill.result(),
        orders=await placed_orders(demo.provisioning_url),
        events=demo.events,
        queues=await corner.queues(),
        dead_letters=await read_dead_letters(corner.amqp_url),
        field_may_order=await may_publish(corner.field_url, "orchestrator.commands", "workflow.start"),
    )
    screen.end_live()
    screen.headline("Processes")
    screen.console.print(_table(evidence.processes))
    screen.headline("The audit trail of one that lost its consumer: orchestrator show")
    screen.plain(await programs.command("show", str(evidence.killed[1][0])))
    screen.headline("The queues as an operator sees them: orchestrator topology show")
    screen.plain(await programs.command("topology", "show"))
    checks = judge(evidence)
    screen.headline("Is everything as it should be?")
    for check in checks:
        mark = Text("  no   ", "bold red") if check.wrong else Text("  yes  ", "green")
        screen.console.print(mark + Text(check.statement + (f": {check.wrong}" if check.wrong else "")), soft_wrap=True)
    screen.console.print()
    screen.say(f"{took:.0f} s from the fresh database to the last event")
    return checks


STORIES = (
    ("five lines are provisioned, and a consumer is killed", "demo", _tell_of_lines),
    ("a network with its products and subscriptions, and what the rules forbid", "network", tell_of_network),
)
"""Title, project, and who tells it."""


def _table(processes: list[Process]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("customer", "process", "started by", "status"):
        table.add_column(column)
    for column in ("steps", "skipped", "attempts", "tried again", "lost", "seconds"):
        table.add_column(column, justify="right")
    for one in processes:
        counts = (one.steps, one.skipped, one.attempts, one.tried_again, one.lost)
        table.add_row(
            one.customer,
            str(one.process_id)[:8],
            one.started_by,
            Text(one.status, STYLES.get(one.status, "")),
            *map(str, counts),
            f"{one.seconds:.1f}",
        )
    return table


def _write_environment(environment: dict[str, str], project: str) -> None:
    """For people who want to look around afterwards: it holds passwords, so it is for the owner's eyes only."""
    path = FOLDER / f"{project}.env"
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    names = (name for name in environment if name.startswith("ORCHESTRATOR_"))
    path.write_text("".join(f"export {name}={shlex.quote(environment[name])}\n" for name in names))


def _tell_where(screen: Screen, corner: Corner, project: str) -> None:
    here = Path("examples/demo/.run")
    screen.console.print(
        f"""
Look around:
  RabbitMQ's management UI   {corner.management.url}, virtual host {corner.name}, user {corner.management.user};
                             the password is in ORCHESTRATOR_AMQP_URL: scripts/services env
  the command line           . {here}/{project}.env; .venv/bin/orchestrator list
  the programs' logs         {here}/{project}-*.log
This story's programs stop now; database and virtual host stay until the next demo.""",
        soft_wrap=True,
        markup=False,
    )


async def run() -> int:
    """Tell the story within the time; the exit code."""
    _end_in_order_on_signals()
    with Screen() as screen:
        try:
            checks = await tell(screen)
        except (DemoError, BaseExceptionGroup) as error:
            problem = _words(error)
        except (OSError, asyncpg.PostgresError) as error:
            problem = f"{type(error).__name__}: {error}"
        except asyncio.CancelledError:
            screen.end_live()
            screen.say("interrupted; everything that was started is stopped")
            return 130
        else:
            wrong = [check for check in checks if check.wrong]
            problem = "; ".join([f"{len(wrong)} of {len(checks)} checks failed", *map(_line, wrong)]) if wrong else ""
        screen.end_live()
        if problem:
            print(f"\nThe demo has failed: {problem}\nThe programs' logs: {FOLDER}/*.log", file=sys.stderr)
            return 1
        screen.say(f"both stories are told, {len(checks)} checks made")
        screen.console.print(Text("\nEverything is as it should be.", style="bold green"))
        return 0


def _line(check: Check) -> str:
    return f"{check.statement}: {check.wrong}"


def _end_in_order_on_signals() -> None:
    """Ctrl-C cancels the story once; pressing it again must not interrupt the cleaning up, which takes seconds at most."""
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None  # noqa: S101 - we run in one

    def stop() -> None:
        if not task.cancelling():
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop)


def _words(error: BaseException) -> str:
    """The first of our own errors in a group; anything else is a defect of the demo and keeps its traceback."""
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            return _words(one)
    if isinstance(error, DemoError | OSError | asyncpg.PostgresError):
        return str(error)
    raise error


if __name__ == "__main__":
    sys.exit(asyncio.run(run()))
