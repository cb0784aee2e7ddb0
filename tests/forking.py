"""The command line without its imports: a server that has imported the engine once forks a process for each call.

A forked process is a process of its own as far as a test can tell: its arguments, environment, working folder, session,
standard streams, signals and exit code are those of a program that was started. It runs no code that another process has run
before, only modules that are imported already. ``tests/integration/test_forking.py`` holds it to that. When its main function
and its handlers at exit have returned it is gone: the interpreter does not take a hundred thousand objects apart.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import inspect
import io
import json
import os
import pkgutil
import posix
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TextIO, TypeAlias

ORCHESTRATOR = Path(sys.executable).parent / "orchestrator"
"""The installed program."""

_STREAMS = 3
_LARGEST = 1 << 20
"""Bytes of a call: arguments and environment."""

_READ_AT_START = ("LANG", "LC_", "TZ", "PYTHON")
_SET_WHEN_FORKED = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "PYTHONUNBUFFERED")
_NOT_OF_THE_SERVER = ("ORCHESTRATOR_", "PYTEST_", "PYTHONPATH", "COVERAGE_")
_SET_BY_IMPORTS: dict[str, str] = {}
"""What the engine's modules put into the environment when they are imported."""

_MEASURED = "COVERAGE_PROCESS_CONFIG"
"""The variable by which coverage has the programs measured that a measured one starts."""

Call = dict[str, Any]


class ForkedProgram:
    """A running ``orchestrator …``, with the methods of ``subprocess.Popen`` that tests use."""

    def __init__(self, arguments: Sequence[str], answer: socket.socket) -> None:
        self.args = list(arguments)
        self.returncode: int | None = None
        self._answer = answer
        self.pid = int(self._line(None) or 0)

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return the exit code.

        Raises:
            TimeoutExpired: it still runs.
        """
        if self.returncode is None:
            line = self._line(timeout)
            if line is None:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.returncode = int(line)
            self._answer.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal to it, if it still runs."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def _line(self, timeout: float | None) -> bytes | None:
        poll = select.poll()
        poll.register(self._answer, select.POLLIN)
        if not poll.poll(None if timeout is None else timeout * 1000):
            return None
        found = self._answer.recv(32)
        assert found, "the fork server has ended"
        return found


class ForkServer:
    """The server, as tests see it."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._server = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno()), *(["measures"] if _MEASURED in os.environ else [])],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={name: value for name, value in os.environ.items() if not name.startswith(_NOT_OF_THE_SERVER)},
            )

    def close(self) -> None:
        """End the server, and with it the programs that still run."""
        self._socket.close()
        self._server.wait(30)

    def start(
        self,
        arguments: Sequence[str | bytes],
        *,
        environment: Mapping[str, str],
        folder: Path,
        streams: tuple[int, int, int],
        new_session: bool = False,
    ) -> ForkedProgram:
        """Start ``orchestrator`` with these arguments; ``streams`` are what it reads from and writes to."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        words = [os.fsdecode(one) for one in arguments]
        call = {"arguments": words, "environment": dict(environment), "folder": str(folder), "new_session": new_session}
        with theirs:
            socket.send_fds(self._socket, [json.dumps(call).encode()], [theirs.fileno(), *streams])
        return ForkedProgram(words, ours)


Program: TypeAlias = "ForkedProgram | subprocess.Popen[bytes]"


@cache
def fork_server() -> ForkServer:
    """Return the server of this test session. It is started when it is needed."""
    server = ForkServer()
    atexit.register(server.close)
    return server


def can_be_forked(environment: Mapping[str, str]) -> bool:
    """Whether the variables that an interpreter reads at its start are those of the server."""
    names = {name for name in {*environment, *os.environ} if name.startswith(_READ_AT_START)} - {*_SET_WHEN_FORKED}
    return all(environment.get(name) == os.environ.get(name) for name in names)


def start(
    arguments: Sequence[str | bytes],
    *,
    environment: Mapping[str, str],
    folder: Path,
    output: int,
    errors: int | None = None,
    new_session: bool = False,
    installed: bool = False,
) -> Program:
    """Start ``orchestrator`` with these arguments.

    Args:
        output: the descriptor of a file for what it prints.
        errors: that of one for its standard error, if it is another.
        installed: start the installed program.
    """
    errors = output if errors is None else errors
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123 - not a file
        if not installed and can_be_forked(environment):
            return fork_server().start(
                arguments,
                environment=environment,
                folder=folder,
                streams=(nothing.fileno(), output, errors),
                new_session=new_session,
            )
        return subprocess.Popen(
            [ORCHESTRATOR, *arguments],
            env=environment,
            cwd=folder,
            stdin=nothing,
            stdout=output,
            stderr=errors,
            start_new_session=new_session,
        )


def run(
    arguments: Sequence[str | bytes],
    *,
    environment: Mapping[str, str],
    folder: Path,
    seconds: float,
    installed: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run ``orchestrator`` with these arguments to its end and return what it has written.

    Raises:
        TimeoutExpired: it took longer than these seconds, and was killed.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        program = start(
            arguments,
            environment=environment,
            folder=folder,
            output=output.fileno(),
            errors=errors.fileno(),
            installed=installed,
        )
        try:
            code = program.wait(seconds)
        except subprocess.TimeoutExpired:
            program.kill()
            program.wait()
            raise
        output.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess(program.args, code, output.read().decode(), errors.read().decode())


# What follows runs in the server.


def _import_everything() -> None:
    """Import all modules of the engine, and with them what they use."""
    for package in (importlib.import_module("orchestrator"), importlib.import_module("consumers")):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.endswith("__main__"):
                importlib.import_module(found.name)
    # Otherwise each process does it, before its first statement.
    importlib.import_module("sqlalchemy.orm").configure_mappers()


class _Server:
    """Forks when a call comes, and tells the caller how the process has ended."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._running: dict[int, tuple[int, socket.socket]] = {}
        self._poll = select.poll()
        self._poll.register(listener, select.POLLIN)

    def next_call(self) -> Call | None:
        """Serve; return in each forked process with its call, and in the server with None when the tests have ended.

        However they have ended: also tests that were killed leave none of their programs running.
        """
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor != self._listener.fileno():
                    self._report(descriptor)
                    continue
                message, descriptors, _, _ = socket.recv_fds(self._listener, _LARGEST, 1 + _STREAMS)
                if not message:
                    for program in self._running:
                        signal.pidfd_send_signal(program, signal.SIGKILL)
                    return None
                if (call := self._fork(message, descriptors)) is not None:
                    return call

    def _fork(self, message: bytes, descriptors: list[int]) -> Call | None:
        child = os.fork()
        if not child:
            self._forget()
            return _become(json.loads(message), descriptors)
        answer = socket.socket(fileno=descriptors[0])
        answer.send(str(child).encode())
        for one in descriptors[1:]:
            os.close(one)
        descriptor = os.pidfd_open(child)
        self._running[descriptor] = (child, answer)
        self._poll.register(descriptor, select.POLLIN)
        return None

    def _forget(self) -> None:
        """Close everything that is the server's, in a forked process; its objects must not close what comes in their place."""
        for descriptor, (_, answer) in self._running.items():
            os.close(descriptor)
            os.close(answer.detach())
        os.close(self._listener.detach())

    def _report(self, descriptor: int) -> None:
        child, answer = self._running.pop(descriptor)
        self._poll.unregister(descriptor)
        os.close(descriptor)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        with answer, contextlib.suppress(OSError):  # a caller that has gone does not want to know
            answer.send(str(code).encode())


