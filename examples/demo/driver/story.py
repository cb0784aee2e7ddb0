"""The parts of the first story: starting the programs, placing orders, answering, killing, waiting."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from .amqp import Answer, OtherService
from .books import Books
from .corner import Corner
from .errors import DemoError
from .programs import REPOSITORY, Program, Programs
from .screen import Screen

WORKFLOW = "provision_line"
LONG_STEP = "Burn in the line"

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


@dataclass(slots=True)
class Demo:
    """One run."""

    screen: Screen
    corner: Corner
    programs: Programs
    books: Books
    started: list[str] = field(default_factory=list)
    events: dict[str, list[int]] = field(default_factory=dict)
    customers: dict[str, str] = field(default_factory=dict)
    provisioning_url: str = ""
    consumers: list[Program] = field(default_factory=list)

    async def start_programs(self) -> None:
        """Migrate, then start everything and wait until it works."""
        say, programs = self.screen.say, self.programs
        heads = (await programs.command("db", "upgrade", "--json"))["heads"]
        say(f"database {self.corner.name} migrated: {', '.join(heads)}")
        here = REPOSITORY / "examples" / "demo"
        service, self.provisioning_url = await programs.start_talking(
            "provisioning-service", [sys.executable, here / "provisioning_service.py"]
        )
        worker, _ = await programs.start_talking(
            "field-worker", [sys.executable, here / "field_worker.py"], {"FIELD_AMQP_URL": self.corner.field_url}
        )
        say(f"provisioning service (pid {service.pid}) and field worker (pid {worker.pid}) run")
        environment = {"DEMO_PROVISIONING_URL": self.provisioning_url, "DEMO_AMQP_URL": self.corner.amqp_url}
        coordinator, self.consumers = await programs.start_engine(environment)
        pids = ", ".join(str(consumer.pid) for consumer in self.consumers)
        say(f"coordinator (pid {coordinator.pid}) and two consumers (pids {pids}) run")

    async def see(self, event: dict[str, Any]) -> None:
        """One event of the engine."""
        process_id, sequence = event["process_id"], event["sequence"]
        if sequence in self.events.setdefault(process_id, []):
            return  # at least once
        self.events[process_id].append(sequence)
        if process_id not in self.customers:
            self.customers[process_id] = await self.books.customer(process_id)
        self.screen.event(self.customers[process_id], event)

    async def order_by_command_line(self, order: dict[str, Any]) -> None:
        """As a person would."""
        answer = await self.programs.command("start", WORKFLOW, "--input", json.dumps(order), "--json")
        self.started.append(answer["process_id"])

    async def order_by_message(self, service: OtherService, order: dict[str, Any], message_id: str) -> Answer:
        """As another service would."""
        answer = await service.start(WORKFLOW, order, message_id=message_id)
        if answer.type != "workflow.started":
            raise DemoError(f"the order of {order['customer']} was refused: {answer.body}")
        if answer.body["created"]:
            self.started.append(answer.body["process_id"])
        return answer

    async def place_orders(self, service: OtherService) -> None:
        """All of them at once."""
        async with asyncio.TaskGroup() as tasks:
            for order in FROM_COMMAND_LINE:
                tasks.create_task(self.order_by_command_line(order))
            for order in FROM_ANOTHER_SERVICE[1:]:
                tasks.create_task(self.order_by_message(service, order, uuid4().hex))

    async def send_twice(self, service: OtherService) -> tuple[Answer, Answer]:
        """A sender that is not sure whether its message arrived sends it again."""
        message_id = uuid4().hex
        first = await self.order_by_message(service, FROM_ANOTHER_SERVICE[0], message_id)
        second = await self.order_by_message(service, FROM_ANOTHER_SERVICE[0], message_id)
        created = json.dumps(second.body["created"])
        self.screen.say(f"the same message again: process {second.body['process_id'][:8]}, created: {created}")
        return first, second

    async def send_nonsense(self, service: OtherService) -> tuple[Answer, Answer]:
        """What cannot be done is refused with the reason."""
        unknown = await service.start("teleport_line", {})
        wrong = await service.start(WORKFLOW, {**FROM_ANOTHER_SERVICE[0], "bandwidth": 1})
        for answer in (unknown, wrong):
            self.screen.say(f"refused: {answer.body.get('error')}: {answer.body.get('detail')}", "yellow")
        return unknown, wrong

    async def give_input(self) -> None:
        """Answer every process that asks for input, until all have asked."""
        answered: set[UUID] = set()

        async def asking() -> list[UUID]:
            return [one for one in await self.books.suspended() if one not in answered]

        while len(answered) < ORDERS:
            for process_id in await self.programs.until("a process asks for input", asking):
                answer = json.dumps({"patch_position": f"A{len(answered) + 1}"})
                await self.programs.command("resume", str(process_id), "--input", answer, "--user", "noc", "--json")
                answered.add(process_id)

    async def freeze_a_consumer(self) -> tuple[str, Program] | None:
        """Stop a consumer that is in the middle of the step, so that it is still there when it is killed, however slow we are."""
        name = await self.books.halfway(LONG_STEP)
        if name is None:
            return None
        victim = next((one for one in self.consumers if name.endswith(f":{one.pid}")), None)
        if victim is None:
            raise DemoError(f"the consumer {name} is none of ours")
        victim.process.send_signal(signal.SIGSTOP)
        if await self.books.halfway(LONG_STEP) == name:
            return name, victim
        victim.process.send_signal(signal.SIGCONT)
        return None

    async def kill_a_consumer(self) -> tuple[str, list[UUID]]:
        """Kill -9 in the middle of a step; nothing is started in its place."""
        name, victim = await self.programs.until(
            f"a consumer is in the middle of '{LONG_STEP}'", self.freeze_a_consumer
        )
        victim.kill()
        await victim.process.wait()
        processes = await self.books.claimed_by(name)
        customers = ", ".join([await self.books.customer(str(one)) for one in processes])
        if not processes:
            raise DemoError(f"the consumer {name} was at nothing when it was killed: too late")
        self.screen.say(f"kill -9 {victim.pid}: a consumer dies in the middle of its work for {customers}", "bold red")
        self.screen.say("after 10 s of silence it is presumed dead, and the other one takes over", "red")
        return name, processes

    async def all_are_completed(self) -> bool:
        """Whether nothing is left to do. A process that has failed will not get better by waiting."""
        processes = await self.books.processes()
        for one in processes:
            if one.status in {"failed", "aborted"}:
                raise DemoError(f"the process {one.process_id} of {one.customer} is {one.status} at {one.step!r}")
        return len(processes) == ORDERS and all(one.status == "completed" for one in processes)

    async def all_is_told(self) -> bool:
        """Whether the last events have come, and the broker's figures show that nothing is left in the queues."""
        log = await self.books.log()
        told = sum(len(numbers) for numbers in self.events.values())
        queues = await self.corner.queues()
        busy = [name for name, queue in queues.items() if queue.get("messages", 0) and name != "orchestrator.dead"]
        return told >= len(log) and not busy and queues["orchestrator.dead"].get("messages", 0) > 0
