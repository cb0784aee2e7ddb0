"""The benchmarks still run: what they measure is for people on a quiet machine, that they measure is for every change."""

from __future__ import annotations

import contextlib
import io
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import Servers

REPOSITORY = Path(__file__).resolve().parent.parent.parent
HANGS_AFTER = 1500.0
"""Seconds: a guard for the suite. The benchmarks have limits of their own, on the silence between two completions."""

pytestmark = pytest.mark.timeout(HANGS_AFTER + 100)

SMALL = {
    "the comparison with the floor": (
        [
            *("throughput", "--processes", "5", "--idle", "2", "--reps", "1", "--no-wait"),
            *("--floor", "ahead"),
        ],
        "engine ÷ floor ahead",
    ),
    "loading and saving": (["models", "--others", "20", "--reps", "2"], "save every block"),
    "suspects": (
        [
            *("suspects", "--steps", "3", "--rest", "0.5", "--scenarios", "deadly"),
            *("--presumed-dead-after", "4", "--max-lost-attempts", "1"),
        ],
        "| 3 | deadly |",
    ),
    "events": (["events", "--events", "20", "--reps", "1", "--at-once", "2"], "the client library"),
    "stretches": (["stretches", "--processes", "2", "--idle", "2", "--reps", "1"], "idle: CPU of PostgreSQL"),
    "hops": (["hops", "--processes", "2", "--bare", "3"], "a step, sum of the medians"),
    "the API": (["http", "--requests", "10"], "GET list"),
    "retention": (["retention", "--processes", "2000", "--batch", "5", "--idle", "0.2"], "without their process: 0"),
    "plain functions": (
        ["plain_functions", "--reps", "1", "--queries", "2", "--long", "20", "--idle", "0.1"],
        "an async step of 20 queries",
    ),
    "recovery": (["recovery", "--processes", "20"], "after the loss of the broker's data"),
    "pages": (["pages", "--most", "200", "--reps", "2"], "GraphQL ProcessDetail"),
    "the rules and lists": (["rules", "--users", "10", "--reps", "2"], "page from the middle on"),
}


@pytest.mark.parametrize(("arguments", "told"), SMALL.values(), ids=SMALL)
def test_a_benchmark_runs_to_its_end(servers: Servers, arguments: list[str], told: str) -> None:
    name, *options = arguments
    done = _program(name, *options, **_variables(servers))
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert told in done.stdout


def test_a_curve_is_drawn_and_its_figures_written(servers: Servers, tmp_path: Path) -> None:
    options = ("--curve", "state", "--processes", "2", "--folder", str(tmp_path))
    done = _program("curves", *options, **_variables(servers))
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert {one.name for one in tmp_path.iterdir()} == {"state.svg", "state.json"}
    assert "wire kB a step" in (tmp_path / "state.json").read_text()


@pytest.mark.parametrize(
    "name", ["throughput", "models", "rules", "suspects", "http", "plain_functions", "recovery", "intake", "curves"]
)
def test_a_benchmark_without_servers_says_how_to_get_them(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [one for one in os.environ if one.startswith("ORCHESTRATOR_")]:
        monkeypatch.delenv(variable)
    said = _end_of(name, monkeypatch)
    assert said.startswith(f"{name}: ORCHESTRATOR_DATABASE_URL, ")
    assert "scripts/services up" in said
    assert len(said.splitlines()) == 1


def test_a_benchmark_of_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    said = _end_of("intake", monkeypatch, "--starts", "0")
    assert said.splitlines()[-1].endswith("argument --starts: must be 1 at least")


def _end_of(name: str, monkeypatch: pytest.MonkeyPatch, *options: str) -> str:
    """Return what a benchmark says that cannot begin. It runs in this process: to start one takes longer than what it does."""
    module = f"tests.benchmarks.{name}"
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setattr(sys, "argv", [name, *options])
    errors = io.StringIO()
    with pytest.raises(SystemExit) as ended, contextlib.redirect_stderr(errors):
        runpy.run_module(module, run_name="__main__")
    code = ended.value.code
    assert code
    return code if isinstance(code, str) else errors.getvalue().strip()


def _variables(servers: Servers) -> dict[str, str]:
    return {
        "ORCHESTRATOR_DATABASE_URL": servers.database,
        "ORCHESTRATOR_AMQP_URL": servers.amqp,
        "ORCHESTRATOR_MANAGEMENT_URL": servers.management,
    }


def _program(name: str, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    # Nor is it measured which lines they run: that would take a third of their time.
    bare = {key: value for key, value in os.environ.items() if not key.startswith(("ORCHESTRATOR_", "COVERAGE_"))}
    return subprocess.run(
        [sys.executable, "-m", f"tests.benchmarks.{name}", *options],
        cwd=REPOSITORY,
        env=bare | variables,
        capture_output=True,
        text=True,
        timeout=HANGS_AFTER,
        check=False,
    )
