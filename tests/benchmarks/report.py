"""Results and how they are shown."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.benchmarks.measure import percentile

BUSY = 10.0
"""Per cent of the machine used by others, above which a turn is marked."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of one system; times in seconds, memory in MiB, ``others`` in per cent of the machine."""

    system: str
    processes: int
    steps: int
    seconds: float
    idle: Sequence[float]
    cpu: dict[str, float]
    memory: dict[str, float]
    others: float

    def __str__(self) -> str:
        idle = f", idle p50 {self.idle_p50:.1f} ms" if self.idle else ""
        busy = " (!)" if self.others > BUSY else ""
        return f"{self.system}: {self.steps_per_second:.0f} steps/s{idle}, other work {self.others:.0f} %{busy}"

    @property
    def steps_per_second(self) -> float:
        return self.steps / self.seconds

    @property
    def idle_p50(self) -> float:
        return percentile(self.idle, 0.5) * 1000 if self.idle else float("nan")

    @property
    def idle_p95(self) -> float:
        return percentile(self.idle, 0.95) * 1000 if self.idle else float("nan")

    def cpu_of(self, name: str) -> float:
        """CPU seconds per 1,000 steps of a program (all consumers together) or a server."""
        return sum(value for key, value in self.cpu.items() if key.split()[0] == name) / self.steps * 1000

    def memory_of(self, name: str) -> float:
        """Return the highest peak among the programs of this kind."""
        return max((value for key, value in self.memory.items() if key.split()[0] == name), default=0.0)

    def document(self) -> dict[str, object]:
        """For ``--json``."""
        names = dict.fromkeys(key.split()[0] for key in self.cpu)
        return {
            "system": self.system,
            "processes": self.processes,
            "seconds": round(self.seconds, 3),
            "steps_per_s": round(self.steps_per_second, 1),
            "processes_per_s": round(self.processes / self.seconds, 2),
            "idle_p50_ms": round(self.idle_p50, 2) if self.idle else None,
            "idle_p95_ms": round(self.idle_p95, 2) if self.idle else None,
            "cpu_s_per_1000_steps": {name: round(self.cpu_of(name), 3) for name in names},
            "peak_memory_mib": {name: round(value, 1) for name, value in self.memory.items()},
            "other_work_percent": round(self.others, 1),
        }


Row = tuple[str, Callable[[Turn], float], str]


def print_comparison(turns: Sequence[Turn], options: argparse.Namespace) -> None:
    """Print medians of each system, and the medians of the ratios of the turns beside each floor."""
    names = list(dict.fromkeys(turn.system for turn in turns))
    of = {name: [turn for turn in turns if turn.system == name] for name in names}
    servers = [key for key in turns[0].cpu if key.split()[0] not in {"coordinator", "consumer", "client"}]
    print(
        f"\n{options.queue_type} queues, 1 coordinator, {options.consumers} consumer(s), {options.processes} processes of"
        f" {turns[0].steps // turns[0].processes} steps, {options.idle} idle;"
        f" medians of {options.reps} turns\n"
    )
    rows: list[Row] = [
        ("steps/s", lambda turn: turn.steps_per_second, ".0f"),
        ("processes/s", lambda turn: turn.processes / turn.seconds, ".1f"),
    ]
    if options.idle:
        rows += [
            ("idle p50, ms", lambda turn: turn.idle_p50, ".1f"),
            ("idle p95, ms", lambda turn: turn.idle_p95, ".1f"),
        ]
    for name in ("coordinator", "consumer", *servers, "client"):
        rows.append((f"CPU s/1000 steps, {name}", lambda turn, name=name: turn.cpu_of(name), ".2f"))  # type: ignore[misc]
    for name in ("coordinator", "consumer"):
        rows.append((f"peak MiB, {name}", lambda turn, name=name: turn.memory_of(name), ".1f"))  # type: ignore[misc]
    bases = [name for name in names if name.startswith("floor")] or names[:1]
    others = [name for name in names if name not in bases]
    bases += options.peer or []
    pairs = [(name, base) for base in bases for name in others if name != base]
    columns = [f"{name} ÷ {base}" for name, base in pairs]
    print(" " * 28 + "".join(f"{name:>16}" for name in names) + "".join(f"{column:>34}" for column in columns))
    for title, value, form in rows:
        medians = [statistics.median(value(turn) for turn in of[name]) for name in names]
        ratios = [_ratios(value, of[name], of[base]) for name, base in pairs]
        print(
            f"{title:28}"
            + "".join(f"{median:>16{form}}" for median in medians)
            + "".join(f"{statistics.median(ratio):>34.2f}" for ratio in ratios)
        )
    for name, base in pairs:
        spread = _ratios(lambda turn: turn.steps_per_second, of[name], of[base])
        print(f"\nsteps/s, {name} ÷ {base}, of each pair of turns: " + ", ".join(f"{ratio:.2f}" for ratio in spread))
    if any(turn.others > BUSY for turn in turns):
        worst = max(turn.others for turn in turns)
        print(f"\nother work took up to {worst:.0f} % of the machine: do not trust the figures, and little the ratios")


def _ratios(value: Callable[[Turn], float], turns: Sequence[Turn], floors: Sequence[Turn]) -> list[float]:
    return [
        value(turn) / value(base) if value(base) else float("nan") for turn, base in zip(turns, floors, strict=True)
    ]
