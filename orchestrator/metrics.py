"""Serve what a program counts to Prometheus, and whether it is ready to those who supervise it, on an address of its own."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from socketserver import ThreadingMixIn
from threading import BoundedSemaphore, Thread
from typing import TYPE_CHECKING, Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from orchestrator.errors import ConfigurationError
from orchestrator.hosts import HIGHEST_PORT
from orchestrator.streams import find_lines
from orchestrator.user_code import HOOK_THREADS

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment


PATH, LIVE, READY = "/metrics", "/live", "/ready"

MOST_CONNECTIONS: Final = 16
"""Each has a thread. A scraper needs one every few seconds; more than these are closed at once."""

SILENCE: Final = 5.0
"""Seconds without a byte of a request after which its connection is closed."""


class _Joined(Collector):
    """What several programs in one process count."""

    def __init__(self) -> None:
        self.programs: list[Exposed] = []

    def find_problem(self) -> str | None:
        """Return why one of the programs is not ready, or ``None``."""
        return next((problem for one in list(self.programs) if (problem := one.find_problem()) is not None), None)

    def collect(self) -> Iterator[Metric]:
        for one in list(self.programs):
            yield from one.registry.collect()
        lost = sum(lines.total_lost for lines in find_lines())
        yield CounterMetricFamily("orchestrator_log_lines_lost", "Lines that could not be written", lost)
        yield GaugeMetricFamily(
            "orchestrator_hook_threads_left_behind",
            "Threads whose form, run predicate or authorization callback goes on although its time is over.",
            HOOK_THREADS.left_behind,
        )


@dataclass(slots=True, eq=False)
class Exposed:
    """What is served of one program.

    Args:
        find_problem: returns why the program is not ready, or ``None``; set once it can say. Called on other threads.
    """

    registry: CollectorRegistry
    find_problem: Callable[[], str | None] = lambda: "it is starting"


@dataclass(slots=True)
class _Serving:
    server: WSGIServer
    thread: Thread
    joined: _Joined


_serving: dict[str, _Serving] = {}


@contextmanager
def serve_metrics(registry: CollectorRegistry, address: str | None) -> Iterator[Exposed]:
    """Serve ``GET /metrics``, ``/live`` and ``/ready`` at ``host:port`` in the body; without an address do nothing.

    Programs that share a process share the address.

    Raises:
        ConfigurationError: the address cannot be bound.
    """
    exposed = Exposed(registry)
    if address is None:
        yield exposed
        return
    serving = _serving.get(address) or _start(address)
    serving.joined.programs.append(exposed)
    try:
        yield exposed
    finally:
        serving.joined.programs.remove(exposed)
        if not serving.joined.programs:
            del _serving[address]
            serving.server.shutdown()
            serving.server.server_close()
            serving.thread.join()


def address_of_worker(address: str | None, number: int) -> str | None:
    """Return the address of one of several processes that share a setting: the first has the setting's port, each other the next.

    Raises:
        ConfigurationError: there is no such port.
    """
    if address is None:
        return None
    host, _, port = address.rpartition(":")
    if int(port) + number > HIGHEST_PORT:
        raise ConfigurationError(f"ORCHESTRATOR_METRICS_ADDRESS: {address} leaves no port for worker {number + 1}")
    return f"{host}:{int(port) + number if int(port) else 0}"


def _start(address: str) -> _Serving:
    host, _, port = address.rpartition(":")
    if int(port) > HIGHEST_PORT:
        # The name's lookup would take the rest of the division by 65,536.
        raise ConfigurationError(f"ORCHESTRATOR_METRICS_ADDRESS: {address} has a port above {HIGHEST_PORT}")
    joined, registry = _Joined(), CollectorRegistry(auto_describe=False)
    registry.register(joined)
    try:
        server = _Server((host.strip("[]"), int(port)), registry, joined.find_problem)
    except (OSError, OverflowError) as error:
        raise ConfigurationError(f"ORCHESTRATOR_METRICS_ADDRESS: cannot listen at {address}: {error}") from error
    thread = Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    serving = _serving[address] = _Serving(server, thread, joined)
    return serving


class _Server(ThreadingMixIn, WSGIServer):
    """Answers at few paths, on few connections, none of them for long."""

    daemon_threads = True
    request_queue_size = 128  # of the library's 5 a sixth has its first packet dropped, and tries again after a second

    def __init__(
        self, address: tuple[str, int], registry: CollectorRegistry, find_problem: Callable[[], str | None]
    ) -> None:
        family, *_, place = socket.getaddrinfo(
            address[0] or None, address[1], type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        self.address_family = family
        self._places = BoundedSemaphore(MOST_CONNECTIONS)
        self._metrics = make_wsgi_app(registry)
        self._find_problem = find_problem
        super().__init__((str(place[0]), int(place[1])), _Handler)
        self.set_app(self._answer)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread, if there is one."""
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, in the thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing about a connection that was lost or fell silent."""

    def _answer(self, environment: WSGIEnvironment, respond: StartResponse) -> Iterable[bytes]:
        if environment["PATH_INFO"] == PATH:
            answer: Iterable[bytes] = self._metrics(environment, respond)
            return answer
        status, text = self._find_answer(environment["PATH_INFO"])
        respond(f"{status.value} {status.phrase}", [("Content-Type", "text/plain; charset=utf-8")])
        return [f"{text}\n".encode()]

    def _find_answer(self, path: str) -> tuple[HTTPStatus, str]:
        if path == LIVE:
            return HTTPStatus.OK, "alive"
        if path == READY:
            problem = self._find_problem()
            return (HTTPStatus.OK, "ready") if problem is None else (HTTPStatus.SERVICE_UNAVAILABLE, problem)
        return HTTPStatus.NOT_FOUND, f"the metrics are at {PATH}"


class _Handler(WSGIRequestHandler):
    timeout = SILENCE

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that its base gives it
        """Write no line for each request."""
