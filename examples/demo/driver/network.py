"""What the second story is told with: starting workflows, waiting for them, being refused, and the books of subscriptions."""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
from rich.text import Text

from .amqp import OtherService
from .checks import Check
from .corner import Corner
from .errors import DemoError
from .programs import Programs
from .screen import STYLES, Screen

RESTING = {"completed", "suspended", "failed", "inconsistent_data", "api_unavailable", "aborted"}
"""Where a process stays until somebody does something."""

_STANDING = """
SELECT p.workflow, p.status, p.step, p.assignee,
       (SELECT subscription_id FROM processes_subscriptions WHERE process_id = p.process_id LIMIT 1) AS subscription_id,
       (SELECT failure ->> 'message' FROM process_steps l
         WHERE l.process_id = p.process_id AND failure IS NOT NULL ORDER BY sequence DESC LIMIT 1) AS failure
  FROM processes p WHERE process_id = $1
"""
_SUBSCRIPTIONS = """
SELECT s.*, p.name AS product FROM subscriptions s JOIN products p USING (product_id) ORDER BY s.created_at
"""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a process stands.

    Args:
        failure: why it failed last, in words.
    """

    workflow: str
    status: str
    step: str | None
    assignee: str
    subscription_id: UUID | None
    failure: str | None


class NetworkBooks:
    """A few connections for reading."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def standing(self, process_id: str) -> Standing:
        """How a process stands."""
        (row,) = await self._pool.fetch(_STANDING, UUID(process_id))
        return Standing(**dict(row))

    async def subscription(self, subscription_id: str) -> dict[str, Any]:
        """The row of one subscription."""
        found = await self._pool.fetch(_SUBSCRIPTIONS)
        return next(dict(row) for row in found if str(row["subscription_id"]) == subscription_id)

    async def rows(self, query: str, *values: object) -> list[dict[str, Any]]:
        """Anything else."""
        return [dict(row) for row in await self._pool.fetch(query, *values)]


