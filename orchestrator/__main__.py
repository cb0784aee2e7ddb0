"""The program ``orchestrator``; ``python -m orchestrator`` is the same."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; the exit code leaves as ``SystemExit``.

    Args:
        argv: the arguments after the program's name; default those of this process.
    """
    if os.getpid() == 1:
        # The kernel drops signals to a container's first process that it has no handler for. Before the imports, which take
        # longer than everything else until the program has handlers of its own.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _leave)
    from orchestrator.cli import main as run

    run(sys.argv[1:] if argv is None else argv)


def _leave(number: int, _: FrameType | None) -> None:
    os._exit(128 + number)


if __name__ == "__main__":
    main()
