"""The programs under test: started as an operator starts them, in process groups of their own, with their output kept."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests import forking
from tests.acceptance.waiting import until

START_SECONDS = 90.0


class Program:
    """A running coordinator or consumer.

    Args:
        installed: start the installed program, rather than fork one.
    """

    def __init__(
        self, arguments: Sequence[str], environment: Mapping[str, str], log: Path, cwd: Path, *, installed: bool = False
    ) -> None:
        self.name = log.stem
        self.log = log
        with log.open("ab") as output:
            self._process = forking.start(
                arguments,
                environment=environment,
                folder=cwd,
                output=output.fileno(),
                new_session=True,
                installed=installed,
            )

    @property
    def pid(self) -> int:
        """The program's process id."""
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def output(self) -> str:
        """Everything it has written so far."""
        return self.log.read_text(errors="replace")

    def ready(self) -> Program:
        """Wait until it consumes its queues."""

        def consuming() -> bool:
            assert self.runs, f"{self.name} ended with {self._process.returncode} at start:\n{self.output()}"
            return "consuming" in self.output()

        until(consuming, f"{self.name} consumes its queues", START_SECONDS)
        return self

    def signal(self, number: int) -> None:
        """Send a signal to the program alone."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it as a crash does: SIGKILL to its whole group."""
        if self.runs:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        self._process.wait(10)

    def stop(self, seconds: float = 60) -> int:
        """End it in an orderly way and return its exit code."""
        if self.runs:
            self._process.send_signal(signal.SIGTERM)
        return self.exit_code(seconds)

    def exit_code(self, seconds: float = 60) -> int:
        """Wait for its end."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} did not end within {seconds:g} s:\n{self.output()[-3000:]}") from None


def program_environment(**variables: str) -> dict[str, str]:
    """Return this process's environment without settings of the engine, and with these."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("ORCHESTRATOR_", "PYTEST_"))}
    repository = str(Path(__file__).resolve().parents[2])
    return {**own, "PYTHONPATH": repository, "PYTHONDONTWRITEBYTECODE": "1", "NO_COLOR": "1", **variables}
