"""What both stories are played on: an installation of the engine with its programs, another service, and what people see."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from tests.acceptance.client import Client, Received
from tests.acceptance.installation import Installation
from tests.acceptance.programs import Api, OtherProgram, Program

from .patience import DemoError, Found
from .place import Place
from .screen import Screen

EXAMPLES = Path(__file__).resolve().parents[2]
FOLDER = EXAMPLES / "demo" / ".run"

_PROCESSES = """
SELECT p.process_id, left(p.process_id::text, 8) AS process, p.workflow, p.status, p.step, p.started_by, p.attempt AS attempts,
       p.state ->> 'customer' AS customer,
       round(extract(epoch FROM p.updated_at - p.started_at), 1) AS seconds,
       count(*) FILTER (WHERE l.kind = 'step' AND l.status IN ('success', 'complete')) AS steps,
       count(*) FILTER (WHERE l.kind = 'step' AND l.status = 'skipped') AS skipped,
       count(*) FILTER (WHERE l.kind = 'step' AND l.status = 'waiting') AS tried_again,
       count(*) FILTER (WHERE l.kind = 'process' AND l.name = 'attempt lost') AS lost
  FROM processes p JOIN process_steps l USING (process_id)
 GROUP BY p.process_id ORDER BY p.started_at
"""
NO_STEP_TWICE = """
SELECT name || ' of ' || process_id FROM process_steps WHERE kind = 'step' AND status IN ('success', 'complete')
 GROUP BY process_id, name HAVING count(*) > 1
"""
_WHERE = """
Look around:
  RabbitMQ's management UI   {servers.management}, virtual host {name}, user {servers.user};
                             the password is in ORCHESTRATOR_AMQP_URL: scripts/services env
  the command line           . examples/demo/.run/{project}.env; .venv/bin/orchestrator list
  the programs' logs         examples/demo/.run/{project}/logs/
This story's programs have stopped; database and virtual host stay until the next demo."""


