"""The command line as a subprocess, in a project folder of its own with a few workflows."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from orchestrator.db.registration import register_workflow
from orchestrator.db.session import Database
from tests import forking
from tests.forking import Program

PATIENCE = 180.0
FLOWS = ("greet", "stumble", "ask", "sleep", "call")
CODE = """
import asyncio
from pathlib import Path
from typing import Literal
from orchestrator.forms import FormPage
from orchestrator.registry import LazyWorkflowInstance
from orchestrator.workflow import StepList, callback_step, done, init, inputstep, step, workflow

for name in ("greet", "stumble", "ask", "sleep", "call"):
    LazyWorkflowInstance("flows", name)
print("a module that prints")

def form():
    class Who(FormPage):
        name: str
    who = yield Who
    class How(FormPage):
        tone: Literal["kind", "gruff"]
    how = yield How
    return {**who.model_dump(), **how.model_dump()}

@step("Say hello")
async def say_hello(name: str) -> dict:
    return {"greeting": "hello " + name}

@workflow("Greets", initial_input_form=form)
def greet() -> StepList:
    return init >> say_hello >> done

@step("Note")
def note() -> dict:
    return {"noted": 1}

@step("Stumble")
def trip(state: dict) -> dict:
    if not state.get("mended"):
        raise RuntimeError("tripped over [bold]\\x1b[31m")
    return {"passed": True}

@workflow("Fails until its state is mended")
def stumble() -> StepList:
    return init >> note >> trip >> done

@inputstep("Approve", assignee="NOC")
def approve():
    class Approval(FormPage):
        approved: bool
    page = yield Approval
    return page.model_dump()

@workflow("Asks")
def ask() -> StepList:
    return init >> approve >> done

@step("Sleep")
async def nap() -> None:
    while not Path("wake").exists():
        await asyncio.sleep(0.02)

@workflow("Sleeps until a file exists")
def sleep() -> StepList:
    return init >> nap >> done

@step("Order")
def order() -> None: ...

@step("Judge")
def judge() -> None: ...

@workflow("Waits for somebody else")
def call() -> StepList:
    return init >> callback_step("Delivery", order, judge, timeout=3600) >> done
"""


@dataclass(frozen=True)
class Cli:
    """The command line, in a project folder of its own."""

    folder: Path
    environment: dict[str, str]
    installed: bool = False
    """Whether to start the installed program, rather than to fork one."""

    def __call__(self, *arguments: str | bytes, code: int = 0, **changes: str) -> subprocess.CompletedProcess[str]:
        done = forking.run(
            arguments,
            environment=self.environment | changes,
            folder=self.folder,
            seconds=PATIENCE * 2,
            installed=self.installed,
        )
        assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    def said(self, done: subprocess.CompletedProcess[str]) -> list[str]:
        """Return the lines on stderr, without what the user's module prints."""
        return [line for line in done.stderr.splitlines() if line != "a module that prints"]

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self(*arguments, "--json", code=code).stdout)

    def start(self, *arguments: str) -> str:
        return str(self.json("start", *arguments)["process_id"])

    @contextlib.contextmanager
    def program(self, *arguments: str) -> Iterator[Program]:
        with (self.folder / f"{arguments[0]}.log").open("a") as log:
            started = forking.start(
                arguments,
                environment=self.environment,
                folder=self.folder,
                output=log.fileno(),
                installed=self.installed,
            )
            try:
                yield started
            finally:
                started.kill()
                started.wait()

    def until(self, condition: Callable[[], bool]) -> None:
        began = time.monotonic()
        while not condition():
            waited = time.monotonic() - began
            assert waited < PATIENCE, "\n".join(log.read_text() for log in self.folder.glob("*.log"))
            time.sleep(max(0.05, min(waited / 20, 0.25)))  # to ask takes time from what is awaited

    def is_reading(self) -> bool:
        status = self.json("status")
        return bool(status["queues"]) and all(
            q["consumers"] for q in status["queues"] if q["name"] != "orchestrator.dead"
        )


async def register_flows(database: Database) -> None:
    """Make the database know the workflows of the projects."""

    def register(connection: Connection) -> None:
        for name in FLOWS:
            register_workflow(connection, name=name, target="SYSTEM", description=name)

    async with database.engine.begin() as connection:
        await connection.run_sync(register)


def project(folder: Path, database_url: str, amqp_url: str) -> Cli:
    (folder / "flows.py").write_text(CODE)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ORCHESTRATOR_")}
    here = {
        "ORCHESTRATOR_DATABASE_URL": database_url,
        "ORCHESTRATOR_AMQP_URL": amqp_url,
        "ORCHESTRATOR_WORKFLOWS": "flows",
        "ORCHESTRATOR_QUEUE_TYPE": "classic",
        "ORCHESTRATOR_SHIPPED_SCHEDULES": "false",  # what starts, a test has started
        "ORCHESTRATOR_CONNECT_TIMEOUT": "15",  # the servers are there, and may be slow
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
    }
    return Cli(folder, kept | here)
