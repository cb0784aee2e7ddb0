"""Is everything as it should be? Counted afterwards, from the rows, the queues and the other programs' own books."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from .amqp import Answer
from .books import Process
from .story import LONG_STEP

BURN_IN_ROUNDS = 10
FAILURES_FIRST = 2


@dataclass(frozen=True, slots=True)
class Check:
    """A statement, and what is wrong with it; nothing if it is true."""

    statement: str
    wrong: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the checks look at.

    Args:
        callbacks: the callbacks' rows, without their tokens.
        started: the ids of the processes that the starts were answered with.
        repeated: the answer to the message that was sent a second time, and to the first.
        unknown: the answer to the start of a workflow that does not exist.
        incomplete: the answer to an order that is wrong.
        killed: the consumer's name, and the processes that it was at.
        events: for each process the numbers of its events, in the order in which they came.
        dead_letters: their reasons.
        field_may_order: whether the broker lets the field worker's account start workflows.
    """

    processes: list[Process]
    lines: list[dict[str, Any]]
    log: list[dict[str, Any]]
    callbacks: list[dict[str, Any]]
    started: list[str]
    repeated: tuple[Answer, Answer]
    unknown: Answer
    incomplete: Answer
    killed: tuple[str, list[UUID]]
    orders: dict[str, Any]
    events: dict[str, list[int]]
    queues: dict[str, dict[str, Any]]
    dead_letters: list[str]
    field_may_order: bool


async def placed_orders(url: str) -> dict[str, Any]:
    """The provisioning service's own books."""

    def ask() -> dict[str, Any]:
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        try:
            connection.request("GET", "/orders")
            return dict(json.loads(connection.getresponse().read()))
        finally:
            connection.close()

    return await asyncio.to_thread(ask)


def judge(evidence: Evidence) -> list[Check]:
    """All checks."""
    return [*_processes(evidence), *_effects(evidence), *_crash(evidence), *_messages(evidence)]


def _processes(seen: Evidence) -> Iterator[Check]:
    open_ones = [f"{one.customer}: {one.status} at {one.step!r}" for one in seen.processes if one.status != "completed"]
    yield Check("every process is completed", ", ".join(open_ones))
    ids = sorted(str(one.process_id) for one in seen.processes)
    yield Check(
        "each order made one process, and the repeated message none",
        "" if ids == sorted(seen.started) else f"{len(ids)} processes for {len(seen.started)} orders",
    )
    done = Counter(
        (row["process_id"], row["name"])
        for row in seen.log
        if row["kind"] == "step" and row["status"] in {"success", "complete"}
    )
    twice = [f"{name} of {process_id}" for (process_id, name), times in done.items() if times > 1]
    yield Check("no step has succeeded twice", ", ".join(twice))
    wrong = [one.customer for one in seen.processes if one.skipped != (0 if one.protection else 1)]
    yield Check("the conditional step was skipped for those who did not want it", ", ".join(wrong))
    wrong = [one.customer for one in seen.processes if one.tried_again < 1]
    yield Check("the step that failed was tried again by itself in every process", ", ".join(wrong))


def _effects(seen: Evidence) -> Iterator[Check]:
    ids = Counter(line["process_id"] for line in seen.lines)
    wrong = [one.customer for one in seen.processes if ids[one.process_id] != 1]
    strangers = set(ids) - {one.process_id for one in seen.processes}
    yield Check(
        "the inventory has exactly one line per process",
        ", ".join(wrong) or (f"{len(strangers)} lines of no process" if strangers else ""),
    )
    ports = Counter((line["node"], line["port"]) for line in seen.lines)
    yield Check(
        "no port was given away twice", ", ".join(f"{node}/{port}" for (node, port), n in ports.items() if n > 1)
    )
    yield Check("every line is in service", _ports(line for line in seen.lines if line["status"] != "in service"))
    wishes = {one.process_id: one.protection for one in seen.processes}
    yield Check(
        "the protected lines are the ones ordered",
        _ports(line for line in seen.lines if line["protected"] != wishes.get(line["process_id"])),
    )
    yield Check(
        "every line's burn-in test has left one row, and the lost one none",
        _ports(line for line in seen.lines if line["burn_ins"] != 1 or line["rounds"] != BURN_IN_ROUNDS),
    )
    wrong = [key for key, order in seen.orders.items() if order["effects"] != 1 or order["calls"] <= FAILURES_FIRST]
    yield Check(
        "the provisioning service failed twice and then obeyed once for every idempotency key",
        ", ".join(wrong) or ("" if len(seen.orders) == len(seen.processes) else f"it knows {len(seen.orders)} keys"),
    )


