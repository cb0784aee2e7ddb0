"""The first story: five lines are provisioned, and a consumer is killed. What must be true afterwards is counted."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from .amqp import Answer, may_publish, read_dead_letters, watching
from .errors import DemoError
from .programs import Program
from .screen import STYLES
from .stage import NO_STEP_TWICE, Stage
from .web import ask

WORKFLOW = "provision_line"
LONG_STEP = "Burn in the line"
FAILURES_FIRST = 2

FROM_COMMAND_LINE = (
    {"customer": "Bakery", "node": "ams-1", "bandwidth": 1_000, "protection": False},
    {"customer": "Clinic", "node": "utr-1", "bandwidth": 10_000, "protection": True},
)
FROM_ANOTHER_SERVICE = (
    {"customer": "Library", "node": "ams-1", "bandwidth": 500, "protection": False},
    {"customer": "School", "node": "ams-1", "bandwidth": 1_000, "protection": True},
    {"customer": "Theatre", "node": "utr-1", "bandwidth": 2_000, "protection": False},
)
ORDERS = len(FROM_COMMAND_LINE) + len(FROM_ANOTHER_SERVICE)

_LOG = "SELECT process_id, sequence, name, status, note, consumer FROM process_steps ORDER BY process_id, sequence"
_HALFWAY = """
SELECT c.name FROM processes p JOIN consumers c ON c.consumer_id = p.claimed_by
 WHERE p.step = $1 AND p.claimed_at < now() - interval '0.5 s' ORDER BY p.claimed_at LIMIT 1
