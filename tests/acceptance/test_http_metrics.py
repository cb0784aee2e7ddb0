"""What the workers of one API program count, as Prometheus reads it: each at an address of its own."""

from __future__ import annotations

import os
import re
import signal

import httpx
import psutil
from servers.system import choose_ports, is_free

from tests.acceptance.conftest import MakeInstallation
from tests.acceptance.installation import Installation
from tests.acceptance.waiting import until
from tests.servers import NO_CERTIFICATES

REQUESTS = 100
_COUNTED = re.compile(
    r'^orchestrator_http_requests_total\{method="GET",route="/health/live",status="2xx"\} (\S+)$', re.MULTILINE
)


def find_two_ports() -> int:
    """Return a port that is free, and so is the next one."""
    return next(one for one in choose_ports(100) if is_free(one + 1))


def read(port: int) -> str | None:
    """Return what is counted at a port; ``None`` while nothing listens there."""
    try:
        return httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=60, verify=NO_CERTIFICATES).text
    except httpx.TransportError:
        return None


def count(port: int) -> float:
    found = _COUNTED.search(read(port) or "")
    return float(found[1]) if found else 0.0


def test_each_worker_counts_at_an_address_of_its_own_and_a_dead_one_leaves_nothing(
    installations: MakeInstallation,
) -> None:
    """No scrape shows now one worker, now another; the numbers of a worker that died are gone."""
    engine = installations()
    port = find_two_ports()
    api = engine.api("--workers", "2", ORCHESTRATOR_METRICS_ADDRESS=f"127.0.0.1:{port}")
    until(lambda: all(read(one) is not None for one in (port, port + 1)), "both workers serve what they count")
    for _ in range(REQUESTS):
        assert api.call("GET", "/health/live").status_code == 200
    for _ in range(3):
        assert count(port) + count(port + 1) == REQUESTS
    assert httpx.get(f"{api.url}/metrics", timeout=60).status_code == 404
    assert httpx.get(f"{api.url}/api/metrics", timeout=60).status_code == 404
    assert "orchestrator_http_streams 0.0" in (read(port) or "")

    busy = max((port, port + 1), key=count)
    other, kept = 2 * port + 1 - busy, count(2 * port + 1 - busy)
    workers = [int(one) for one in re.findall(r"API worker started .*?pid=(\d+)", api.output())]
    (serving,) = [pid for pid in workers if _listens(pid, busy)]
    os.kill(serving, signal.SIGKILL)
    until(lambda: read(busy) is not None and count(busy) == 0, "the worker in its place counts from zero")
    assert count(other) == kept


def _listens(pid: int, port: int) -> bool:
    found = psutil.Process(pid).net_connections("inet")
    return any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in found)


def test_open_streams_are_counted_while_they_are_open(engine: Installation) -> None:
    port = find_two_ports()
    api = engine.api(ORCHESTRATOR_METRICS_ADDRESS=f"127.0.0.1:{port}")

    def streams(number: int) -> bool:
        return f"orchestrator_http_streams {number}.0" in (read(port) or "")

    assert streams(0)
    with httpx.stream("GET", f"{api.url}/api/events", timeout=60):
        until(lambda: streams(1), "the stream is counted")
    until(lambda: streams(0), "the stream is closed")
    route = 'orchestrator_http_request_seconds_count{method="GET",route="/events"} 1.0'
    assert route in (read(port) or ""), "its latency ends where its answer begins"
