"""The programs under test: started as an operator starts them, in process groups of their own, with their output kept."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import httpx

from tests import forking
from tests.acceptance.waiting import until
from tests.servers import NO_CERTIFICATES

START_SECONDS = 180.0
_SERVES = re.compile(r"API started.*?(http://[^\s\"]+)")


class Program:
    """A running coordinator or consumer.

    Args:
        installed: start the installed program, rather than fork one.
        errors: the descriptor of another file for its standard error.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        cwd: Path,
        *,
        installed: bool = False,
        errors: int | None = None,
    ) -> None:
        self.name = log.stem
        self.log = log
        with log.open("ab") as output:
            self._process = forking.start(
                arguments,
                environment=environment,
                folder=cwd,
                output=output.fileno(),
                errors=errors,
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
        """Everything it has written so far, in whole lines: the last may be half written."""
        text = self.log.read_text(errors="replace")
        return text[: text.rfind("\n") + 1] if self.runs else text

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
            with contextlib.suppress(ProcessLookupError):  # one that was forked a moment ago has no group yet
                os.killpg(self.pid, signal.SIGKILL)
            self._process.kill()
        self._process.wait(60)

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


class Api(Program):
    """A running API program, and what is asked of it."""

    def serving(self) -> Api:
        """Wait until it listens."""

        def started() -> bool:
            assert self.runs, f"{self.name} ended with {self._process.returncode} at start:\n{self.output()}"
            return _SERVES.search(self.output()) is not None

        until(started, f"{self.name} serves", START_SECONDS)
        return self

    @property
    def url(self) -> str:
        """Where it listens."""
        found = _SERVES.search(self.output())
        assert found is not None, "it does not serve yet"
        return found[1]

    def call(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Send a request to a path below ``/api``."""
        return httpx.request(method, f"{self.url}/api{path}", timeout=60, verify=NO_CERTIFICATES, **request)


class OtherProgram:
    """A program that is none of the engine's; it prints a line when it is ready."""

    def __init__(self, script: Path, log: Path, **variables: str) -> None:
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, str(script)],
                env=program_environment(PYTHONUNBUFFERED="1", **variables),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The program's process id."""
        return self._process.pid

    def first_line(self) -> str:
        """Wait until it is ready, and return what it says then."""

        def said() -> str:
            text = self._log.read_text()
            assert self._process.poll() is None, f"{self._log.stem} has ended:\n{text}"
            return text.partition("\n")[0] if "\n" in text else ""

        return until(said, f"{self._log.stem} says that it is ready")

    def ask(self, path: str, method: str = "GET", body: object = None) -> Any:
        """Ask a program whose first line is its URL; return its JSON answer."""
        text = None if body is None else json.dumps(body).encode()
        with urlopen(Request(f"{self.first_line()}{path}", text, method=method), timeout=60) as answer:
            return json.load(answer)

    def close(self) -> None:
        """End it."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
        self._process.wait(60)


_NOT_OF_PROGRAMS = ("ORCHESTRATOR_", "PYTEST_", "COVERAGE_")


def measured() -> dict[str, str]:
    """Return the variables by which coverage measures a program as well, if the tests are measured (ADR 0075)."""
    return {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}


def program_environment(**variables: str) -> dict[str, str]:
    """Return this process's environment without settings of the engine and of those who test it, and with these."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_OF_PROGRAMS)}
    repository = str(Path(__file__).resolve().parents[2])
    return {**own, "PYTHONPATH": repository, "PYTHONDONTWRITEBYTECODE": "1", "NO_COLOR": "1", **variables}
