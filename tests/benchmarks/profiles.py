"""Profiles of the programs: by py-spy if it is installed, else by cProfile; and the lines at the top."""

from __future__ import annotations

import pstats
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

TOP = 40


def sampler() -> str | None:
    """Return the program py-spy, beside this Python or on the path."""
    beside = Path(sys.executable).with_name("py-spy")
    return str(beside) if beside.exists() else shutil.which("py-spy")


def profiled(role: str, folder: Path) -> Sequence[str]:
    """Return what to put before a program's command line."""
    if (spy := sampler()) is not None:
        output = ("--output", str(folder / f"{role}.raw"), "--format", "raw")
        return (spy, "record", "--rate", "500", "--gil", *output, "--", sys.executable)
    return (sys.executable, "-m", "cProfile", "-o", str(folder / f"{role}.prof"))


def print_top(role: str, folder: Path) -> None:
    """Print where the time went: a function's own share, and with all that it called."""
    raw = folder / f"{role}.raw"
    if not raw.exists():
        print(f"\n{role}: cProfile, own time\n")
        pstats.Stats(str(folder / f"{role}.prof")).sort_stats("tottime").print_stats(TOP)
        return
    own: Counter[str] = Counter()
    whole: Counter[str] = Counter()
    for line in raw.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        frames = [frame.rpartition(":")[0] for frame in stack.split(";")]
        own[frames[-1]] += int(count)
        for frame in set(frames):
            whole[frame] += int(count)
    total = sum(own.values())
    print(f"\n{role}: {total} samples of py-spy, in per cent")
    for title, counter in (("own", own), ("with callees", whole)):
        print(f"\n  {title}")
        for frame, samples in counter.most_common(TOP):
            print(f"  {samples / total:6.1%}  {frame}")
