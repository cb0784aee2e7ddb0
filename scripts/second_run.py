"""Run tests, and those few that failed a second time, alone: ``second_run.py WORDS [argument of pytest]…`` (ADR 0057).

The file WORDS gets what is to be said at the very end, when tests passed only the second time.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

MOST = 2
"""Tests that may fail the first time: more have a cause in common, which a second run must not hide."""


class Failures:
    """Remember which tests failed, as a plugin of pytest; with xdist that of the process that starts the workers."""

    def __init__(self) -> None:
        self._found: dict[str, None] = {}

    @property
    def tests(self) -> list[str]:
        """Return each test once, whether it failed itself or what was set up for it."""
        return [*self._found]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remember a failure."""
        if report.failed:
            self._found[report.nodeid] = None

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Remember a file that cannot be imported."""
        if report.failed:
            self._found[report.nodeid] = None


def decide(code: int, failed: Sequence[str], run_again: Callable[[Sequence[str]], int]) -> tuple[int, str]:
    """Return the exit code, and what is to be said at the end.

    Args:
        code: with which pytest ended the first time.
        failed: the tests that failed then.
        run_again: runs tests, and returns the exit code of pytest.
    """
    if code != pytest.ExitCode.TESTS_FAILED or not 1 <= len(failed) <= MOST:
        return code, ""
    if run_again(failed) != pytest.ExitCode.OK:
        return code, ""
    return 0, "".join(
        f"passed only on the second run: {one} – file it, a test that fails now and then is a defect\n"
        for one in failed
    )


def _run_again(tests: Sequence[str]) -> int:
    print(f"\nOnce again, alone, because at most {MOST} failed: {' '.join(tests)}", flush=True)
    return subprocess.run([sys.executable, "-m", "pytest", *tests], check=False).returncode


def main() -> int:
    """Run the tests and return the exit code."""
    words, *arguments = sys.argv[1:]
    failures = Failures()
    code, said = decide(pytest.main(arguments, plugins=[failures]), failures.tests, _run_again)
    Path(words).write_text(said)
    return code


if __name__ == "__main__":
    sys.exit(main())
