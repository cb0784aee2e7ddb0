"""The first story: five lines are provisioned, and a consumer is killed. What must be true afterwards is counted."""

from __future__ import annotations

import json
import signal
import time
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import aio_pika
from aiormq.exceptions import ChannelAccessRefused

from tests.acceptance.client import Received

from .patience import DemoError
from .screen import STYLES
from .stage import NO_STEP_TWICE, Stage

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


def tell_of_lines(stage: Stage) -> None:
    """Tell the story, then check everything."""
    began = time.monotonic()
    story = _Lines(stage)
    stage.see = story.see
    stage.screen.headline(f"{ORDERS} orders, from the command line and as bare AMQP messages")
    story.send_twice()
    story.send_nonsense()
    story.place_orders()
    stage.until("every process is completed", story.go_on)
    stage.until("every event has come and every queue is empty", story.all_has_come)
    took = time.monotonic() - began

    screen = stage.screen
    screen.headline("Processes")
    columns = "customer process started_by status steps skipped attempts tried_again lost seconds"
    screen.table(stage.processes(), columns)
    title = "The audit trail of one that lost its consumer: orchestrator show"
    screen.plain(title, stage.command("show", str(story.victims[0])).stdout)
    title = "The queues as an operator sees them: orchestrator topology show"
    screen.plain(title, stage.command("topology", "show").stdout)
    screen.headline("Is everything as it should be?")
    stage.expect_facts(_FACTS)
    story.check_orders()
    story.check_crash()
    story.check_messages()
    screen.console.print()
    screen.say(f"{took:.0f} s from the first order to the last event")


