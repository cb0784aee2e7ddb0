"""Programs that are killed (SIGKILL) between a commit and the publication of what it means: no event is lost, the order stays."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import aio_pika
import pytest

from orchestrator.broker.topology import Exchanges
from tests.integration.cli_servers import Cli, project
from tests.integration.letter_bench import publish
from tests.integration.test_broker import letters

KILLER = """
import os, signal
from pathlib import Path
from orchestrator.broker.publisher import Publisher

kind, after = os.environ["KILL_AT"], int(os.environ["KILL_AFTER"])
publish, seen = Publisher.publish, []

async def publish_or_die(self, message):
    if message.type == kind:
        seen.append(message)
        if len(seen) > after:
            # What this message is about is committed; it was not sent.
            os.kill(os.getpid(), signal.SIGKILL)
    return await publish(self, message)

Publisher.publish = publish_or_die

if kind == "next step":
    # The statement that stores a step and claims the next is committed; that one has not begun.
    from consumers.run_ahead import Stretch
    hold, held = Stretch.hold, []

    def hold_or_die(self, *stored):
        held.append(stored)
        if len(held) > after:
            os.kill(os.getpid(), signal.SIGKILL)
        hold(self, *stored)

    Stretch.hold = hold_or_die
"""


TWO = """
from orchestrator.registry import LazyWorkflowInstance
from orchestrator.workflow import StepList, begin, done, step, workflow

LazyWorkflowInstance("two", "two_steps")

@step("First")
async def first() -> None: ...

@step("Second")
async def second() -> None: ...

@workflow("Two steps")
def two_steps() -> StepList:
    return begin >> first >> second >> done
"""


async def follow(url: str) -> None:
    """Bind a queue to all events."""
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        exchange = await channel.declare_exchange(Exchanges.EVENTS, "topic", durable=True)
        queue = await channel.declare_queue("mine", durable=True)
        await queue.bind(exchange, "#")


@pytest.mark.parametrize(
    ("victim", "kind", "after"),
    [
        ("coordinator", "process.event", 0),  # a start was committed, and none of its events was published
        ("coordinator", "step.event", 1),  # an outcome was committed, and its event was not published
        ("coordinator", "step.command", 0),  # events were published, and the next command was not
        ("consumer", "step.result", 0),  # an outcome was committed, and its result was not published
        ("consumer", "next step", 0),  # an outcome was committed with the claim of the next step, which has not begun
    ],
)
def test_every_log_entry_is_an_event_in_order_although_a_program_was_killed_before_it_published(
    tmp_path: Path, database_url: str, amqp_url: str, victim: str, kind: str, after: int
) -> None:
    made = project(tmp_path, database_url, amqp_url)
    cli = Cli(made.folder, made.environment | {"ORCHESTRATOR_WORKFLOWS": "flows,two"})
    (tmp_path / "killer.py").write_text(KILLER)
    (tmp_path / "two.py").write_text(TWO)
    cli("db", "migrate-workflows", "--message", "register")
    cli("db", "upgrade")
    quick = {
        "ORCHESTRATOR_REDISPATCH_AFTER": "2",
        "ORCHESTRATOR_RECONCILE_INTERVAL": "0.2",
        "ORCHESTRATOR_PRESUMED_DEAD_AFTER": "5",
        "ORCHESTRATOR_RUN_AHEAD": "20" if kind == "next step" else "0",
    }
    healthy = Cli(cli.folder, cli.environment | quick)
    deadly = Cli(
        cli.folder,
        healthy.environment | {"ORCHESTRATOR_WORKFLOWS": "flows,two,killer", "KILL_AT": kind, "KILL_AFTER": str(after)},
    )
    other = "consumer" if victim == "coordinator" else "coordinator"
    asyncio.run(follow(amqp_url))
    with healthy.program(other), deadly.program(victim) as program:
        cli.until(cli.is_reading)
        body: dict[str, Any] = {"workflow": "greet", "inputs": [{"name": "ana"}, {"tone": "kind"}]}
        if kind == "next step":
            body = {"workflow": "two_steps"}
        asyncio.run(
            publish(amqp_url, Exchanges.COMMANDS, "workflow.start", json.dumps(body).encode(), message_id="order")
        )
        assert program.wait() == -signal.SIGKILL
        with healthy.program(victim):
            cli.until(lambda: [one["status"] for one in cli.json("list")] == ["completed"])
            (process,) = cli.json("list")
            taken: list[dict[str, Any]] = []

            def has_all() -> bool:
                taken.extend(json.loads(one.body) for one in asyncio.run(letters(amqp_url, "mine")))
                return {one["sequence"] for one in taken} == set(range(1, process["sequence"] + 1))

            cli.until(has_all)
    firsts = list(dict.fromkeys(one["sequence"] for one in taken))
    assert firsts == list(range(1, process["sequence"] + 1)), "repetitions aside, in order and without gaps"
    log = cli.json("show", process["process_id"])["log"]
    assert {one["sequence"]: one["status"] for one in taken} == {one["sequence"]: one["status"] for one in log}
    done = [one["name"] for one in log if one["kind"] == "step"]
    assert len(done) == len(set(done)), "each step has succeeded once"
    lost = [one["name"] for one in log if one["name"] == "attempt lost"]
    assert len(lost) == (kind == "next step"), "only of the step that was claimed"
