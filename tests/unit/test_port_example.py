"""``examples/ported`` is what ``orchestrator port`` makes of an application in the style of orchestrator-core."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.cli.codemod import PortedFile, port_files

ROOT = Path(__file__).resolve().parents[2]
BEFORE = Path(__file__).parent / "before_port"
AFTER = ROOT / "examples" / "ported"
NOT_PORTED = {"inventory_program.py", "README.md"}

MECHANICAL = re.compile(r"\bsession\b|\bSession\b|^\s*(from|import) |^\s*\w+(?:,|$)|^\s*[()]")
"""Lines of imports, and lines that name the session."""


@pytest.fixture(scope="module")
def ported() -> dict[str, PortedFile]:
    names = {str(path.relative_to(BEFORE)).removesuffix(".txt"): path for path in BEFORE.rglob("*.txt")}
    # As if they lay where they are going to: their imports name each other by it.
    found = port_files({AFTER / name: path.read_bytes() for name, path in names.items()})
    return dict(zip(names, found, strict=True))


def test_the_example_is_what_the_command_makes(ported: dict[str, PortedFile], tmp_path: Path) -> None:
    for name, one in ported.items():
        path = tmp_path / "examples" / "ported" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(one.after)
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    for arguments in (["check", "--select", "I", "--fix"], ["format"]):
        command = [str(Path(sys.executable).parent / "ruff"), *arguments, "--quiet", "--no-cache", "examples"]
        subprocess.run(command, cwd=tmp_path, check=True)

    made = {name: (tmp_path / "examples" / "ported" / name).read_text() for name in ported}
    kept = {str(one.relative_to(AFTER)): one.read_text() for one in AFTER.rglob("*.py") if one.name not in NOT_PORTED}
    assert made == kept


def test_lines_change_only_by_imports_and_the_session(ported: dict[str, PortedFile]) -> None:
    changed = [
        line[1:]
        for one in ported.values()
        for line in one.diff.splitlines()
        if line.startswith("+") and not line.startswith("+++")
    ]

    assert len(changed) > 50
    assert [line for line in changed if not MECHANICAL.search(line)] == []


def test_steps_that_create_something_are_all_that_is_left_to_a_person(ported: dict[str, PortedFile]) -> None:
    left = {name: [finding.rule for finding in one.findings] for name, one in ported.items() if one.findings}

    assert left == {"workflows/node/create_node.py": ["again"], "workflows/port/create_port.py": ["again"]}


def test_porting_the_example_again_changes_nothing() -> None:
    files = {path: path.read_bytes() for path in AFTER.rglob("*.py")}

    assert [one.path for one in port_files(files) if one.after != one.before] == []
