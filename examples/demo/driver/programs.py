"""The programs of the demo: started, watched, and stopped by their process ids whatever happens."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, TypeVar

from .errors import DemoError
from .patience import Patience

REPOSITORY = Path(__file__).resolve().parents[3]
FOLDER = REPOSITORY / "examples" / "demo" / ".run"
ORCHESTRATOR = str(Path(sys.executable).with_name("orchestrator"))
STOP_SECONDS = 60

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
            end = "\n".join(f"    {line}" for line in self.log.read_text(errors="replace").splitlines()[-15:])
            raise DemoError(f"{self.name} has ended with exit code {self.process.returncode}. Its log ends so:\n{end}")

    async def kill(self) -> None:
        """End it by SIGKILL: nothing is given back."""
        self.expected_to_run = False
        with suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()

    async def stop(self) -> None:
        """End it by SIGTERM, or by SIGKILL if that does not help."""
        self.expected_to_run = False
        with suppress(ProcessLookupError):
            self.process.terminate()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self.process.wait()
        except TimeoutError:
            await self.kill()
            raise DemoError(f"{self.name} does not end on SIGTERM; it was killed") from None


class Programs:
    """Those of one story. Leaving the context stops all.

    Args:
        environment: what they see besides our own environment.
        story: begins the names of their logs.
        patience: how long to wait for them.
    """

    def __init__(self, environment: Mapping[str, str], story: str, patience: Patience) -> None:
        self._environment = {**os.environ, **environment}
        self._story = story
        self._patience = patience
        self._running: list[Program] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # All at once, and none is left out because another one is difficult.
        ended = await asyncio.gather(*(program.stop() for program in self._running), return_exceptions=True)
        failures = [failure for failure in ended if isinstance(failure, BaseException)]
        if failures and kind is None:
            raise failures[0]

    async def _spawn(
        self, *command: str | Path, stdout: Any, stderr: int, **variables: str
    ) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *command,
            env={**self._environment, **variables},
            cwd=REPOSITORY,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,  # Ctrl-C reaches only us, and we end the programs in an orderly way
        )

    async def start(self, name: str, *command: str | Path, says: str, **variables: str) -> tuple[Program, str]:
        """Start a program; return it and the first line that contains ``says``, by which it is known to be ready."""
        log = FOLDER / f"{self._story}-{name}.log"
        with log.open("wb") as file:
            process = await self._spawn(*command, stdout=file, stderr=asyncio.subprocess.STDOUT, **variables)
        program = Program(name, process, log)
        self._running.append(program)

        async def ready() -> str | None:
            lines = (await asyncio.to_thread(log.read_text)).splitlines(keepends=True)
            return next((line.strip() for line in lines if says in line and line.endswith("\n")), None)

        return program, await self.until(f"{name} is ready", ready)

    async def command(self, *arguments: str) -> Any:
        """Run ``orchestrator …`` to its end; return what it prints, with ``--json`` decoded.

        Raises:
            DemoError: it failed.
        """
        pipe = asyncio.subprocess.PIPE
        process = await self._spawn(ORCHESTRATOR, *arguments, stdout=pipe, stderr=pipe)
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
        return json.loads(output) if "--json" in arguments else output.decode()

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
