"""B10: what a consumer counts, as Prometheus reads it."""

from __future__ import annotations

import socket
import urllib.request
from uuid import uuid4

import pytest

from consumers.metrics import Metrics
from orchestrator.engine.decision import Entry, EntryKind
from orchestrator.engine.process import Process
from orchestrator.errors import ConfigurationError
from orchestrator.types import ProcessStatus, StepStatus


def process() -> Process:
    return Process(uuid4(), "create_node", ProcessStatus.RUNNING, 0, "Reserve", 1, 1, {}, "ann", "ann")


def entry(status: StepStatus, note: str | None = None) -> Entry:
    return Entry(2, EntryKind.STEP, "Reserve", status, 1, "ann", position=0, note=note, ran=True)


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
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    metrics = Metrics()
    metrics.observe_running(lambda: 3)
    for _ in range(2):
        with metrics.served(address), urllib.request.urlopen(f"http://{address}/metrics") as answer:
            assert "orchestrator_steps_running 3.0" in answer.read().decode()


def test_without_an_address_nobody_listens() -> None:
    with Metrics().served(None):
        pass


def test_a_port_that_is_taken_is_said_in_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        text = f"ORCHESTRATOR_METRICS_ADDRESS: cannot listen at {address}"
        with pytest.raises(ConfigurationError, match=text), Metrics().served(address):
            pass


def test_an_attempt_that_blocked_the_event_loop_is_counted_as_that() -> None:
    metrics = Metrics()

    metrics.count(process(), entry(StepStatus.SUCCESS, "blocked its consumer's event loop for 3.0 s"), blocked=True)

    labels = {"workflow": "create_node", "step": "Reserve"}
    assert value(metrics, "orchestrator_loop_blocked_total", **labels) == 1
    assert value(metrics, "orchestrator_state_warnings_total", **labels) is None