class Stage(Installation):
    """Everything a story needs.

    Args:
        project: a folder of ``examples``.
        outside: the script of the outside system, below ``examples``.
        variables: by which the project's steps find the outside system and RabbitMQ.
    """

    def __init__(self, screen: Screen, place: Place, project: str, outside: str, variables: tuple[str, str]) -> None:
        self.screen, self.place = screen, place
        migrations = str(EXAMPLES / project / "migrations")
        engine = {"ORCHESTRATOR_WORKFLOWS": f"examples.{project}", "ORCHESTRATOR_MIGRATIONS": migrations}
        urls = {"ORCHESTRATOR_DATABASE_URL": place.database_url, "ORCHESTRATOR_AMQP_URL": place.amqp_url}
        _write_for_people(project, urls | engine)
        (FOLDER / project).mkdir()
        more = {"ORCHESTRATOR_LOG_LEVEL": "info", "ORCHESTRATOR_PRESUMED_DEAD_AFTER": "10", "PYTHONUNBUFFERED": "1"}
        super().__init__(
            FOLDER / project, place.database_url, place.amqp_url, **engine, **more, COLUMNS=str(screen.console.width)
        )
        self.installed = True
        self.service = Client(self.background, place.service_url)
        self.consumers: list[Program] = []
        self.lost: set[int] = set()  # programs that were killed
        self._variables = variables
        logs, worker = self.folder / "logs", EXAMPLES / "demo/field_worker.py"
        self.outside = OtherProgram(EXAMPLES / outside, logs / "outside.log")
        self._worker = OtherProgram(worker, logs / "field-worker.log", FIELD_AMQP_URL=place.field_url)
        self._seen = 0
        self.see: Callable[[dict[str, Any]], None] = lambda _: None

    def open(self) -> None:
        """Start everything."""
        screen, place = self.screen, self.place
        screen.say(f"database {place.name} migrated: {', '.join(self.json('db', 'upgrade')['heads'])}")
        self._worker.first_line()
        screen.say(f"the outside system (pid {self.outside.pid}) and the field worker (pid {self._worker.pid}) run")
        own = self._own()
        coordinator = self.coordinator(**own)
        self.consumers = [self.consumer(**own) for _ in range(2)]
        for program in self.programs:
            program.ready()
        pids = ", ".join(str(consumer.pid) for consumer in self.consumers)
        screen.say(f"coordinator (pid {coordinator.pid}) and two consumers (pids {pids}) run")
        self.client.listen()

    def serve(self) -> Api:
        """Start the API as well, and wait until it serves."""
        program = self.api(**self._own())
        self.screen.say(f"the API (pid {program.pid}) serves {program.url}")
        return program

    def _own(self) -> dict[str, str]:
        return dict(zip(self._variables, (self.outside.first_line(), self.place.amqp_url), strict=True))

    def close(self) -> None:
        """Stop everything in an orderly way."""
        running = [program for program in self.programs if program.runs]
        for program in running:
            program.signal(signal.SIGTERM)
        try:
            for program in running:
                program.exit_code()
        finally:
            self.outside.close()
            self._worker.close()
            self.service.close()
            super().close()

    def until(self, what: str, condition: Callable[[], Found | None]) -> Found:
        """Wait for a condition, and print the engine's events meanwhile; return what it found.

        Raises:
            DemoError: a program has ended meanwhile, or nothing happens any more.
        """

        def look() -> Found | None:
            while self._seen < len(self.client.events):
                self.screen.patience.sign()
                self._seen += 1
                self.see(self.client.events[self._seen - 1].body)
            for program in self.programs:
                if not program.runs and program.pid not in self.lost:
                    end = "\n".join(f"    {line}" for line in program.output().splitlines()[-15:])
                    raise DemoError(f"{program.name} has ended. Its log ends so:\n{end}")
            return condition()

        return self.screen.patience.until(what, look)

    def command(self, *arguments: str, **settings: Any) -> CompletedProcess[str]:
        """Run the command line, and print the engine's events meanwhile."""
        with ThreadPoolExecutor() as pool:
            ended = pool.submit(super().command, *arguments, **settings)
            self.until(f"the end of 'orchestrator {' '.join(arguments)}'", ended.done)
            return ended.result()

    def rows(self, query: str, *values: object) -> list[dict[str, Any]]:
        """Return what a query finds."""
        return [dict(row) for row in self.query(query, *values)]

    def values(self, query: str, *values: object) -> list[Any]:
        """Return the first column of what a query finds."""
        return [row[0] for row in self.query(query, *values)]

    def processes(self) -> list[dict[str, Any]]:
        """Return all processes with their figures, the oldest first."""
        return self.rows(_PROCESSES)

    def ask_to_start(self, workflow: str, *pages: Mapping[str, Any], message_id: str | None = None) -> Received:
        """Start a workflow with a bare message; return the answer. The same ``message_id`` gives the same process."""
        order = {"workflow": workflow, "inputs": pages, "user": "crm"}
        return self.service.ask("workflow.start", order, message_id=message_id)

    def order(self, workflow: str, *pages: Mapping[str, Any], message_id: str | None = None) -> dict[str, Any]:
        """Start a workflow with a bare message, which must not be refused; return the answer's body."""
        answer = self.ask_to_start(workflow, *pages, message_id=message_id)
        if answer.type != "workflow.started":
            raise DemoError(f"{workflow} was refused: {answer.body}")
        return dict(answer.body)

    def expect_facts(self, facts: Mapping[str, str], *, indent: int = 2) -> None:
        """Check statements, each by a query for what is wrong with it."""
        for statement, query in facts.items():
            self.screen.expect_none(statement, self.values(query), indent=indent)


@contextmanager
def set_stage(place: Place, screen: Screen, project: str, outside: str, variables: tuple[str, str]) -> Iterator[Stage]:
    """Start everything. Database and virtual host are left as they are at the end; the programs stop."""
    stage = Stage(screen, place, project, outside, variables)
    try:
        stage.open()
        yield stage
    finally:
        stage.close()
    where = _WHERE.format(name=place.name, servers=place.servers, project=project)
    screen.console.print(where, soft_wrap=True, markup=False)


def _write_for_people(project: str, environment: dict[str, str]) -> None:
    path = FOLDER / f"{project}.env"
    path.touch(mode=0o600)  # it holds passwords
    path.write_text("".join(f"export {name}={shlex.quote(value)}\n" for name, value in environment.items()))