@dataclass(slots=True)
class _Lines:
    stage: Stage
    started: list[str] = field(default_factory=list)
    events: dict[str, list[int]] = field(default_factory=dict)  # by process, in the order in which they came
    customers: dict[str, str] = field(default_factory=dict)
    repeated: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    refused: list[Received] = field(default_factory=list)
    answered: set[UUID] = field(default_factory=set)
    killed: str = ""
    victims: list[UUID] = field(default_factory=list)

    def see(self, event: dict[str, Any]) -> None:
        self.stage.screen.patience.sign()
        process_id, sequence = event["process_id"], event["sequence"]
        if sequence in self.events.setdefault(process_id, []):
            return  # at least once
        self.events[process_id].append(sequence)
        if process_id not in self.customers:
            self.customers[process_id] = self._customer(UUID(process_id))
        if "step" in event:
            status = event["status"]
            words = f"{self.customers[process_id]:<8} {event['step']}: {status.replace('_', ' ')}"
            self.stage.screen.say(words, STYLES.get(status, ""))

    def _customer(self, process_id: UUID) -> str:
        query = "SELECT state ->> 'customer' FROM processes WHERE process_id = $1"
        return str((self.stage.values(query, process_id))[0])

    def place_orders(self) -> None:
        for order in FROM_COMMAND_LINE:
            self.started.append(self.stage.json("start", WORKFLOW, "--input", json.dumps(order))["process_id"])
        for order in FROM_ANOTHER_SERVICE[1:]:
            self._order_by_message(order, uuid4().hex)

    def _order_by_message(self, order: dict[str, Any], message_id: str) -> dict[str, Any]:
        answer = self.stage.order(WORKFLOW, order, message_id=message_id)
        if answer["created"]:
            self.started.append(answer["process_id"])
        return answer

    def send_twice(self) -> None:
        """Do as a sender that is not sure whether its message arrived."""
        message_id = uuid4().hex
        first = self._order_by_message(FROM_ANOTHER_SERVICE[0], message_id)
        second = self._order_by_message(FROM_ANOTHER_SERVICE[0], message_id)
        created = json.dumps(second["created"])
        self.stage.screen.say(f"the same message again: process {second['process_id'][:8]}, created: {created}")
        self.repeated = (first, second)

    def send_nonsense(self) -> None:
        start = self.stage.ask_to_start
        self.refused = [
            start("teleport_line", {}),
            start(WORKFLOW, {**FROM_ANOTHER_SERVICE[0], "bandwidth": 1}),
        ]
        for answer in self.refused:
            self.stage.screen.say(f"refused: {answer.body.get('error')}: {answer.body.get('detail')}", "yellow")

    def go_on(self) -> bool:
        """Do what is to be done meanwhile; return whether all are completed."""
        self._give_input()
        if not self.killed:
            self._kill_a_consumer()
        processes = self.stage.processes()
        for one in processes:
            if one["status"] in {"failed", "aborted"}:  # it will not get better by waiting
                raise DemoError(
                    f"the process {one['process_id']} of {one['customer']} is {one['status']} at {one['step']!r}"
                )
        return len(processes) == ORDERS and all(one["status"] == "completed" for one in processes)

    def _give_input(self) -> None:
        """Answer a process that asks for input."""
        asking = set(self.stage.values("SELECT process_id FROM processes WHERE status = 'suspended'")) - self.answered
        for process_id in list(asking)[:1]:
            page = json.dumps({"patch_position": f"A{len(self.answered) + 1}"})
            self.stage.command("resume", str(process_id), "--input", page, "--user", "noc", "--json")
            self.answered.add(process_id)

    def _kill_a_consumer(self) -> None:
        """Kill one that is in the middle of a step; nothing is started in its place.

        It is frozen first, so that it is still in the step when it is killed, however slow the machine is.
        """
        for name in self.stage.values(_HALFWAY, LONG_STEP):
            victim = next(one for one in self.stage.consumers if name.endswith(f":{one.pid}"))
            victim.signal(signal.SIGSTOP)
            if name not in self.stage.values(_HALFWAY, LONG_STEP):
                victim.signal(signal.SIGCONT)
                continue
            self.stage.lost.add(victim.pid)
            victim.kill()
            self.killed, self.victims = name, self.stage.values(_CLAIMED_BY, name)
            if not self.victims:
                raise DemoError(f"the consumer {name} was at nothing when it was killed")
            customers = ", ".join(map(self._customer, self.victims))
            words = f"kill -9 {victim.pid}: a consumer dies in the middle of its work for {customers}"
            self.stage.screen.say(words, "bold red")
            self.stage.screen.say("after 10 s of silence it is presumed dead, and the other one takes over", "red")
            return

    def all_has_come(self) -> bool:
        queues = self.stage.place.queues()
        came = sum(map(len, self.events.values()))
        return came >= len(self.stage.rows(_LOG)) and queues.pop("orchestrator.dead") > 0 and not any(queues.values())

    def check_orders(self) -> None:
        screen = self.stage.screen
        ids = {str(one["process_id"]) for one in self.stage.processes()}
        same = ids == set(self.started) and len(self.started) == ORDERS
        screen.expect("each order made one process, and the repeated message none", same, ids)
        orders = self.stage.outside.ask("/orders")
        right = [one["effects"] == 1 and one["calls"] > FAILURES_FIRST for one in orders.values()] == [True] * ORDERS
        what = "the provisioning service failed twice and then obeyed once for every idempotency key"
        screen.expect(what, right, orders)

    def check_crash(self) -> None:
        expect_none, log = self.stage.screen.expect_none, self.stage.rows(_LOG)
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
        counted = {one["process_id"] for one in self.stage.processes() if one["lost"]}
        expect_none("no attempt is hidden: the lost ones are counted", set(self.victims) - counted)

    def check_messages(self) -> None:
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
        may = self.stage.background.run(_may_publish(place.field_url, "orchestrator.commands", "workflow.start"))
        expect("the field worker's account may not start workflows", not may, "the broker lets it")
        wanted: dict[str, list[int]] = {}
        for row in self.stage.rows(_LOG):
            wanted.setdefault(str(row["process_id"]), []).append(row["sequence"])
        wrong = [key for key, numbers in wanted.items() if self.events.get(key) != numbers]
        expect_none("every entry of every log was an event, in order", wrong)
        full = {name for name, messages in (place.queues()).items() if messages and name != "orchestrator.dead"}
        expect_none("all queues are empty but the dead letters'", full)
        dead = [str(one.headers.get("x-reason")) for one in self.stage.client.dead_letters()]
        right = len(dead) == 1 and str(unknown.body.get("detail")) in dead[0]
        expect("the only dead letter is the unknown workflow's, with the reason", right, dead)


async def _may_publish(url: str, exchange: str, key: str) -> bool:
    """Return whether the broker lets an account write to an exchange."""
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        try:
            await (await channel.get_exchange(exchange, ensure=False)).publish(aio_pika.Message(b"{}"), key)
        except ChannelAccessRefused:
            return False
        return True
