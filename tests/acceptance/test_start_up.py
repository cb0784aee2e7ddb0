"""Signals end a program that has not started yet: whatever is imported, and as the first process of a container."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.conftest import MakeInstallation
from tests.acceptance.installation import Installation
from tests.acceptance.waiting import PATIENCE, until

ENDLESS = """
import time
from pathlib import Path

Path(__file__).with_suffix(".begun").touch()
time.sleep(3600)
"""
IN_A_NAMESPACE = [
    "unshare",
    *([] if os.geteuid() == 0 else ["--user", "--map-root-user"]),
    "--pid",
    "--fork",
    "--kill-child",
]


@pytest.mark.parametrize("program", ["coordinator", "consumer"])
def test_a_program_whose_import_never_ends_names_it_and_ends_by_a_signal(
    engine: Installation, program: str, tmp_path: Path
) -> None:
    name = f"endless_{program}"
    module = tmp_path / f"{name}.py"
    module.write_text(ENDLESS)
    started = engine.run(program, program, ORCHESTRATOR_WORKFLOWS=name, PYTHONPATH=str(tmp_path))
    until(module.with_suffix(".begun").exists, "the import has begun")
    assert started.stop() == 0
    assert "still being imported" in started.output()
    assert f"{module}:6 in <module>" in started.output()


def test_the_first_process_of_a_container_ends_by_a_signal_in_its_first_moment(tmp_path: Path) -> None:
    """The kernel gives it no signal that it has no handler for; so the handler comes before the imports."""
    module = tmp_path / "typer.py"
    module.write_text(ENDLESS)
    command = [*IN_A_NAMESPACE, str(Path(sys.executable).parent / "orchestrator"), "coordinator"]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(tmp_path)}) as outer:
        try:
            until(module.with_suffix(".begun").exists, "the program imports the command line")
            [first] = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()
            os.kill(int(first), signal.SIGTERM)
            assert outer.wait(PATIENCE) == 128 + signal.SIGTERM
        finally:
            outer.kill()


def test_a_program_warns_when_python_leaves_out_assertions(installations: MakeInstallation) -> None:
    """A validation that uses them would find nothing wrong."""
    engine = installations()
    program = engine.run("coordinator", "coordinator", PYTHONOPTIMIZE="1").ready()
    assert "Python leaves out assert statements" in program.output()
    assert program.stop() == 0
