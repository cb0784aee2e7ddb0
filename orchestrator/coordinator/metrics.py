"""Count the slots of schedules and measure late clean-ups, for Prometheus and other readers of its text format."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from orchestrator.engine.schedule import SlotResult


class Metrics:
    """The counters of one coordinator, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._slots = Counter(
            "orchestrator_schedule_slots",
            "Slots of schedules that this program has handled, by what became of them.",
            ["result"],
            registry=self.registry,
        )
        for result in SlotResult:
            self._slots.labels(result.value)
        self._round = Gauge(
            "orchestrator_scheduler_round_timestamp_seconds",
            "When this program last looked which schedules are due.",
            registry=self.registry,
        )
        self._overdue = Gauge(
            "orchestrator_schedules_overdue",
            "Schedules that have been due for a minute and that no program has handled.",
            registry=self.registry,
        )
        self._expired = Gauge(
            "orchestrator_expired_tasks_seconds",
            "For how long the oldest finished task has been past its time that a clean-up could delete; 0 when there is none.",
            registry=self.registry,
        )

    def count_slots(self, result: str, slots: int) -> None:
        """Count slots that were settled, by result."""
        self._slots.labels(result).inc(slots)

    def end_round(self, overdue: int | None) -> None:
        """Record the end of a round, and the number of overdue schedules if it was read."""
        self._round.set_to_current_time()
        if overdue is not None:
            self._overdue.set(overdue)

    def report_expired(self, seconds: float) -> None:
        """Record how long the oldest finished task has been expired."""
        self._expired.set(seconds)
