"""The programs under the demo: started, watched, and stopped by their process ids whatever happens."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, TypeVar

from .errors import DemoError
from .patience import Patience

REPOSITORY = Path(__file__).resolve().parents[3]
FOLDER = REPOSITORY / "examples" / "demo" / ".run"
ORCHESTRATOR = str(Path(sys.executable).with_name("orchestrator"))

STOP_SECONDS = 60
LOG_LINES = 15

Found = TypeVar("Found")


class Program:
    """One program that runs in the background, its output in a file of its own."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name, self.process, self.log = name, process, log
        self.expected_to_run = True

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def check(self) -> None:
        """Raise if it has ended although it should not have."""
        if self.expected_to_run and self.process.returncode is not None:
            code = self.process.returncode
            raise DemoError(
                f"{self.name} has ended with exit code {code}. Its log, {self.log}, ends so:\n{self.last_words()}"
            )

    def last_words(self) -> str:
        """The end of its log."""
        lines = self.log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        return "\n".join(f"    {line}" for line in lines)

    def kill(self) -> None:
        """SIGKILL: no goodbye, nothing given back."""
        self.expected_to_run = False
        self.process.send_signal(signal.SIGKILL)

    async def stop(self) -> None:
        """SIGTERM; SIGKILL if that does not help."""
        self.expected_to_run = False
        if self.process.returncode is None:
            with suppress(ProcessLookupError):
                self.process.terminate()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self.process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()
            raise DemoError(f"{self.name} does not end on SIGTERM; it was killed") from None


def forget_old_runs() -> None:
    """Remove the logs of earlier demos."""
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*.log"):
        old.unlink()


class Programs:
    """Those of one story. Leaving the context stops all.

    Args:
        environment: what they see besides our own environment.
        story: begins the names of their logs.
        patience: how long to wait for them.
    """

    def __init__(self, environment: Mapping[str, str], story: str, patience: Patience) -> None:
        self._patience = patience
        self._environment = {**os.environ, **environment}
        self._story = story
        self._running: list[Program] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # All at once, and none is left out because another one is difficult.
        ended = await asyncio.gather(*(program.stop() for program in self._running), return_exceptions=True)
        failures = [failure for failure in ended if isinstance(failure, BaseException)]
        if failures and kind is None:
            raise failures[0]

    async def start(
        self, name: str, command: Sequence[str | Path], variables: Mapping[str, str] | None = None
    ) -> Program:
        """Start a program. In a session of its own, so that Ctrl-C reaches only us and we end it in an orderly way."""
        log = FOLDER / f"{self._story}-{name}.log"
        with log.open("wb") as file:
            process = await asyncio.create_subprocess_exec(
                *command,
                env={**self._environment, **(variables or {})},
                cwd=REPOSITORY,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=file,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
        program = Program(name, process, log)
        self._running.append(program)
        return program

    async def start_talking(
        self, name: str, command: Sequence[str | Path], variables: Mapping[str, str] | None = None
    ) -> tuple[Program, str]:
        """Start a program that prints a line when it is ready; return the line, too."""
        program = await self.start(name, command, variables)

        async def first_line() -> str:
            text = await asyncio.to_thread(program.log.read_text)
            return text.partition("\n")[0] if "\n" in text else ""

        return program, await self.until(f"{name} says that it is ready", first_line)

    async def start_engine(self, variables: Mapping[str, str]) -> tuple[Program, list[Program]]:
        """Start a coordinator and two consumers; who is ready has said so in its log."""
        coordinator = await self.start("coordinator", [ORCHESTRATOR, "coordinator"], variables)
        consumers = [await self.start(f"consumer-{n}", [ORCHESTRATOR, "consumer"], variables) for n in (1, 2)]
        for program in (coordinator, *consumers):

            async def consuming(log: Path = program.log) -> bool:
                return "consuming" in await asyncio.to_thread(log.read_text)

            await self.until(f"{program.name} reads its queues", consuming)
        return coordinator, consumers

    async def command(self, *arguments: str) -> Any:
        """Run ``orchestrator …`` to its end and return its JSON answer.

        Raises:
            DemoError: it failed.
        """
        process = await asyncio.create_subprocess_exec(
            ORCHESTRATOR,
            *arguments,
            env=self._environment,
            cwd=REPOSITORY,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        said = f"orchestrator {' '.join(arguments)}"
        try:
            with self._patience.awaiting(f"the end of '{said}'"):
                output, errors = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            words = (errors or output).decode(errors="replace").strip()
            raise DemoError(f"'{said}' has failed with exit code {process.returncode}: {words}")
        text = output.decode()
        if "--json" not in arguments:
            return text
        try:
            return json.loads(text)
        except ValueError:
            raise DemoError(f"'{said}' has not printed JSON but: {text[:200]!r}") from None

    async def until(self, what: str, condition: Callable[[], Awaitable[Found | None]]) -> Found:
        """Wait for a condition; return what it found.

        Raises:
            DemoError: a program has ended meanwhile.
        """
        with self._patience.awaiting(what):
            while not (found := await condition()):
                for program in self._running:
                    program.check()
                await asyncio.sleep(0.1)
        return found
