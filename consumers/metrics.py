"""Count steps for Prometheus and other readers of its text format."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge

from orchestrator.engine.decision import Entry
from orchestrator.engine.process import Process
from orchestrator.types import StepStatus


class Metrics:
    """The counters of one consumer, in a registry of their own: two consumers in one program do not share them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._attempts = Counter(
            "orchestrator_step_attempts",
            "Attempts of steps that have ended, by how they ended.",
            ["workflow", "step", "status"],
            registry=self.registry,
        )
        self._of: dict[tuple[str, str, str], Counter] = {}
        """Those of the attempts that have ended: to find one by its labels takes as long as to decide about a step."""
        self._warnings = Counter(
            "orchestrator_state_warnings",
            "Steps after which the state was above ORCHESTRATOR_STATE_SOFT_LIMIT.",
            ["workflow", "step"],
            registry=self.registry,
        )
        self._blocked = Counter(
            "orchestrator_loop_blocked",
            "Attempts that blocked their consumer's event loop for a second or longer.",
            ["workflow", "step"],
            registry=self.registry,
        )
        self._running = Gauge("orchestrator_steps_running", "Steps that run at this moment.", registry=self.registry)
        self._left_behind = Gauge(
            "orchestrator_step_threads_left_behind",
            "Threads whose plain function goes on although its step has ended.",
            registry=self.registry,
        )

    def observe_running(self, running: Callable[[], int]) -> None:
        """Report the result of ``running`` at every scrape."""
        self._running.set_function(running)

    def observe_left_behind(self, left: Callable[[], int]) -> None:
        """Report the result of ``left`` at every scrape."""
        self._left_behind.set_function(left)

    def count(self, process: Process, entry: Entry, *, blocked: bool) -> None:
        """Count an attempt whose outcome was stored.

        Args:
            blocked: whether it has blocked the event loop, which its note says.
        """
        warned = entry.note is not None and entry.status is StepStatus.SUCCESS and not blocked
        self.count_attempt(process.workflow, entry.name, entry.status, warned=warned, blocked=blocked)

    def count_attempt(self, workflow: str, step: str, status: str, *, warned: bool, blocked: bool) -> None:
        """Count an attempt that ended in ``status``, the warning about its state, and whether it blocked the event loop."""
        ended = self._of.get((workflow, step, status))
        if ended is None:
            ended = self._of[workflow, step, status] = self._attempts.labels(workflow, step, status)
        ended.inc()
        if warned:
            self._warnings.labels(workflow, step).inc()
        if blocked:
            self._blocked.labels(workflow, step).inc()
