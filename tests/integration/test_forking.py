"""A forked program is to its tests what a started one is."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import forking
from tests.acceptance.waiting import PATIENCE, until

FACTS = """
import json, os, pathlib, resource, signal, sys, threading
import orchestrator.settings
facts = {
    "arguments": sys.argv[1:],
    "program": pathlib.Path(sys.argv[0]).name,
    "folder": os.getcwd(),
    "environment": dict(os.environ),
    "path": sys.path,
    "signals": {one.name: str(signal.getsignal(one)).partition(" at 0x")[0] for one in signal.Signals},
    "leads its session": os.getsid(0) == os.getpid(),
    "streams": [[one.encoding, one.errors, one.isatty(), one.line_buffering] for one in (sys.stdin, sys.stdout, sys.stderr)],
    "input": sys.stdin.read(),
    "threads": threading.active_count(),
    "mask": os.umask(0o22),
    "limits": resource.getrlimit(resource.RLIMIT_NOFILE),
    "descriptors": sorted(int(one) for one in os.listdir("/proc/self/fd"))[:-1],
}
pathlib.Path("facts.json").write_text(json.dumps(facts))
raise RuntimeError("enough")
"""
SLEEPS = """
import pathlib, time
pathlib.Path("sleeping").touch()
while True:
    time.sleep(1)
"""

TESTS = """
import os, pathlib, time
from tests import forking
with open("log", "wb") as log:
    program = forking.start(
        ["consumer"], environment=dict(os.environ), folder=pathlib.Path.cwd(), output=log.fileno(), new_session=True
    )
print(program.pid, flush=True)
program.wait()
"""


@pytest.fixture
def environment(database_url: str, amqp_url: str) -> dict[str, str]:
    """The settings of a project with one module, which a consumer imports."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("ORCHESTRATOR_", "PYTEST_"))}
    return own | {
        "ORCHESTRATOR_DATABASE_URL": database_url,
        "ORCHESTRATOR_AMQP_URL": amqp_url,
        "ORCHESTRATOR_WORKFLOWS": "does_it",
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        "NO_COLOR": "1",
    }


def facts(folder: Path, environment: dict[str, str], *, installed: bool) -> dict[str, Any]:
    """What a program sees of itself, and how it ended."""
    (folder / "does_it.py").write_text(FACTS)
    outcome = forking.run(["consumer"], environment=environment, folder=folder, seconds=60, installed=installed)
    found = json.loads((folder / "facts.json").read_text())
    return {**found, "code": outcome.returncode, "output": outcome.stdout, "errors": outcome.stderr}


def test_it_sees_what_a_started_one_sees(tmp_path: Path, environment: dict[str, str]) -> None:
    started, forked = (facts(tmp_path, environment, installed=installed) for installed in (True, False))

    assert forked.pop("path") == started.pop("path")
    assert forked == started
    assert started["code"] == 1
    assert "enough" in started["errors"]


@pytest.mark.parametrize("arguments", [["--version"], ["no-such-command"], ["show", "ä\udcff"], ["list"]])
def test_it_says_what_a_started_one_says(tmp_path: Path, environment: dict[str, str], arguments: list[str]) -> None:
    started, forked = (
        forking.run(arguments, environment=environment, folder=tmp_path, seconds=60, installed=installed)
        for installed in (True, False)
    )

    assert (forked.returncode, forked.stdout, forked.stderr) == (started.returncode, started.stdout, started.stderr)


@pytest.mark.parametrize("installed", [True, False])
def test_it_ends_by_a_signal_as_a_started_one_does(
    tmp_path: Path, environment: dict[str, str], installed: bool
) -> None:
    (tmp_path / "does_it.py").write_text(SLEEPS)
    with (tmp_path / "log").open("wb") as log:
        program = forking.start(
            ["consumer"],
            environment=environment,
            folder=tmp_path,
            output=log.fileno(),
            new_session=True,
            installed=installed,
        )
    until((tmp_path / "sleeping").exists, "it runs")
    assert program.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        program.wait(0.01)

    os.killpg(program.pid, signal.SIGKILL)

    assert program.wait(60) == -signal.SIGKILL
    with pytest.raises(ProcessLookupError):
        os.kill(program.pid, 0)


def test_it_ends_when_the_tests_that_started_it_are_killed(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "does_it.py").write_text(SLEEPS)
    command = [sys.executable, "-c", TESTS]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as tests:
        assert tests.stdout is not None
        program = os.pidfd_open(int(tests.stdout.readline()))
        until((tmp_path / "sleeping").exists, "it runs")
        assert not select.select([program], [], [], 0)[0]

        tests.kill()

        assert select.select([program], [], [], PATIENCE)[0] == [program]
    os.close(program)


def test_a_variable_that_the_interpreter_reads_at_its_start_needs_a_started_one() -> None:
    same = dict(os.environ)

    assert forking.can_be_forked(same | {"ORCHESTRATOR_WORKFLOWS": "flows", "PYTHONPATH": "elsewhere"})
    assert not forking.can_be_forked(same | {"LC_ALL": "POSIX"})
    assert not forking.can_be_forked(same | {"PYTHONIOENCODING": "ascii"})
