"""What a run costs: CPU by program and server, peak memory, and how busy the machine was with other things."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil


def servers_from_environment() -> dict[str, int]:
    """Return the servers' process ids, if ``scripts/services env`` has named them: only then is their CPU known."""
    named = (item.partition("=") for item in os.environ.get("ORCHESTRATOR_SERVICES_PIDS", "").split(",") if item)
    return {name.strip(): int(pid) for name, _, pid in named}


def cpu_seconds(root: int) -> float:
    """CPU of a process and its descendants, those that have ended included (PostgreSQL's backends come and go)."""
    total = 0.0
    parent = psutil.Process(root)
    for one in [parent, *parent.children(recursive=True)]:
        try:
            times = one.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def peak_memory(pid: int) -> float:
    """Return the most memory that a process has had resident, in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/{pid}/status has no VmHWM")


def resident_memory(pid: int) -> float:
    """Return the memory that a process has resident now, in MiB."""
    return float(psutil.Process(pid).memory_info().rss) / 2**20


def _machine() -> tuple[float, float]:
    times = psutil.cpu_times()
    idle = times.idle + times.iowait
    total = sum(times) - times.guest - times.guest_nice
    return total - idle, total


def wait_until_quiet(busy_percent: float = 15.0, seconds_in_a_row: int = 2, patience: float = 60.0) -> bool:
    """Wait until the machine is nearly idle; whether it became so."""
    calm, ends = 0, time.monotonic() + patience
    psutil.cpu_percent()
    while time.monotonic() < ends:
        time.sleep(1)
        calm = calm + 1 if psutil.cpu_percent() < busy_percent else 0
        if calm == seconds_in_a_row:
            return True
    return False


class Meter:
    """Wall time, CPU and memory from its making to :meth:`stop`.

    Args:
        programs: name → process id of the system under test.
    """

    def __init__(self, programs: Mapping[str, int]) -> None:
        self._programs = dict(programs)
        self._groups = {**programs, **servers_from_environment(), "client": os.getpid()}
        self._cpu = {name: self._of(name) for name in self._groups}
        self._busy, self._total = _machine()
        self._began = time.perf_counter()

    def stop(self) -> None:
        """Take the readings."""
        self.seconds = time.perf_counter() - self._began
        busy, total = _machine()
        self.cpu = {name: self._of(name) - before for name, before in self._cpu.items()}
        # What neither the system, the servers nor this client used, in per cent of the machine.
        self.others = max(0.0, (busy - self._busy - sum(self.cpu.values())) / max(total - self._total, 1e-9) * 100)
        self.memory = {name: peak_memory(pid) for name, pid in self._programs.items()}

    def _of(self, name: str) -> float:
        if name == "client":  # its children are the programs, which count for themselves
            times = psutil.Process().cpu_times()
            return float(times.user + times.system)
        return cpu_seconds(self._groups[name])


def percentile(values: Sequence[float], fraction: float) -> float:
    """Return the value below which ``fraction`` of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(fraction * (len(ordered) - 1)))]


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return the rise per unit of the straight line nearest to the points."""
    return statistics.linear_regression([x for x, _ in points], [y for _, y in points]).slope