def _ports(lines: Iterable[dict[str, Any]]) -> str:
    return ", ".join(f"{line['node']}/{line['port']}" for line in lines)


def _crash(seen: Evidence) -> Iterator[Check]:
    consumer, victims = seen.killed
    lost = {row["process_id"] for row in seen.log if row["name"] == "attempt lost" and consumer in (row["note"] or "")}
    missing = [str(one) for one in victims if one not in lost]
    yield Check(f"the log tells that the consumer {consumer} died, and in which processes", ", ".join(missing))
    again = {
        row["process_id"]: row["consumer"]
        for row in seen.log
        if row["name"] == LONG_STEP and row["status"] == "success"
    }
    wrong = [str(one) for one in victims if again.get(one) in {None, consumer}]
    yield Check("what it was at was run again by the other one", ", ".join(wrong))
    wrong = [one.customer for one in seen.processes if one.process_id in victims and one.lost < 1]
    yield Check("no attempt is hidden: the lost ones are counted", ", ".join(wrong))


def _messages(seen: Evidence) -> Iterator[Check]:
    first, second = seen.repeated
    same = first.body.get("process_id") == second.body.get("process_id")
    yield Check(
        "the repeated message was answered with the same process",
        "" if same and first.body.get("created") is True and second.body.get("created") is False else str(second),
    )
    bad = [str(row["process_id"]) for row in seen.callbacks if not row["progress"]]
    yield Check("the field worker's progress was noted for every job", ", ".join(bad))
    bad = [str(row["process_id"]) for row in seen.callbacks if row["status"] != "used" or not row["forgotten"]]
    yield Check(
        "one callback token per process: used once, and not kept",
        ", ".join(bad) or ("" if len(seen.callbacks) == len(seen.processes) else f"{len(seen.callbacks)} tokens"),
    )
    yield Check(
        "an unknown workflow was refused in words",
        "" if seen.unknown.type == "workflow.refused" and seen.unknown.body.get("detail") else str(seen.unknown),
    )
    named = any("bandwidth" in reason.get("loc", []) for reason in seen.incomplete.body.get("reasons", []))
    yield Check(
        "a wrong order was refused, naming the field",
        "" if seen.incomplete.type == "workflow.refused" and named else str(seen.incomplete),
    )
    yield Check(
        "the field worker's account may not start workflows",
        "the broker lets it" if seen.field_may_order else "",
    )
    wanted: dict[str, list[int]] = {}
    for row in seen.log:
        wanted.setdefault(str(row["process_id"]), []).append(row["sequence"])
    wrong = [key for key, numbers in wanted.items() if list(dict.fromkeys(seen.events.get(key, []))) != numbers]
    yield Check("every entry of every log was an event, in order", ", ".join(wrong))
    full = [
        f"{name}: {queue.get('messages', 0)}"
        for name, queue in seen.queues.items()
        if queue.get("messages", 0) and name != "orchestrator.dead"
    ]
    yield Check("all queues are empty but the dead letters'", ", ".join(full))
    unknown = str(seen.unknown.body.get("detail", "?"))
    yield Check(
        "the only dead letter is the unknown workflow's, with the reason",
        ""
        if len(seen.dead_letters) == 1 and unknown in seen.dead_letters[0]
        else "; ".join(seen.dead_letters) or "none",
    )
