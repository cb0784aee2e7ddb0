"""A type checker tells an author what is wrong while they write: the cases are files, and mypy must agree with their marks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from mypy import api

from tests.collector import collector_as_before

REPOSITORY = Path(__file__).resolve().parents[2]
CASES = Path(__file__).parent / "typing_cases"


@pytest.fixture(scope="module")
def errors() -> dict[str, set[int]]:
    """The lines that mypy finds wrong in each case; one run for all, because most of its time is the imports'."""
    arguments = ["--strict", "--config-file", str(REPOSITORY / "pyproject.toml"), "--no-error-summary"]
    with collector_as_before():  # mypy changes it for its whole process
        output, problems, _ = api.run([*arguments, *map(str, sorted(CASES.glob("*.py")))])
    assert not problems
    found: dict[str, set[int]] = {case.name: set() for case in CASES.glob("*.py")}
    for line in output.splitlines():
        match = re.match(r"(?P<file>.+\.py):(?P<line>\d+): error:", line)
        if match is not None:
            path = Path(match["file"])
            assert path.name in found, line
            found[path.name].add(int(match["line"]))
    return found


def marked(case: Path) -> set[int]:
    lines = case.read_text().splitlines()
    return {number for number, line in enumerate(lines, start=1) if line.endswith("# error")}


@pytest.mark.parametrize("case", sorted(CASES.glob("*.py")), ids=lambda case: case.stem)
def test_exactly_the_marked_lines_do_not_type_check(case: Path, errors: dict[str, set[int]]) -> None:
    assert errors[case.name] == marked(case)


def test_the_cases_hold_both_kinds() -> None:
    assert not marked(CASES / "accepted.py")
    assert len(marked(CASES / "refused.py")) > 20
