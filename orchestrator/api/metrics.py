"""Count requests and open streams, for Prometheus. Every label has few values, whatever clients send."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER: Final = "other"
"""The label of a method that is none of these: a client may send any word."""

BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class ApiMetrics:
    """The counters of one API program, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "orchestrator_http_requests",
            "Requests that were answered, by method, template of the path, and class of the status.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "orchestrator_http_request_seconds",
            "Seconds until the answer began, by method and template of the path.",
            ["method", "route"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self._streams = Gauge(
            "orchestrator_http_streams", "Streams of events and WebSockets that are open.", registry=self.registry
        )

    def observe_streams(self, streams: Callable[[], int]) -> None:
        """Report the result of ``streams`` at every scrape."""
        self._streams.set_function(streams)

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request.

        Args:
            route: the template of the path, never the path: ``none`` for one that no path fits.
            status: 0 when the client went away before it was answered.
        """
        method = method if method in METHODS else OTHER
        self._requests.labels(method, route, f"{status // 100}xx" if status else "none").inc()
        self._seconds.labels(method, route).observe(seconds)
