"""Tell the demo's two stories, one after the other. Start it with ``scripts/demo``."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import asyncpg
from aio_pika.exceptions import AMQPError
from rich.text import Text

from .errors import DemoError
from .ground import own_ground
from .lines import tell_of_lines
from .network_story import tell_of_network
from .programs import FOLDER
from .screen import Screen
from .stage import Stage, set_stage


@dataclass(frozen=True, slots=True)
class Story:
    """A story, and what it is played with: see ``set_stage``."""

    title: str
    tell: Callable[[Stage], Awaitable[None]]
    project: str
    outside: str
    variables: tuple[str, str]


STORIES = (
    Story(
        "five lines are provisioned, and a consumer is killed",
        tell_of_lines,
        "demo",
        "demo/provisioning_service.py",
        ("DEMO_PROVISIONING_URL", "DEMO_AMQP_URL"),
    ),
    Story(
        "a network with its products and subscriptions, and what the rules forbid",
        tell_of_network,
        "network",
        "network/controller_program.py",
        ("NETWORK_CONTROLLER_URL", "NETWORK_AMQP_URL"),
    ),
)


async def tell(screen: Screen) -> None:
    """Tell both stories. Starting and playing are watched; when the programs are stopped each has a limit of its own."""
    FOLDER.mkdir(exist_ok=True)
    for log in FOLDER.glob("*.log"):
        log.unlink()
    async with own_ground() as ground:
        for number, story in enumerate(STORIES, 1):
            screen.headline(f"Story {number} of {len(STORIES)}: {story.title}")
            async with set_stage(ground, screen, story.project, story.outside, story.variables) as stage:
                await story.tell(stage)


async def run() -> int:
    """Tell the stories; return the exit code."""
    _end_in_order_on_signals()
    screen = Screen()
    try:
        await tell(screen)
    except asyncio.CancelledError:
        screen.say("interrupted; everything that was started is stopped")
        return 130
    except Exception as error:
        problem = _describe(error)
    else:
        failures = screen.failures
        problem = "; ".join([f"{len(failures)} of {screen.checks} checks failed", *failures]) if failures else ""
    if problem:
        print(f"\nThe demo has failed: {problem}\nThe programs' logs: {FOLDER}/*.log", file=sys.stderr)
        return 1
    screen.say(f"both stories have ended, {screen.checks} checks made")
    screen.console.print(Text("\nEverything is as it should be.", style="bold green"))
    return 0


def _describe(error: BaseException) -> str:
    """Return what went wrong: the first error of a group. An unexpected one is a defect of the demo and keeps its traceback."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, DemoError):
        return str(error)
    if isinstance(error, OSError | asyncpg.PostgresError | AMQPError):
        return f"{type(error).__name__}: {error}"
    raise error


def _end_in_order_on_signals() -> None:
    """Cancel the story on Ctrl-C, once: pressing it again must not interrupt the cleaning up."""
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None  # noqa: S101 - we run in one

    def stop() -> None:
        if not task.cancelling():
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop)


if __name__ == "__main__":
    sys.exit(asyncio.run(run()))
