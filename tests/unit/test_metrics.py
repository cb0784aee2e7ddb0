"""B10: what a consumer counts, as Prometheus reads it."""

from __future__ import annotations

import socket
import threading
import urllib.request
from contextlib import ExitStack
from urllib.error import HTTPError
from uuid import uuid4

import pytest
from prometheus_client import CollectorRegistry
from servers.system import choose_ports

from consumers.metrics import Metrics
from orchestrator import metrics as metrics_server
from orchestrator.api.metrics import ApiMetrics
from orchestrator.engine.decision import Entry, EntryKind
from orchestrator.engine.process import Process
from orchestrator.errors import ConfigurationError
from orchestrator.metrics import address_of_worker, serve_metrics
from orchestrator.types import ProcessStatus, StepStatus


def process() -> Process:
    return Process(uuid4(), "create_node", ProcessStatus.RUNNING, 0, "Reserve", 1, 1, {}, "ann", "ann")


def entry(status: StepStatus, note: str | None = None) -> Entry:
    return Entry(2, EntryKind.STEP, "Reserve", status, 1, "ann", position=0, note=note, ran=True)


def find_address() -> str:
    """Return an address at which nothing listens, and which no connection of another test is given."""
    (port,) = choose_ports(1)
    return f"127.0.0.1:{port}"


def read(address: str) -> str:
    """Return what Prometheus would read."""
    with urllib.request.urlopen(f"http://{address}/metrics") as answer:
        return str(answer.read().decode())


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_attempts_are_counted_by_how_they_ended() -> None:
    metrics = Metrics()

    metrics.count(process(), entry(StepStatus.SUCCESS), blocked=False)
    metrics.count(process(), entry(StepStatus.FAILED), blocked=False)
    metrics.count(process(), entry(StepStatus.FAILED), blocked=False)

    name, labels = "orchestrator_step_attempts_total", {"workflow": "create_node", "step": "Reserve"}
    assert value(metrics, name, status="success", **labels) == 1
    assert value(metrics, name, status="failed", **labels) == 2


def test_a_state_above_the_soft_limit_is_counted() -> None:
    metrics = Metrics()

    metrics.count(process(), entry(StepStatus.SUCCESS), blocked=False)
    metrics.count(
        process(), entry(StepStatus.SUCCESS, "the state has 70000 bytes, more than the soft limit"), blocked=False
    )

    assert value(metrics, "orchestrator_state_warnings_total", workflow="create_node", step="Reserve") == 1


def test_two_consumers_in_one_program_count_apart() -> None:
    first, second = Metrics(), Metrics()

    first.count(process(), entry(StepStatus.SUCCESS), blocked=False)

    labels = {"workflow": "create_node", "step": "Reserve", "status": "success"}
    assert value(second, "orchestrator_step_attempts_total", **labels) is None


def test_the_numbers_can_be_fetched_and_the_port_is_free_afterwards() -> None:
    address = find_address()
    metrics = Metrics()
    metrics.observe_running(lambda: 3)
    for _ in range(2):
        with serve_metrics(metrics.registry, address):
            assert "orchestrator_steps_running 3.0" in read(address)


def test_without_an_address_nobody_listens() -> None:
    with serve_metrics(Metrics().registry, None):
        pass


def test_a_port_that_is_taken_is_said_in_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        text = f"ORCHESTRATOR_METRICS_ADDRESS: cannot listen at {address}"
        with pytest.raises(ConfigurationError, match=text), serve_metrics(Metrics().registry, address):
            pass


def test_a_port_that_there_cannot_be_is_refused_and_no_other_one_is_taken() -> None:
    with pytest.raises(ConfigurationError, match="has a port above 65535"), serve_metrics(Metrics().registry, ":99999"):
        pass