@dataclass(slots=True)
class Network:
    """One run.

    Args:
        products: their ids, by name.
        known: the subscriptions' ids, by the names that the story has for them.
        subjects: the same names, by the ids of the processes that are at work on them.
        controller: the URL of the network controller.
    """

    screen: Screen
    corner: Corner
    programs: Programs
    books: NetworkBooks
    service: OtherService
    controller: str
    checks: list[Check] = field(default_factory=list)
    products: dict[str, str] = field(default_factory=dict)
    known: dict[str, str] = field(default_factory=dict)
    subjects: dict[str, str] = field(default_factory=dict)

    def expect(self, statement: str, wrong: object = "") -> None:
        """Note a check, and show it; ``wrong`` is what is not as it should be."""
        check = Check(statement, str(wrong) if wrong else "")
        self.checks.append(check)
        mark = Text("        no   ", "bold red") if check.wrong else Text("        yes  ", "green")
        self.screen.console.print(mark + Text(statement + (f": {check.wrong}" if check.wrong else "")), soft_wrap=True)

    async def see(self, event: dict[str, Any]) -> None:
        """One event of the engine: only what takes time, or went wrong, is told."""
        self.screen.patience.sign()
        status = event["status"]
        if "step" in event and status in {"waiting", "awaiting_callback", "suspend", "failed"}:
            words = f"{event['step']}: {status.replace('_', ' ')}"
            self.screen.say(
                f"  {self._label(event['workflow'], event['process_id'])}  {words}", STYLES.get(status, "dim")
            )

    def _label(self, workflow: str, process_id: str) -> str:
        subject = self.subjects.get(process_id)
        return f"{workflow} {process_id[:8]}" + (f" ({subject})" if subject else "")

    async def learn_products(self, *workflows: str) -> None:
        """Ask as a user interface does: a start without any page is answered with the first page's JSON schema."""
        for workflow in workflows:
            answer = await self.service.start(workflow)
            self.products |= {name: key for key, name in _options(answer.body.get("form")).items()}
        self.screen.say(f"the forms offer these products: {', '.join(sorted(self.products))}")

    async def start(self, workflow: str, *pages: dict[str, Any]) -> str:
        """Start a workflow with a bare message; return the process's id."""
        answer = await self.service.start(workflow, *pages)
        if answer.type != "workflow.started":
            raise DemoError(f"{workflow} was refused: {answer.body}")
        return str(answer.body["process_id"])

    async def start_by_command(self, workflow: str, *pages: dict[str, Any]) -> str:
        """Start a workflow as a person would."""
        inputs = [word for page in pages for word in ("--input", json.dumps(page))]
        return str((await self.programs.command("start", workflow, *inputs, "--json"))["process_id"])

    async def rest(self, process_id: str, wanted: str = "completed") -> Standing:
        """Wait until a process rests.

        Raises:
            DemoError: it rests otherwise than wanted.
        """
        began = time.monotonic()

        async def resting() -> Standing | None:
            found = await self.books.standing(process_id)
            return found if found.status in RESTING else None

        standing = await self.programs.until(f"process {process_id} rests", resting)
        if standing.status != wanted:
            raise DemoError(
                f"{standing.workflow} {process_id} is {standing.status} at {standing.step!r}, not {wanted}: {standing.failure}"
            )
        self.screen.say(
            f"{self._label(standing.workflow, process_id)}: {standing.status.replace('_', ' ')}"
            + ("" if standing.status == "completed" else f" at '{standing.step}', for {standing.assignee}")
            + f" ({time.monotonic() - began:.1f} s)",
            STYLES.get(standing.status, ""),
        )
        return standing

    async def create(
        self, name: str, workflow: str, product: str, page: dict[str, Any], *, by_hand: bool = False
    ) -> None:
        """Make a subscription, and remember it under a name; installations are accepted on the way."""
        start = self.start_by_command if by_hand else self.start
        process_id = await start(workflow, {"product": self.products[product]}, page)
        self.subjects[process_id] = name
        if workflow in {"create_node", "create_core_link"}:
            await self.rest(process_id, "suspended")
            await self.give_input(process_id, {"accepted_by": "Noor"})
        standing = await self.rest(process_id)
        self.known[name] = str(standing.subscription_id)

    async def give_input(self, process_id: str, page: dict[str, Any]) -> None:
        """As somebody of the NOC would."""
        await self.programs.command("resume", process_id, "--input", json.dumps(page), "--user", "noor", "--json")

    async def on(self, workflow: str, name: str, *pages: dict[str, Any], wanted: str = "completed") -> str:
        """Run a workflow on a subscription; return the process's id."""
        process_id = await self.start(workflow, {"subscription_id": self.known[name]}, *pages)
        self.subjects[process_id] = name
        await self.rest(process_id, wanted)
        return process_id

    async def all_on(self, *pairs: tuple[str, str]) -> None:
        """Run workflows on several subscriptions at once."""
        async with asyncio.TaskGroup() as tasks:
            for workflow, name in pairs:
                tasks.create_task(self.on(workflow, name))

    async def refused(
        self, statement: str, workflow: str, *pages: dict[str, Any], key: str, naming: tuple[str, ...] = ()
    ) -> dict[str, Any]:
        """Try what must be refused, with this reason and these words in it; return the reason."""
        answer = await self.service.start(workflow, *pages)
        self.screen.say(f"{workflow} refused: {answer.body.get('error')}: {answer.body.get('detail')}", "yellow")
        reasons = [one for one in answer.body.get("reasons", []) if one.get("key") == key]
        missing = [word for word in naming if not reasons or word not in json.dumps(reasons[0])]
        right = answer.type == "workflow.refused" and reasons and not missing
        self.expect(f"{statement}: {key}", "" if right else f"{answer.type} {answer.body}, without {missing}")
        return dict(reasons[0]) if reasons else {}

    async def configured(self, name: str) -> dict[str, Any] | None:
        """What the network controller has for a subscription."""
        answer = await self._ask("GET", f"/services/{self.known[name]}")
        return None if answer is None else dict(answer["configuration"])

    async def all_configured(self) -> dict[str, Any]:
        """All that the network controller has."""
        return dict((await self._ask("GET", "/services") or {})["services"])

    async def change_behind_our_back(self, name: str, **change: object) -> None:
        """Somebody logs in to the router."""
        await self._ask("PATCH", f"/services/{self.known[name]}", change)

    async def _ask(self, method: str, path: str, body: object = None) -> dict[str, Any] | None:
        def ask() -> dict[str, Any] | None:
            parts = urlsplit(self.controller)
            connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
            try:
                connection.request(method, path, None if body is None else json.dumps(body))
                answer = connection.getresponse()
                text = answer.read()
                return dict(json.loads(text)) if answer.status == http.HTTPStatus.OK else None
            finally:
                connection.close()

        return await asyncio.to_thread(ask)


def _options(form: object) -> dict[str, str]:
    """The choices of a page's JSON schema: value -> label."""
    found: dict[str, str] = {}
    if isinstance(form, dict):
        for one in form.get("$defs", {}).values():
            found |= one.get("options", {})
    return found
