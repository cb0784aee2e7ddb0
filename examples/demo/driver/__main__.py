"""Tell the demo's two stories, one after the other. Start it with ``scripts/demo``."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import asyncpg
from aio_pika.exceptions import AMQPError
from rich.text import Text

from tests.servers import NoServersError

from .lines import tell_of_lines
from .network_story import tell_of_network, tell_of_network_over_http
from .patience import DemoError
from .place import own_ground
from .screen import Screen
from .stage import FOLDER, Stage, set_stage

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Story:
    """A story, and what it is played with: see ``Stage``."""

    title: str
    tell: Callable[[Stage], None]
    project: str
    outside: str
    variables: tuple[str, str]


LINES, NETWORK, NETWORK_OVER_HTTP = (
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
    Story(
        "the same network, by requests to the HTTP API alone",
        tell_of_network_over_http,
        "network",
        "network/controller_program.py",
        ("NETWORK_CONTROLLER_URL", "NETWORK_AMQP_URL"),
    ),
)


def tell(screen: Screen, stories: Sequence[Story], *, shows_pages: bool) -> None:
    """Tell stories, one after the other.

    Args:
        shows_pages: serve the pages of the last one at its end, until the user presses Ctrl-C.
    """
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    with own_ground() as ground:
        for number, story in enumerate(stories, 1):
            screen.headline(f"Story {number} of {len(stories)}: {story.title}")
            with (
                ground.fresh_place() as place,
                set_stage(place, screen, story.project, story.outside, story.variables) as stage,
            ):
                story.tell(stage)
                if number == len(stories) and shows_pages:
                    _show_pages(screen, stage)


def _show_pages(screen: Screen, stage: Stage) -> None:
    api = stage.serve()
    screen.console.print(Text(f"\nLook at what has happened: {api.url}/ui   (Ctrl-C ends the demo)", style="bold"))
    with contextlib.suppress(KeyboardInterrupt):
        signal.pause()


def run() -> int:
    """Tell the stories; return the exit code."""
    parser = argparse.ArgumentParser(prog="scripts/demo", description="Show the engine at work on real servers.")
    parser.add_argument("--http", action="store_true", help="tell the second story by the HTTP API alone")
    parser.add_argument("--ui", action="store_true", help="serve /ui at the end until Ctrl-C; so on a terminal")
    asked = parser.parse_args()
    stories = (LINES, NETWORK_OVER_HTTP if asked.http else NETWORK)
    for number in SIGNALS:
        signal.signal(number, _interrupt)
    screen = Screen()
    try:
        tell(screen, stories, shows_pages=asked.ui or sys.stdout.isatty())
    except KeyboardInterrupt:
        screen.say("interrupted; everything that was started is stopped")
        return 130
    # What others than we raise is a defect of the demo, and keeps its traceback.
    except (DemoError, AssertionError, NoServersError) as error:
        problem = str(error)
    except (OSError, asyncpg.PostgresError, AMQPError) as error:
        problem = f"{type(error).__name__}: {error}"
    else:
        failures = screen.failures
        problem = "; ".join([f"{len(failures)} of {screen.checks} checks failed", *failures]) if failures else ""
    if problem:
        print(f"\nThe demo has failed: {problem}\nThe programs' logs: {FOLDER}/*/logs/", file=sys.stderr)
        return 1
    if not (asked.ui or sys.stdout.isatty()):
        screen.say("scripts/demo --ui ends with the address of pages that show all of this")
    screen.say(f"both stories have ended, {screen.checks} checks made")
    screen.console.print(Text("\nEverything is as it should be.", style="bold green"))
    return 0


def _interrupt(*_: object) -> None:
    """End in an orderly way, once: another Ctrl-C must not interrupt the cleaning up."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(run())