def test_an_attempt_that_blocked_the_event_loop_is_counted_as_that() -> None:
    metrics = Metrics()

    metrics.count(process(), entry(StepStatus.SUCCESS, "blocked its consumer's event loop for 3.0 s"), blocked=True)

    labels = {"workflow": "create_node", "step": "Reserve"}
    assert value(metrics, "orchestrator_loop_blocked_total", **labels) == 1
    assert value(metrics, "orchestrator_state_warnings_total", **labels) is None


def test_other_paths_say_where_the_metrics_are() -> None:
    address = find_address()
    with serve_metrics(Metrics().registry, address):
        with pytest.raises(HTTPError) as refused:
            urllib.request.urlopen(f"http://{address}/anything")
        with refused.value as answer:
            assert (answer.code, answer.read()) == (404, b"the metrics are at /metrics\n")


def test_a_program_is_ready_when_all_in_its_process_are() -> None:
    address = find_address()

    def ask(path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://{address}{path}") as answer:
                return answer.status, answer.read().decode().strip()
        except HTTPError as refused:
            with refused:
                return refused.code, refused.read().decode().strip()

    with (
        serve_metrics(Metrics().registry, address) as one,
        serve_metrics(ApiMetrics().registry, address) as other,
    ):
        assert ask("/live") == (200, "alive")
        one.find_problem = lambda: None
        assert ask("/ready") == (503, "it is starting")
        other.find_problem = lambda: "PostgreSQL cannot be reached"
        assert ask("/ready") == (503, "PostgreSQL cannot be reached")
        other.find_problem = lambda: None
        assert ask("/ready") == (200, "ready")


def test_connections_that_send_nothing_take_few_threads_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    patience = metrics_server._Handler.timeout
    monkeypatch.setattr(metrics_server._Handler, "timeout", 0.02)
    address = find_address()
    host, port = address.split(":")
    with serve_metrics(Metrics().registry, address), ExitStack() as silent:
        before = threading.active_count()
        opened = [silent.enter_context(socket.create_connection((host, int(port)))) for _ in range(100)]
        assert [one.recv(1) for one in opened] == [b""] * 100, "all were closed, without an answer"
        assert threading.active_count() <= before + metrics_server.MOST_CONNECTIONS
        monkeypatch.setattr(metrics_server._Handler, "timeout", patience)
        assert "orchestrator_steps_running" in read(address)


def test_many_connections_at_once_are_taken_although_none_is_answered_yet() -> None:
    """With a shorter queue the packets of the sixth are dropped, and it waits for seconds."""
    with metrics_server._Server(("127.0.0.1", 0), CollectorRegistry(), lambda: None) as server, ExitStack() as waiting:
        for _ in range(64):
            waiting.enter_context(socket.create_connection(("127.0.0.1", server.server_port), timeout=30))


def test_programs_in_one_process_share_an_address() -> None:
    address = find_address()
    first, second = Metrics(), ApiMetrics()
    with serve_metrics(first.registry, address):
        with serve_metrics(second.registry, address):
            second.count("GET", "/api/processes", 200, 0.01)
            both = read(address)
        alone = read(address)
    assert "orchestrator_steps_running" in both
    assert 'orchestrator_http_requests_total{method="GET",route="/api/processes",status="2xx"} 1.0' in both
    assert "orchestrator_http_requests_total" not in alone


def test_each_worker_has_the_next_port() -> None:
    assert [address_of_worker("0.0.0.0:9100", number) for number in range(3)] == [
        "0.0.0.0:9100",
        "0.0.0.0:9101",
        "0.0.0.0:9102",
    ]
    assert address_of_worker(None, 1) is None
    with pytest.raises(ConfigurationError, match="leaves no port for worker 2"):
        address_of_worker("127.0.0.1:65535", 1)


def test_random_methods_and_statuses_make_few_series() -> None:
    """A scanner must not fill the memory of the program, nor that of Prometheus."""
    metrics = ApiMetrics()
    for number in range(10_000):
        metrics.count(f"FOO{number}", "none", 200 + number % 400, 0.01)
    assert len(list(metrics.registry.collect())) == 3
    assert sum(len(one.samples) for one in metrics.registry.collect()) < 60