"""
_CLAIMED_BY = """
SELECT p.process_id FROM processes p JOIN consumers c ON c.consumer_id = p.claimed_by WHERE c.name = $1
"""
_FACTS = {
    "every process is completed": "SELECT state ->> 'customer' FROM processes WHERE status <> 'completed'",
    "no step has succeeded twice": NO_STEP_TWICE,
    "the conditional step was skipped for those who did not want it": """
        SELECT state ->> 'customer' FROM processes p WHERE (state ->> 'protection')::boolean = EXISTS
               (SELECT FROM process_steps l WHERE l.process_id = p.process_id AND l.status = 'skipped')""",
    "the step that failed was tried again by itself in every process": """
        SELECT state ->> 'customer' FROM processes p WHERE NOT EXISTS
               (SELECT FROM process_steps l WHERE l.process_id = p.process_id AND l.status = 'waiting')""",
    "the inventory has exactly one line per process": """
        SELECT process_id FROM processes p FULL JOIN inventory_lines l USING (process_id)
         GROUP BY process_id HAVING count(p.status) <> 1 OR count(l.line_id) <> 1""",
    "no port was given away twice": """
        SELECT node || '/' || port FROM inventory_lines GROUP BY node, port HAVING count(*) > 1""",
    "every line is in service": "SELECT node || '/' || port FROM inventory_lines WHERE status <> 'in service'",
    "the protected lines are the ones ordered": """
        SELECT node || '/' || port FROM inventory_lines l JOIN processes p USING (process_id)
         WHERE l.protected <> (p.state ->> 'protection')::boolean""",
    "every line's burn-in test has left one row, and the lost one none": """
        SELECT node || '/' || port FROM inventory_lines LEFT JOIN inventory_burn_ins USING (line_id)
         GROUP BY line_id HAVING count(burn_in_id) <> 1 OR max(rounds) <> 10""",
    "the field worker's progress was noted for every job": "SELECT process_id FROM callbacks WHERE progress IS NULL",
    "one callback token per process: used once, and not kept": """
        SELECT process_id FROM processes LEFT JOIN callbacks c USING (process_id) GROUP BY process_id
        HAVING count(*) <> 1 OR count(*) FILTER (WHERE c.status = 'used' AND c.token IS NULL) <> 1""",
}
"""What must be true at the end, and a query for what is wrong with it."""


async def tell_of_lines(stage: Stage) -> None:
    """Tell the story, then check everything."""
    began = time.monotonic()
    story = _Lines(stage)
    async with watching(stage.place.amqp_url, story.see):
        stage.screen.headline(f"{ORDERS} orders, from the command line and as bare AMQP messages")
        await story.send_twice()
        await story.send_nonsense()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(story.place_orders())
            tasks.create_task(story.give_input())
            tasks.create_task(story.kill_a_consumer())
        await stage.programs.until("every process is completed", story.all_are_completed)
        await stage.programs.until("every event has come and every queue is empty", story.all_has_come)
    took = time.monotonic() - began

    show, screen = stage.programs.command, stage.screen
    screen.headline("Processes")
    columns = "customer process started_by status steps skipped attempts tried_again lost seconds"
    screen.table(await stage.processes(), columns)
    victim = str(story.victims[0])
    screen.plain("The audit trail of one that lost its consumer: orchestrator show", await show("show", victim))
    screen.plain("The queues as an operator sees them: orchestrator topology show", await show("topology", "show"))
    screen.headline("Is everything as it should be?")
    await stage.expect_facts(_FACTS)
    await story.check_orders()
    await story.check_crash()
    await story.check_messages()
    screen.console.print()
    screen.say(f"{took:.0f} s from the first order to the last event")


@dataclass(slots=True)
class _Lines:
    stage: Stage
    started: list[str] = field(default_factory=list)
    events: dict[str, list[int]] = field(default_factory=dict)  # by process, in the order in which they came
    customers: dict[str, str] = field(default_factory=dict)
    repeated: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    refused: list[Answer] = field(default_factory=list)
    killed: str = ""
    victims: list[UUID] = field(default_factory=list)

    async def see(self, event: dict[str, Any]) -> None:
        self.stage.screen.patience.sign()
        process_id, sequence = event["process_id"], event["sequence"]
        if sequence in self.events.setdefault(process_id, []):
            return  # at least once
        self.events[process_id].append(sequence)
        if process_id not in self.customers:
            self.customers[process_id] = await self._customer(UUID(process_id))
        if "step" in event:
            status = event["status"]
            words = f"{self.customers[process_id]:<8} {event['step']}: {status.replace('_', ' ')}"
            self.stage.screen.say(words, STYLES.get(status, ""))

    async def _customer(self, process_id: UUID) -> str:
        query = "SELECT state ->> 'customer' FROM processes WHERE process_id = $1"
        return str((await self.stage.values(query, process_id))[0])

    async def place_orders(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for order in FROM_COMMAND_LINE:
                tasks.create_task(self._order_by_command_line(order))
            for order in FROM_ANOTHER_SERVICE[1:]:
                tasks.create_task(self._order_by_message(order, uuid4().hex))

    async def _order_by_command_line(self, order: dict[str, Any]) -> None:
        answer = await self.stage.programs.command("start", WORKFLOW, "--input", json.dumps(order), "--json")
        self.started.append(answer["process_id"])

    async def _order_by_message(self, order: dict[str, Any], message_id: str) -> dict[str, Any]:
        answer = await self.stage.start(WORKFLOW, order, message_id=message_id)
        if answer["created"]:
            self.started.append(answer["process_id"])
        return answer

    async def send_twice(self) -> None:
        """Do as a sender that is not sure whether its message arrived."""
        message_id = uuid4().hex
        first = await self._order_by_message(FROM_ANOTHER_SERVICE[0], message_id)
        second = await self._order_by_message(FROM_ANOTHER_SERVICE[0], message_id)
        created = json.dumps(second["created"])
        self.stage.screen.say(f"the same message again: process {second['process_id'][:8]}, created: {created}")
        self.repeated = (first, second)

    async def send_nonsense(self) -> None:
        start = self.stage.service.start
        self.refused = [
            await start("teleport_line", {}),
            await start(WORKFLOW, {**FROM_ANOTHER_SERVICE[0], "bandwidth": 1}),
        ]
        for answer in self.refused:
            self.stage.screen.say(f"refused: {answer.body.get('error')}: {answer.body.get('detail')}", "yellow")

    async def give_input(self) -> None:
        """Answer every process that asks for input, until all have asked."""
        answered: set[UUID] = set()

        async def asking() -> set[UUID]:
            found = await self.stage.values("SELECT process_id FROM processes WHERE status = 'suspended'")
            return set(found) - answered

        while len(answered) < ORDERS:
            for process_id in await self.stage.programs.until("a process asks for input", asking):
                page = json.dumps({"patch_position": f"A{len(answered) + 1}"})
                await self.stage.programs.command("resume", str(process_id), "--input", page, "--user", "noc", "--json")
                answered.add(process_id)

    async def kill_a_consumer(self) -> None:
        """Kill one in the middle of a step; nothing is started in its place."""
        what = f"a consumer is in the middle of '{LONG_STEP}'"
        victim = await self.stage.programs.until(what, self._freeze_a_consumer)
        await victim.kill()
        self.victims = await self.stage.values(_CLAIMED_BY, self.killed)
        if not self.victims:
            raise DemoError(f"the consumer {self.killed} was at nothing when it was killed")
        customers = ", ".join([await self._customer(one) for one in self.victims])
        words = f"kill -9 {victim.pid}: a consumer dies in the middle of its work for {customers}"
        self.stage.screen.say(words, "bold red")
        self.stage.screen.say("after 10 s of silence it is presumed dead, and the other one takes over", "red")

    async def _freeze_a_consumer(self) -> Program | None:
        """Freeze one in the middle of the step, so that it is still there when it is killed, however slow the machine is."""
        for name in await self.stage.values(_HALFWAY, LONG_STEP):
            victim = next(one for one in self.stage.consumers if name.endswith(f":{one.pid}"))
            victim.process.send_signal(signal.SIGSTOP)
            if name in await self.stage.values(_HALFWAY, LONG_STEP):
                self.killed = name
                return victim
            victim.process.send_signal(signal.SIGCONT)
        return None

    async def all_are_completed(self) -> bool:
        processes = await self.stage.processes()
        for one in processes:
            if one["status"] in {"failed", "aborted"}:  # it will not get better by waiting
                raise DemoError(
                    f"the process {one['process_id']} of {one['customer']} is {one['status']} at {one['step']!r}"
                )
        return len(processes) == ORDERS and all(one["status"] == "completed" for one in processes)

    async def all_has_come(self) -> bool:
        queues = await self.stage.place.queues()
        came = sum(map(len, self.events.values()))
        return (
            came >= len(await self.stage.rows(_LOG))
            and queues.pop("orchestrator.dead") > 0
            and not any(queues.values())
        )

    async def check_orders(self) -> None:
        screen = self.stage.screen
        ids = {str(one["process_id"]) for one in await self.stage.processes()}
        same = ids == set(self.started) and len(self.started) == ORDERS
        screen.expect("each order made one process, and the repeated message none", same, ids)
        _, orders = await ask("GET", f"{self.stage.outside}/orders")
        right = [one["effects"] == 1 and one["calls"] > FAILURES_FIRST for one in orders.values()] == [True] * ORDERS
        what = "the provisioning service failed twice and then obeyed once for every idempotency key"
        screen.expect(what, right, orders)

    async def check_crash(self) -> None:
        expect_none, log = self.stage.screen.expect_none, await self.stage.rows(_LOG)
        lost = [
            row["process_id"] for row in log if row["name"] == "attempt lost" and self.killed in (row["note"] or "")
        ]
        what = f"the log says that the consumer {self.killed} died, and in which processes"
        expect_none(what, set(self.victims) - set(lost))
        done = {
            row["process_id"]: row["consumer"] for row in log if (row["name"], row["status"]) == (LONG_STEP, "success")
        }
        wrong = [one for one in self.victims if done.get(one) in {None, self.killed}]
        expect_none("what it was at was run again by the other one", wrong)
        counted = {one["process_id"] for one in await self.stage.processes() if one["lost"]}
        expect_none("no attempt is hidden: the lost ones are counted", set(self.victims) - counted)

    async def check_messages(self) -> None:
        expect, expect_none, place = self.stage.screen.expect, self.stage.screen.expect_none, self.stage.place
        first, second = self.repeated
        right = first["process_id"] == second["process_id"] and (first["created"], second["created"]) == (True, False)
        expect("the repeated message was answered with the same process", right, second)
        unknown, incomplete = self.refused
        right = unknown.type == "workflow.refused" and unknown.body.get("detail")
        expect("an unknown workflow was refused with a reason", right, unknown)
        named = any("bandwidth" in reason.get("loc", []) for reason in incomplete.body.get("reasons", []))
        right = incomplete.type == "workflow.refused" and named
        expect("a wrong order was refused, naming the field", right, incomplete)
        may = await may_publish(place.field_url, "orchestrator.commands", "workflow.start")
        expect("the field worker's account may not start workflows", not may, "the broker lets it")
        wanted: dict[str, list[int]] = {}
        for row in await self.stage.rows(_LOG):
            wanted.setdefault(str(row["process_id"]), []).append(row["sequence"])
        wrong = [key for key, numbers in wanted.items() if self.events.get(key) != numbers]
        expect_none("every entry of every log was an event, in order", wrong)
        full = {name for name, messages in (await place.queues()).items() if messages and name != "orchestrator.dead"}
        expect_none("all queues are empty but the dead letters'", full)
        dead = await read_dead_letters(place.amqp_url)
        right = len(dead) == 1 and str(unknown.body.get("detail")) in dead[0]
        expect("the only dead letter is the unknown workflow's, with the reason", right, dead)
