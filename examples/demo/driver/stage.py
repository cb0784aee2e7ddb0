"""What both stories are played on: a place on the servers, the programs, another service, and a look into the database."""

from __future__ import annotations

import shlex
import sys
from asyncio import gather
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg

from .amqp import OtherService, other_service
from .errors import DemoError
from .ground import Ground, Place, dsn
from .programs import FOLDER, ORCHESTRATOR, REPOSITORY, Program, Programs
from .screen import Screen

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


@dataclass(frozen=True, slots=True)
class Stage:
    """Everything a story needs.

    Args:
        outside: the URL of the outside system: the provisioning service, or the network controller.
    """

    screen: Screen
    place: Place
    programs: Programs
    service: OtherService
    pool: asyncpg.Pool
    consumers: list[Program]
    outside: str

    async def rows(self, query: str, *values: object) -> list[dict[str, Any]]:
        """Return what a query finds."""
        return [dict(row) for row in await self.pool.fetch(query, *values)]

    async def values(self, query: str, *values: object) -> list[Any]:
        """Return the first column of what a query finds."""
        return [row[0] for row in await self.pool.fetch(query, *values)]

    async def processes(self) -> list[dict[str, Any]]:
        """Return all processes with their figures, the oldest first."""
        return await self.rows(_PROCESSES)

    async def start(self, workflow: str, *pages: dict[str, Any], message_id: str | None = None) -> dict[str, Any]:
        """Start a workflow with a bare message; return the answer.

        Raises:
            DemoError: it was refused.
        """
        answer = await self.service.start(workflow, *pages, message_id=message_id)
        if answer.type != "workflow.started":
            raise DemoError(f"{workflow} was refused: {answer.body}")
        return answer.body

    async def expect_facts(self, facts: Mapping[str, str], *, indent: int = 2) -> None:
        """Check statements, each by a query for what is wrong with it."""
        for statement, query in facts.items():
            self.screen.expect_none(statement, await self.values(query), indent=indent)


@asynccontextmanager
async def set_stage(
    ground: Ground, screen: Screen, project: str, outside: str, variables: tuple[str, str]
) -> AsyncIterator[Stage]:
    """Start everything. Database and virtual host are left as they are at the end; the programs stop.

    Args:
        project: a folder of ``examples``.
        outside: the script of the outside system, below ``examples``.
        variables: by which the project's steps find the outside system and RabbitMQ.
    """
    examples = REPOSITORY / "examples"
    async with ground.fresh_place() as place:
        engine = {
            "ORCHESTRATOR_DATABASE_URL": place.database_url,
            "ORCHESTRATOR_AMQP_URL": place.amqp_url,
            "ORCHESTRATOR_WORKFLOWS": f"examples.{project}",
            "ORCHESTRATOR_MIGRATIONS": str(examples / project / "migrations"),
            "ORCHESTRATOR_LOG_FORMAT": "console",
        }
        _write_for_people(project, engine)
        python = {"PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
        environment = {**engine, **python, "COLUMNS": str(screen.console.width)}
        async with (
            Programs(environment, project, screen.patience) as programs,
            asyncpg.create_pool(dsn(place.database_url), min_size=1, max_size=4) as pool,
            screen.patience.watch(),
        ):
            heads = (await programs.command("db", "upgrade", "--json"))["heads"]
            screen.say(f"database {place.name} migrated: {', '.join(heads)}")
            script, name = examples / outside, outside.rpartition("/")[2].removesuffix(".py").replace("_", "-")
            system, url = await programs.start(name, sys.executable, script, says="http://")
            worker, _ = await programs.start(
                "field-worker",
                sys.executable,
                examples / "demo/field_worker.py",
                says="ready",
                FIELD_AMQP_URL=place.field_url,
            )
            screen.say(f"{name.replace('-', ' ')} (pid {system.pid}) and field worker (pid {worker.pid}) run")
            own = dict(zip(variables, (url, place.amqp_url), strict=True))
            started = await gather(
                programs.start("coordinator", ORCHESTRATOR, "coordinator", says="consuming", **own),
                *(programs.start(f"consumer-{n}", ORCHESTRATOR, "consumer", says="consuming", **own) for n in (1, 2)),
            )
            coordinator, *consumers = [program for program, _ in started]
            pids = ", ".join(str(consumer.pid) for consumer in consumers)
            screen.say(f"coordinator (pid {coordinator.pid}) and two consumers (pids {pids}) run")
            async with other_service(place.service_url, screen.patience) as service:
                yield Stage(screen, place, programs, service, pool, consumers, url)
        screen.console.print(
            _WHERE.format(place=place, management=place.management, project=project), soft_wrap=True, markup=False
        )


_WHERE = """
Look around:
  RabbitMQ's management UI   {management.url}, virtual host {place.name}, user {management.user};
                             the password is in ORCHESTRATOR_AMQP_URL: scripts/services env
  the command line           . examples/demo/.run/{project}.env; .venv/bin/orchestrator list
  the programs' logs         examples/demo/.run/{project}-*.log
This story's programs have stopped; database and virtual host stay until the next demo."""


def _write_for_people(project: str, environment: dict[str, str]) -> None:
    path = FOLDER / f"{project}.env"
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)  # it holds passwords
    path.write_text("".join(f"export {name}={shlex.quote(value)}\n" for name, value in environment.items()))
