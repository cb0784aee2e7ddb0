"""Tests that fail now and then: what scripts/test does about them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import second_run
from second_run import decide

FAILED, INTERRUPTED, NO_TESTS = (
    pytest.ExitCode.TESTS_FAILED,
    pytest.ExitCode.INTERRUPTED,
    pytest.ExitCode.NO_TESTS_COLLECTED,
)

NOW_AND_THEN = """
from pathlib import Path

def test_now_and_then():
    mark = Path(__file__).with_name("mark")
    was_there = mark.exists()
    mark.touch()
    assert was_there, "the first failure"

def test_always():
    pass
"""


@pytest.mark.parametrize(
    ("code", "failed", "second", "expected", "run_again"),
    [
        (0, [], 0, 0, False),
        (FAILED, ["a"], 0, 0, True),
        (FAILED, ["a", "b"], 0, 0, True),
        (FAILED, ["a", "b"], FAILED, FAILED, True),
        (FAILED, ["a"], NO_TESTS, FAILED, True),
        (FAILED, ["a", "b", "c"], 0, FAILED, False),
        (FAILED, [], 0, FAILED, False),
        (INTERRUPTED, ["a"], 0, INTERRUPTED, False),
    ],
)
def test_at_most_two_tests_get_a_second_run_and_decide_by_it(
    code: int, failed: list[str], second: int, expected: int, run_again: bool
) -> None:
    asked: list[Sequence[str]] = []

    def again(tests: Sequence[str]) -> int:
        asked.append(tests)
        return second

    found, said = decide(code, failed, again)
    assert found == expected
    assert asked == ([failed] if run_again else [])
    passed = failed if expected == 0 else []
    assert said.splitlines() == [
        f"passed only on the second run: {one} – file it, a test that fails now and then is a defect" for one in passed
    ]


def test_a_test_on_a_worker_that_fails_only_once_ends_well_and_is_named(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(NOW_AND_THEN)
    words = tmp_path / "words"
    arguments = ["-n", "1", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", str(tmp_path), "test_it.py"]
    done = subprocess.run(
        [sys.executable, second_run.__file__, str(words), *arguments],
        cwd=tmp_path,
        # Four interpreters are started, and none of them needs our other plug-ins.
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "xdist.plugin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert done.returncode == 0, done.stdout
    assert "the first failure" in done.stdout
    assert "1 passed" in done.stdout
    assert "test_it.py::test_now_and_then – file it" in words.read_text()
    assert len(words.read_text().splitlines()) == 1
