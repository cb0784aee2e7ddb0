"""What the engine costs above the floor, measured in turn on the same servers.

    scripts/services up; eval "$(scripts/services env)"
    .venv/bin/python -m tests.benchmarks.throughput

Both systems run as real programs, one coordinator and one consumer on uvloop, in a database and a virtual host that are made for
the run and removed afterwards. Each repetition measures the floor, then the engine: first ``--processes`` processes of ten
steps, started at once by AMQP start commands – the clock runs from the first start command to the last completion event, so
everything that a start costs is inside – then ``--idle`` processes one after the other on the idle system, each from its
start command to its completion event. Figures of a shared machine vary; ratios of neighbouring turns are what to look at.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import uvloop

from tests.benchmarks import floor, modes
from tests.benchmarks.peers import INSTALL, PEERS
from tests.benchmarks.report import print_comparison
from tests.benchmarks.systems import BenchmarkError, engine_system, floor_system, own_corner
from tests.servers import NoServersError, Servers


async def run(options: argparse.Namespace) -> int:
    """Do what the options say; the exit code."""
    try:
        servers = Servers.from_environment()
    except NoServersError as error:
        raise BenchmarkError(str(error)) from None
    if options.peer and options.peer_python is None:
        raise BenchmarkError(f"a peer needs a virtual environment of its own: {INSTALL}")
    programs = dict(_named(one) for one in options.program or [str(Path(sys.executable).with_name("orchestrator"))])
    engines = [
        engine_system(path, name if steps is None else f"{name} ahead {steps}", run_ahead=steps)
        for name, path in programs.items()
        for steps in options.run_ahead or [None]
    ]
    floors = [floor_system(kind, f"floor {kind}") for kind in options.floor or ["rounds"]]
    async with own_corner(servers, options.queue_type) as corner:
        if options.fair:
            return await modes.fairness(corner, next(iter(programs.values())), options)
        if options.sleeping:
            return await modes.sleeping(corner, next(iter(programs.values())))
        if options.statements:
            return await modes.count_statements(corner, [*floors, *engines], options.processes)
        if options.memory:
            return await modes.memory(corner, engines[0], options.memory)
        if options.profile:
            return await modes.profile(corner, engines[0], options.processes, options.keep_profiles)
        turns = await modes.compare(corner, [*floors, *engines], options, options.peer or [])
    if options.json:
        print(json.dumps([turn.document() for turn in turns], indent=1))
    else:
        print_comparison(turns, options)
    return 0


def _named(program: str) -> tuple[str, str]:
    name, equals, path = program.partition("=")
    return (name, path) if equals else ("engine", program)


def parser() -> argparse.ArgumentParser:
    """Read the command line and run."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--processes", type=int, default=500, help="started at once (default 500)")
    found.add_argument("--idle", type=int, default=50, help="timed one after the other (default 50; 0 for none)")
    found.add_argument("--reps", type=int, default=3, help="repetitions (default 3)")
    found.add_argument("--consumers", type=int, default=1)
    found.add_argument("--queue-type", choices=("quorum", "classic"), default="quorum")
    found.add_argument(
        "--floor",
        choices=tuple(floor.KINDS),
        action="append",
        help="what tests/benchmarks/floor.py says of it; given several times, each is measured in turn (default rounds)",
    )
    found.add_argument(
        "--run-ahead",
        type=int,
        action="append",
        metavar="STEPS",
        help="ORCHESTRATOR_RUN_AHEAD of the consumer; given several times, each is measured in turn",
    )
    found.add_argument(
        "--peer", choices=tuple(PEERS), action="append", help="measure another system in turn; see --peer-python"
    )
    found.add_argument(
        "--peer-python", type=Path, metavar="PATH", help=f"of a virtual environment that has the peer: {INSTALL}"
    )
    found.add_argument("--json", action="store_true", help="one object for each turn instead of the table")
    found.add_argument("--no-wait", action="store_true", help="do not wait for a quiet machine before each turn")
    found.add_argument(
        "--program",
        action="append",
        metavar="[NAME=]PATH",
        help="the orchestrator program to measure (default: the one beside this Python); given several times, with"
        " names, all of them are measured in turn",
    )
    other = found.add_argument_group("instead of the comparison").add_mutually_exclusive_group()
    other.add_argument("--statements", action="store_true", help="count SQL statements and disk syncs of each step")
    other.add_argument("--memory", type=int, metavar="STEPS", help="run so many steps and watch the memory")
    other.add_argument("--sleeping", action="store_true", help="a thousand steps that sleep five seconds, one consumer")
    other.add_argument("--fair", action="store_true", help="short processes beside a long one, with each --run-ahead")
    other.add_argument("--profile", action="store_true", help="where the programs' time goes")
    found.add_argument("--keep-profiles", type=Path, metavar="FOLDER", help="where --profile leaves its files")
    return found


def main() -> int:
    """Run the program."""
    try:
        return uvloop.run(run(parser().parse_args()))
    except BenchmarkError as error:
        print(f"throughput: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
