"""What the benchmarks of real programs on a corner of one's own have in common: their options, and how they end."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from tests.benchmarks.systems import BenchmarkError
from tests.servers import NoServersError, Servers

ORCHESTRATOR = str(Path(sys.executable).with_name("orchestrator"))


def count(text: str) -> int:
    """Return the number of something, of which there must be one at least."""
    found = int(text)
    if found < 1:
        raise argparse.ArgumentTypeError("must be 1 at least")
    return found


def count_or_none(text: str) -> int:
    """Return the number of something that may be left out."""
    return 0 if text == "0" else count(text)


def make_parser(story: str | None) -> argparse.ArgumentParser:
    """Return a parser of the options that all have.

    Args:
        story: the docstring of the benchmark.
    """
    found = argparse.ArgumentParser(description=story, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--reps", type=count, default=1, help="repetitions (default 1)")
    found.add_argument("--queue-type", choices=("quorum", "classic"), default="quorum")
    found.add_argument("--program", default=ORCHESTRATOR, metavar="PATH", help="the orchestrator program to measure")
    return found


def run_benchmark(
    name: str, parser: argparse.ArgumentParser, run: Callable[[Servers, argparse.Namespace], Awaitable[None]]
) -> int:
    """Run a benchmark and return the exit code; what keeps it from its figures is one line."""
    options = parser.parse_args()

    async def begin() -> None:
        await run(Servers.from_environment(), options)

    try:
        uvloop.run(begin())
    except (NoServersError, BenchmarkError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    return 0