def _become(call: Call, descriptors: list[int]) -> Call:
    """Make of a forked process what a started program is before its first line."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if call["new_session"]:
        os.setsid()
    os.close(descriptors[0])
    for target, descriptor in enumerate(descriptors[1:]):
        os.dup2(descriptor, target)
        os.close(descriptor)
    os.chdir(call["folder"])
    environment = call["environment"]
    os.environ.clear()
    os.environ.update(_SET_BY_IMPORTS | environment)
    sys.argv = [str(ORCHESTRATOR), *call["arguments"]]
    own = [one for one in environment.get("PYTHONPATH", "").split(os.pathsep) if one]
    sys.path[:] = [str(ORCHESTRATOR.parent), *own, *(one for one in sys.path[1:] if one not in own)]
    sys.path_importer_cache.clear()
    sys.dont_write_bytecode = bool(environment.get("PYTHONDONTWRITEBYTECODE"))
    sys.pycache_prefix = environment.get("PYTHONPYCACHEPREFIX")
    buffered = not environment.get("PYTHONUNBUFFERED")
    sys.stdin = _stream(0, "rb", sys.stdin, buffered=True)
    sys.stdout = _stream(1, "wb", sys.stdout, buffered=buffered)
    sys.stderr = _stream(2, "wb", sys.stderr, buffered=buffered, by_lines=buffered)
    if _MEASURED in environment:
        measuring = importlib.import_module("coverage").process_startup()
        # The files that nothing runs are named by the tests' own processes: to look for them took longer than most commands do.
        measuring._inorout.find_possibly_unexecuted_files = lambda: ()
    return call


def _stream(descriptor: int, mode: str, like: TextIO, *, buffered: bool, by_lines: bool = False) -> TextIO:
    """Open a standard stream as the interpreter does, with the encoding that it found at the server's start."""
    raw = open(descriptor, mode, buffering=-1 if buffered else 0, closefd=False)  # noqa: SIM115 - as the interpreter does
    return io.TextIOWrapper(
        raw, encoding=like.encoding, errors=like.errors, line_buffering=by_lines, write_through=not buffered
    )


def _run_to_the_end(main: Callable[[], object]) -> None:
    """End the process as the interpreter does when ``main`` has returned, but without destroying what it has imported.

    What ends otherwise, by an exception or with a text for a code, is left to the interpreter.
    """
    try:
        main()
        code = 0
    except SystemExit as end:
        if not (end.code is None or isinstance(end.code, int)):
            raise
        code = end.code or 0
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads; multiprocessing ends its forks with it, too
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    posix._exit(code)  # not that of os, at which coverage would save what it has saved already


def _serve() -> None:
    before = dict(os.environ)
    gc.disable()  # of what is imported nothing is garbage
    _import_everything()
    if sys.argv[2:]:
        importlib.import_module("coverage")
        # coverage asks for the stack when it starts, and so in every fork: that reads the places of all modules, once.
        inspect.stack()
    _SET_BY_IMPORTS.update(os.environ.items() - before.items())
    gc.collect()
    gc.enable()
    gc.freeze()  # so that collections in the forked processes copy no memory
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a person who interrupts the tests ends them; they end the server
    if _Server(socket.socket(fileno=int(sys.argv[1]))).next_call() is not None:
        _run_to_the_end(importlib.import_module("orchestrator.cli").main)


if __name__ == "__main__":
    _serve()
