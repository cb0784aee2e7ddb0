"""What is broken: two servers, and five programs that reach each of them through a proxy of their own."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from tests.acceptance.chaos import PATIENT
from tests.acceptance.installation import Installation
from tests.acceptance.pair import Pair
from tests.acceptance.programs import START_SECONDS, Program
from tests.acceptance.proxy import Proxy
from tests.acceptance.waiting import until
from tests.forwarder import place_of, through

PROJECT = "tests.chaos.project"
KINDS = ("coordinator",) * 2 + ("consumer",) * 3
RUN_AHEAD = (3, 4)
"""The consumers that go on with the next step themselves; they run beside one that does not."""
GRACE = 3.0
"""Seconds that a program has for its steps when it is to end."""
STOP_SECONDS = 60.0
"""When a program that was asked to end and has not is a fault of its own; a busy machine is slow."""
CODES = {"old": 1, "new": 2}
"""The versions of the code, and the numbers of the plans that they had first."""

SETTINGS = {
    **PATIENT,
    "ORCHESTRATOR_WORKFLOWS": PROJECT,
    "ORCHESTRATOR_MIGRATIONS": str(Path(__file__).parent / "migrations"),
    "ORCHESTRATOR_DRAIN_GRACE": f"{GRACE:g}",
}


AT_START = (1, -signal.SIGTERM)
"""How a program ends that finds a server away when it starts, and one that is asked to end before it can notice."""
STARTS = 30.0
"""Seconds until a program whose log cannot be read is taken to have started."""


class Unlogged(Program):
    """A program whose log goes to a disk that is full."""

    def __init__(self, name: str, arguments: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        super().__init__(arguments, environment, Path("/dev/full"), folder)
        self.name = f"{name} without a log"

    def output(self) -> str:
        """Return nothing: to read the device never ends."""
        return ""


class Slot:
    """A place for a program, which is filled again whenever the program has ended.

    Args:
        number: which of the five it is.
    """

    def __init__(self, number: int, engine: Installation) -> None:
        self.kind = KINDS[number]
        self.name = f"{self.kind} {number + 1}"
        self.code = "old"
        self.lock = threading.RLock()
        """Of whoever does something to the program."""
        self.database = Proxy(place_of(engine.database_url))
        self.broker = Proxy(place_of(engine.amqp_url))
        self._engine = engine
        self._settings = {
            "ORCHESTRATOR_DATABASE_URL": through(engine.database_url, self.database.port),
            "ORCHESTRATOR_AMQP_URL": through(engine.amqp_url, self.broker.port),
            "ORCHESTRATOR_RUN_AHEAD": "20" if number in RUN_AHEAD else "0",
        }
        self._program: Program | None = None
        self._started = 0.0

    @property
    def starts(self) -> bool:
        """Whether its program has not begun to work."""
        if isinstance(self.program, Unlogged):
            return time.monotonic() - self._started < STARTS
        return "consuming" not in self.program.output()

    @property
    def program(self) -> Program:
        """The program that runs here, or ran here last."""
        assert self._program is not None
        return self._program

    def start(self, *, with_log: bool = True) -> None:
        """Start the program with its present code, and do not wait for it.

        Args:
            with_log: false writes its log to a disk that is full.
        """
        arguments = [self.kind, *(("--concurrency", "4") if self.kind == "consumer" else ())]
        settings = {**self._settings, "CHAOS_CODE": self.code}
        self._started = time.monotonic()
        if with_log:
            self._program = self._engine.run(*arguments[:1], *arguments, **settings)
        else:
            self._program = Unlogged(self.name, arguments, self._engine.environment | settings, self._engine.folder)
            self._engine.programs.append(self._program)

    def close(self) -> None:
        """Close the proxies."""
        self.database.close()
        self.broker.close()


class World:
    """Everything that faults are done to, and what has become of it.

    Args:
        say: takes the lines of the timeline.
    """

    def __init__(self, folder: Path, pair: Pair, say: Callable[[str], None]) -> None:
        servers = pair.servers()
        self.pair, self.servers = pair, servers
        self.engine = Installation(folder, servers.database, servers.amqp, **SETTINGS)
        self.slots = [Slot(number, self.engine) for number in range(len(KINDS))]
        self.server_lock = threading.RLock()
        """Of whoever stops or starts a server."""
        self.code = "old"
        self.ended = threading.Event()
        """Set when no more faults are to begin."""
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []
        """What has gone wrong meanwhile, in words."""
        self._began = time.monotonic()
        self._say = say

    def say(self, text: str) -> None:
        """Write a line of the timeline."""
        self._say(f"{time.monotonic() - self._began:7.1f} s  {text}")

    def store_declarations(self) -> None:
        """Restart RabbitMQ in order, so that it has on disk what was declared last.

        A quorum queue whose node crashes in the seconds after it was declared comes back without what it had confirmed.
        """
        self.pair.run("stop", "rabbitmq")
        self.pair.run("start", "rabbitmq")

    def begin(self) -> None:
        """Migrate, register both plans, and start the programs."""
        self.engine.migrate()
        for slot in self.slots:
            slot.start()
        for slot in self.slots:
            slot.program.ready()
        self._began = time.monotonic()

    def stop(self, slot: Slot) -> None:
        """End a program as an operator does; it must end."""
        program = slot.program
        if not program.runs:
            return
        program.signal(signal.SIGTERM)
        try:
            code = program.exit_code(STOP_SECONDS)
        except AssertionError:
            self.wrong.append(f"{program.name} did not end within {STOP_SECONDS:g} s of SIGTERM")
            program.kill()
        else:
            if code and not (slot.starts and code in AT_START):
                self.wrong.append(f"{program.name} ended with exit code {code} on SIGTERM")

    def watch(self, slot: Slot) -> None:
        """Start a program again that has ended by itself. One that finds a server away when it starts may end; no other."""
        with slot.lock:
            if slot.program.runs:
                return
            code = slot.program.exit_code()
            if slot.starts and code == 1:
                self.done["ended at its start, because a server was away"] += 1
            else:
                self.wrong.append(f"{slot.program.name} ended by itself with exit code {code}")
                self.say(f"{slot.program.name} has ended by itself with exit code {code}, and is started again")
            slot.start()

    def deploy(self, code: str, pause: Callable[[], None] = lambda: None) -> None:
        """Replace one program after the other by one with other code, then make its plan the registered one."""
        for slot in self.slots:
            with slot.lock:
                slot.code = code
                self.stop(slot)
                slot.start()
                # Not all faults leave it a server; a deploy goes on after a while.
                deadline = time.monotonic() + 10
                while slot.starts and slot.program.runs and time.monotonic() < deadline:
                    time.sleep(0.05)
            pause()
        self.code = code
        self.engine.command(
            "plans", "activate", "chain", str(CODES[code]), "--user", "chaos", exit_code=None, CHAOS_CODE=code
        )

    def heal(self) -> None:
        """End every fault: servers and programs run, connections are made anew, all programs have the new code."""
        with self.server_lock:
            self.pair.run("up")
        for slot in self.slots:
            with slot.lock:
                slot.database.pass_on()
                slot.broker.pass_on()
                with contextlib.suppress(ProcessLookupError):
                    slot.program.signal(signal.SIGCONT)
        self.deploy("new")
        for slot in self.slots:
            until(partial(self._consumes, slot), f"{slot.name} consumes its queues", START_SECONDS)

    def _consumes(self, slot: Slot) -> bool:
        """Return whether a program works. Where everything is slow a server that has just begun may not answer it in time."""
        self.watch(slot)
        return not slot.starts

    def close(self) -> None:
        """End everything but the servers."""
        for slot in self.slots:
            with contextlib.suppress(AssertionError, ProcessLookupError):
                slot.program.signal(signal.SIGCONT)
        self.engine.close()
        for slot in self.slots:
            slot.close()
