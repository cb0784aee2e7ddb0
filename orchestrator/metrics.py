"""Serve what a program counts to Prometheus and other readers of its text format, on an address of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Thread
from typing import Final
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from orchestrator.errors import ConfigurationError

HIGHEST_PORT: Final = 65535


class _Joined(Collector):
    """What several programs in one process count."""

    def __init__(self) -> None:
        self.registries: list[CollectorRegistry] = []

    def collect(self) -> Iterator[Metric]:
        for registry in list(self.registries):
            yield from registry.collect()


@dataclass(slots=True)
class _Serving:
    server: WSGIServer
    thread: Thread
    joined: _Joined = field(default_factory=_Joined)


_serving: dict[str, _Serving] = {}


@contextmanager
def serve_metrics(registry: CollectorRegistry, address: str | None) -> Iterator[None]:
    """Serve ``GET /metrics`` at ``host:port`` in the body; without an address do nothing.

    Programs that share a process share the address.

    Raises:
        ConfigurationError: the address cannot be bound.
    """
    if address is None:
        yield
        return
    serving = _serving.get(address) or _start(address)
    serving.joined.registries.append(registry)
    try:
        yield
    finally:
        serving.joined.registries.remove(registry)
        if not serving.joined.registries:
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
    joined, registry = _Joined(), CollectorRegistry(auto_describe=False)
    registry.register(joined)
    try:
        server, thread = start_http_server(int(port), host.strip("[]"), registry)
    except (OSError, OverflowError) as error:
        raise ConfigurationError(f"ORCHESTRATOR_METRICS_ADDRESS: cannot listen at {address}: {error}") from error
    serving = _serving[address] = _Serving(server, thread, joined)
    return serving
