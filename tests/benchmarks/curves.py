"""How the engine's figures change with the load and with what is stored, as pictures.

    scripts/services up; eval "$(scripts/services env)"
    .venv/bin/python -m tests.benchmarks.curves                    # small sizes, to see that it works
    .venv/bin/python -m tests.benchmarks.curves --full             # those of the documentation, on a quiet machine
    .venv/bin/python -m tests.benchmarks.curves --full --resume    # go on with a run that was interrupted

One coordinator and one consumer, as they are by default. Each point is a run of its own; the points of a curve are measured one
after the other, so a machine that others use bends it. A curve's picture and its figures as JSON are written after each of its
points.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from tests.benchmarks import curve_bursts, curve_points
from tests.benchmarks.charts import draw
from tests.benchmarks.curve_points import Bench, Figures
from tests.benchmarks.options import ORCHESTRATOR
from tests.benchmarks.systems import BenchmarkError, own_corner
from tests.benchmarks.workload import HUNDRED, LONG, STEPS
from tests.servers import NoServersError, Servers

FOLDER = Path("docs/curves")
PROCESSES, FEW_PROCESSES = 300, 20
"""In each run in which they are not what is counted: in a full one, and in a small one."""


@dataclass(frozen=True, slots=True)
class Curve:
    """One picture: a measurement for each number.

    Args:
        below: what the horizontal axis counts.
        shown: the figures that are drawn; all of them are in the JSON.
    """

    title: str
    below: str
    measure: Callable[[Bench, int], Awaitable[Figures]]
    shown: Sequence[str]
    small: Sequence[int]
    full: Sequence[int]


_MEMORY = ("MiB, coordinator", "MiB, consumer")

# The shorter ones first: what there is after an interruption is the more.
CURVES = {
    "length": Curve(
        "Steps of a process",
        "steps",
        curve_points.length,
        ("steps/s", *_MEMORY),
        (1, STEPS),
        (1, STEPS, HUNDRED, LONG),
    ),
    "state": Curve(
        "Size of the state",
        "kB of state",
        curve_points.state,
        ("steps/s", "WAL kB a step", "wire kB a step"),
        (1, 10),
        (1, 10, 100, 1_000),
    ),
    "consumers": Curve(
        "Consumers whose steps sleep for 50 ms, ten at once in each",
        "consumers",
        curve_points.consumers,
        ("steps/s", "p95, ms"),
        (1, 2),
        (1, 2, 4, 8),
    ),
    "retries": Curve(
        "Retries due in the same second",
        "retries",
        curve_bursts.retries,
        ("retries/s", "start meanwhile ÷ idle, p50", *_MEMORY),
        (1, 10),
        (20, 200, 2_000),
    ),
    "starts": Curve(
        "Starts at once",
        "starts",
        curve_bursts.starts,
        ("starts/s by AMQP", "starts/s by HTTP", *_MEMORY),
        (5, 10),
        (100, 1_000, 5_000),
    ),
    "loss": Curve(
        "Recovery from the loss of the broker's data",
        "live processes",
        curve_bursts.loss,
        ("seconds", *_MEMORY),
        (5, 10),
        (100, 1_000, 10_000),
    ),
    "live": Curve(
        "Processes at once",
        "processes started at once",
        curve_points.live,
        ("steps/s", "p95, ms", *_MEMORY),
        (1, 10),
        (1, 10, 100, 1_000, 10_000),
    ),
    "overload": Curve(
        "Starts at once",
        "starts",
        curve_bursts.overload,
        (
            "start on another queue ÷ idle, p50",
            "the same, beside starts alone",
            "longest silence, s",
            "MiB, coordinator",
        ),
        (50, 100),
        (1_000, 5_000, 20_000),
    ),
    "finished": Curve(
        "Finished processes in the tables, each with a log of ten steps",
        "finished processes",
        curve_points.finished,
        ("steps/s", "p95, ms", *_MEMORY),
        (10, 100),
        (100, 10_000, 100_000, 1_000_000),
    ),
}


async def run(options: argparse.Namespace) -> None:
    """Measure and draw."""
    try:
        servers = Servers.from_environment()
    except NoServersError as error:
        raise BenchmarkError(str(error)) from None
    options.folder.mkdir(parents=True, exist_ok=True)
    processes = options.processes or (PROCESSES if options.full else FEW_PROCESSES)
    conditions = {"full": options.full, "cores": os.cpu_count(), "run ahead": options.run_ahead, "processes": processes}
    failed = []
    async with own_corner(servers, "quorum") as corner:
        bench = Bench(servers, corner, options.program, processes, options.run_ahead)
        for name in options.curve or CURVES:
            try:
                await _measure(bench, name, options, conditions)
            except Exception as error:
                # Whatever has ended one: the other curves are worth having, and take long.
                print(f"curves: {name}: {error!r}", file=sys.stderr, flush=True)
                traceback.print_exc()
                failed.append(name)
    if failed:
        raise BenchmarkError(f"not measured to the end: {', '.join(failed)}; --resume goes on with them")


async def _measure(bench: Bench, name: str, options: argparse.Namespace, conditions: Mapping[str, Any]) -> None:
    curve = CURVES[name]
    found = read_points(options.folder, name, conditions) if options.resume else {}
    for number in curve.full if options.full else curve.small:
        if number in found:
            continue
        began = time.perf_counter()
        found[number] = {key: round(value, 2) for key, value in (await curve.measure(bench, number)).items()}
        print(f"{name} {number} ({time.perf_counter() - began:.0f} s): {found[number]}", flush=True)
        write_points(options.folder, name, curve, dict(sorted(found.items())), conditions)


def read_points(folder: Path, name: str, conditions: Mapping[str, Any]) -> dict[int, Figures]:
    """Return the points that an earlier run has measured under the same conditions."""
    file = folder / f"{name}.json"
    document = json.loads(file.read_text()) if file.exists() else {}
    if document.get("conditions") != conditions:
        return {}
    return {int(number): figures for number, figures in document["figures"].items()}


def write_points(
    folder: Path, name: str, curve: Curve, found: Mapping[int, Figures], conditions: Mapping[str, Any]
) -> None:
    title = curve.title if conditions["full"] else f"{curve.title} (a small run: no figures to quote)"
    lines = {key: [(number, figures[key]) for number, figures in found.items()] for key in curve.shown}
    folder.joinpath(f"{name}.svg").write_text(draw(title, curve.below, lines))
    document = {"curve": name, "conditions": conditions, "figures": found}
    folder.joinpath(f"{name}.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def parser() -> argparse.ArgumentParser:
    """Read the command line."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--curve", choices=tuple(CURVES), action="append", help="default all")
    found.add_argument(
        "--full",
        action="store_true",
        help="the sizes of the documentation; about half an hour, ten minutes of it the overload",
    )
    found.add_argument("--resume", action="store_true", help="keep the points that an interrupted run has measured")
    found.add_argument(
        "--processes", type=int, help=f"in runs that do not count them (default {FEW_PROCESSES}, --full {PROCESSES})"
    )
    found.add_argument(
        "--run-ahead", type=int, metavar="STEPS", help="ORCHESTRATOR_RUN_AHEAD of the consumer (default its own)"
    )
    found.add_argument("--folder", type=Path, default=FOLDER, help=f"for the pictures (default {FOLDER})")
    found.add_argument("--program", default=ORCHESTRATOR, metavar="PATH", help="the orchestrator program to measure")
    return found


def main() -> int:
    """Run the program."""
    try:
        uvloop.run(run(parser().parse_args()))
    except BenchmarkError as error:
        print(f"curves: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
