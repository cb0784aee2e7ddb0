"""Break servers, networks and programs at random under load; then nothing may be lost, doubled or left alone."""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from tests.acceptance.pair import Pair
from tests.chaos.run import run


def say(text: str) -> None:
    """Print progress at once, also into a pipe."""
    print(text, flush=True)


def main() -> int:
    """Parse the command line, run, and return 1 when an invariant is violated."""
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__)
    parser.add_argument(
        "--seed", type=int, help="decides which fault comes when; default: a random one, which is printed"
    )
    parser.add_argument("--minutes", type=float, default=1.0, help="of faults (default 1); the rest comes in addition")
    parser.add_argument("--keep", action="store_true", help="keep the folder with the logs")
    options = parser.parse_args()
    seed = int.from_bytes(os.urandom(4), "big") if options.seed is None else options.seed
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # it complains of what is done here to its servers
    logging.getLogger("aio_pika").setLevel(logging.CRITICAL)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = Path(tempfile.mkdtemp(prefix="orchestrator-chaos-"))
    folder.chmod(0o711)  # root's servers run as other users, who must be able to pass through
    pair = Pair(folder / "services")
    keep = options.keep
    try:
        pair.run("up")
        found = run(folder / "run", pair, seed, options.minutes * 60, say)
        say("")
        for one in found:
            say(str(one))
            for line in one.wrong[:20]:
                say(f"    {line}")
        violated = [one for one in found if one.wrong]
        keep = keep or bool(violated)
        again = f"scripts/chaos --seed {seed} --minutes {options.minutes:g}"
        say(f"{'VIOLATED' if violated else 'all hold'}; the same again: {again}")
        if keep:
            say(f"the logs are in {folder}")
        return int(bool(violated))
    except KeyboardInterrupt:
        return 130
    finally:
        pair.run("down", *(() if keep else ("--wipe",)))
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
