"""Break the servers one after the other while processes run; then nothing may be lost, doubled or missing."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import aio_pika
import asyncpg

from tests.acceptance.chaos import PATIENT, exactly_once, flood
from tests.acceptance.installation import Installation
from tests.acceptance.waiting import until
from tests.acceptance.workflows.basic import LINKS
from tests.cluster import audit
from tests.cluster.machine import Machine
from tests.cluster.postgres import Pair
from tests.cluster.rabbitmq import Cluster

VARIANTS = {"one": "one address before the servers", "several": "several hosts in the URLs"}
FAULTS = ("leader", "quorum", "frozen", "primary", "silent")
STEPS_QUEUE = "orchestrator.steps.default"
LONG = 200
"""Steps of the workflow ``long_chain``, which shows how long nothing went on."""
GIVE_UP_AFTER = 300.0


@dataclass(frozen=True)
class Figures:
    """What one fault has done."""

    variant: str
    fault: str
    steps: int
    stood_still: float
    """The longest time in which no step was completed."""
    took: float
    lost: int
    """Attempts that were lost and made again."""


class Chaos:
    """Servers, programs and load of one variant."""

    def __init__(
        self, machine: Machine, cluster: Cluster, pair: Pair, variant: str, options: argparse.Namespace
    ) -> None:
        self.machine, self.cluster, self.pair = machine, cluster, pair
        self.variant, self.options = variant, options
        amqp, postgres = cluster.ports, [server.port for server in pair.servers]
        self.gates = [machine.port(), machine.port()]
        if variant == "one":
            urls = pair.url(self.gates[1]), cluster.url(self.gates[0])
        else:
            urls = pair.url(*postgres), cluster.url(*amqp)
        self.engine = Installation(machine.folder / variant, *urls, **PATIENT)
        # What the tests themselves use is one address: their clients know no other.
        self.engine.client.url = cluster.url(self.gates[0])
        self.database = pair.url(self.gates[1]).replace("+asyncpg", "")
        self.process_ids: list[UUID] = []
        self._open_gate(self.gates[0], amqp)
        self._open_gate(
            self.gates[1],
            postgres,
            GATEWAY_DATABASE=pair.url(0).replace("+asyncpg", "").replace(":0/", ":{port}/")
            + "?target_session_attrs=read-write",
        )

    def _open_gate(self, port: int, servers: Sequence[int], **variables: str) -> None:
        gate = self.machine.daemon(
            f"gateway-{port}",
            [sys.executable, "-m", "tests.cluster.gateway", str(port), *map(str, servers)],
            place=self.machine.folder,
            user=os.geteuid(),
            variables={**self.engine.environment, **variables},
        )
        gate.wait_for_port(port)

    def start(self) -> None:
        """Migrate, start two coordinators and two consumers, and begin to record the events."""
        self.engine.migrate()
        programs = [self.engine.coordinator(), self.engine.coordinator()]
        programs += [self.engine.consumer("--concurrency", "4"), self.engine.consumer("--concurrency", "4")]
        for program in programs:
            program.ready()
        self.engine.background.run(audit.bind(self.engine.client.url))

    def run(self, fault: str) -> Figures:
        """Put load on, break something in the middle of it, repair it, wait until all is done, and check."""
        steps = self.count()
        process_ids = [self.engine.start("long_chain") for _ in range(self.options.load)]
        process_ids += flood(self.engine, 4 * self.options.load, key=fault)
        self.process_ids += process_ids
        until(lambda: self.count() > steps + 30, "the load is in full swing", 60)
        began = self.ask("SELECT clock_timestamp()")
        say(f"  {fault}: {self.describe(fault)}")
        getattr(self, f"break_{fault}")()
        until(lambda: self.are_done(process_ids), f"all {len(process_ids)} processes are completed", GIVE_UP_AFTER, 0.5)
        self.check()
        gap, took = self.engine.query(
            """SELECT max(extract(epoch FROM gap)), extract(epoch FROM max(finished_at) - $1)
                 FROM (SELECT finished_at, finished_at - lag(finished_at) OVER (ORDER BY finished_at) AS gap
                         FROM process_steps WHERE kind = 'step' AND status = 'success') s
                WHERE finished_at > $1""",
            began,
        )[0]
        lost = self.engine.value(
            "SELECT count(*) FROM process_steps WHERE name = 'attempt lost' AND finished_at > $1", began
        )
        figures = Figures(self.variant, fault, self.count() - steps, float(gap), float(took), lost)
        say(f"    {figures.steps} steps, stood still for {figures.stood_still:.1f} s, {figures.lost} attempts lost")
        return figures

    def describe(self, fault: str) -> str:
        """Return what a fault is."""
        return {
            "leader": "the node that leads the steps' queue is killed, and started again",
            "quorum": f"two of three nodes are killed, and started again after {self.options.down:g} s",
            "frozen": f"the node that leads the steps' queue is frozen for {self.options.down:g} s",
            "primary": "PostgreSQL's primary is killed, and the standby promoted",
            "silent": "PostgreSQL's primary is frozen, and the standby promoted",
        }[fault]

    def break_leader(self) -> None:
        """Kill the queue's leader."""
        node = self.cluster.leader_of(STEPS_QUEUE)
        node.kill()
        self.wait_for_steps(20)
        node.start()
        node.wait()

    def break_quorum(self) -> None:
        """Kill two nodes, so that no queue can confirm anything."""
        leader = self.cluster.leader_of(STEPS_QUEUE)
        killed = [leader, next(node for node in self.cluster.nodes if node is not leader)]
        for node in killed:
            node.kill()
        time.sleep(self.options.down)
        for node in killed:
            node.start()
        for node in killed:
            node.wait()

    def break_frozen(self) -> None:
        """Freeze the queue's leader."""
        node = self.cluster.leader_of(STEPS_QUEUE)
        node.freeze()
        try:
            time.sleep(self.options.down)
        finally:
            node.thaw()

    def break_primary(self) -> None:
        """Kill the primary."""
        self.pair.primary.kill()
        self.fail_over()

    def break_silent(self) -> None:
        """Freeze the primary, as a machine does that loses its power or the network: no connection is closed."""
        self.pair.primary.freeze()
        self.fail_over()

    def fail_over(self) -> None:
        """Promote the standby; when work goes on, the old primary is ended and becomes the new one's standby."""
        self.pair.fail_over()
        self.wait_for_steps(20)
        self.pair.join()

    def wait_for_steps(self, number: int) -> None:
        """Wait until steps are completed again."""
        seen = until(self.count, "the database answers", GIVE_UP_AFTER, 0.5)
        until(lambda: self.count() > seen + number, "steps are completed again", GIVE_UP_AFTER, 0.2)

    def count(self) -> int:
        """Return how many steps have been completed; 0 while the database does not answer."""
        return int(self.ask("SELECT count(*) FROM process_steps WHERE kind = 'step' AND status = 'success'") or 0)

    def are_done(self, process_ids: list[UUID]) -> bool:
        """Return whether all are completed. A process that is not there at all was lost."""
        completed = "SELECT count(*) FROM processes WHERE status = 'completed' AND process_id = ANY($1::uuid[])"
        return bool(self.ask(completed, process_ids) == len(process_ids))

    def ask(self, statement: str, *arguments: object) -> Any:
        """Return a value, or None while the database does not answer."""
        try:
            return self.engine.background.run(self._ask(statement, *arguments))
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
            return None

    async def _ask(self, statement: str, *arguments: object) -> Any:
        connection = await asyncpg.connect(self.database, timeout=3, command_timeout=5)
        try:
            return await connection.fetchval(statement, *arguments)
        finally:
            connection.terminate()

    def check(self) -> None:
        """Every step of every process has had its effect once, in order, and all programs live."""
        exactly_once(self.engine)
        wrong = self.engine.query(
            """SELECT p.process_id, p.workflow, count(e.step) FROM processes p LEFT JOIN effects e USING (process_id)
                WHERE p.process_id = ANY($1::uuid[]) GROUP BY 1, 2
               HAVING count(e.step) <> CASE p.workflow WHEN 'chain' THEN $2::int ELSE $3::int END""",
            self.process_ids,
            LINKS,
            LONG,
        )
        assert wrong == [], f"effects are missing or too many: {wrong}"
        ended = [program.name for program in self.engine.programs if not program.runs]
        assert ended == [], f"programs have ended: {ended}"

    def finish(self) -> audit.Comparison:
        """Stop the programs, and compare the recorded events with the log."""

        def newest() -> dict[UUID, int]:
            rows = self.engine.query("SELECT process_id, max(sequence) AS newest FROM process_steps GROUP BY 1")
            return {row["process_id"]: row["newest"] for row in rows}

        behind = """SELECT count(*) FROM processes p
                     WHERE announced < (SELECT max(sequence) FROM process_steps s WHERE s.process_id = p.process_id)"""
        until(lambda: self.ask(behind) == 0, "the coordinators have announced everything", 90, 1)
        dead = [one.headers.get("x-reason") for one in self.engine.client.dead_letters()]
        assert dead == [], f"dead letters: {dead}"
        codes = {program.name: program.stop() for program in self.engine.programs}
        assert set(codes.values()) == {0}, f"exit codes: {codes}"
        assert self.engine.defects() == [], "\n".join(self.engine.defects())
        events = self.engine.background.run(audit.drain(self.engine.client.url), 300)
        return audit.compare(events, newest())

    def clear(self) -> None:
        """End the programs, and leave an empty broker and database to the next variant."""
        self.engine.close()


async def drop_queues(url: str) -> None:
    """Delete the engine's queues and the recorded events."""
    connection = await aio_pika.connect(url, timeout=10)
    async with connection:
        channel = await connection.channel()
        names = ("commands", "results", "callbacks", "letters", "dead", "steps.default", "steps.tasks")
        for name in (*(f"orchestrator.{one}" for one in names), audit.QUEUE):
            await channel.queue_delete(name)


def say(text: str) -> None:
    """Print progress at once, also into a pipe."""
    print(text, flush=True)


def run(machine: Machine, options: argparse.Namespace) -> int:
    """Run the variants that were asked for; return the exit code."""
    began = time.monotonic()
    cluster, pair = Cluster(machine), Pair(machine)
    pair.start()
    cluster.start()
    say(f"three RabbitMQ nodes and a PostgreSQL pair are up after {time.monotonic() - began:.0f} s: {machine.folder}")
    figures: list[Figures] = []
    wrong = False
    for variant in options.variant or VARIANTS:
        say(f"{VARIANTS[variant]}:")
        with ExitStack() as stack:
            chaos = Chaos(machine, cluster, pair, variant, options)
            stack.callback(chaos.clear)
            chaos.start()
            figures += [chaos.run(fault) for fault in options.fault or FAULTS]
            events = chaos.finish()
            say(
                f"  events: {events.entries} log entries, missing {sum(map(len, events.missing.values()))},"
                f" unknown {sum(map(len, events.unknown.values()))}, twice {events.twice}, out of order {events.late}"
            )
            for kind in ("missing", "unknown"):
                for process_id, sequences in getattr(events, kind).items():
                    say(f"    {kind}: {process_id} {sequences}")
                    wrong = True
            asyncio.run(drop_queues(chaos.engine.client.url))
        pair.primary.query("DROP DATABASE chaos WITH (FORCE)")
        pair.primary.query("CREATE DATABASE chaos")
    say("")
    say(f"{'variant':<10}{'fault':<10}{'steps':>7}{'stood still':>14}{'attempts lost':>15}")
    for one in figures:
        say(f"{one.variant:<10}{one.fault:<10}{one.steps:>7}{one.stood_still:>12.1f} s{one.lost:>15}")
    say("nothing lost, nothing doubled, no event missing" if not wrong else "EVENTS ARE MISSING")
    return int(wrong)


def main() -> int:
    """Parse the command line, run, and end whatever was started, however that ends."""
    parser = argparse.ArgumentParser(prog="scripts/chaos-cluster", description=__doc__)
    parser.add_argument("--variant", action="append", choices=VARIANTS, help="default: both")
    parser.add_argument("--fault", action="append", choices=FAULTS, help="default: all, in this order")
    parser.add_argument(
        "--load", type=int, default=3, help="long processes for each fault (default 3), and four short ones each"
    )
    parser.add_argument("--down", type=float, default=20, help="seconds without quorum, and frozen (default 20)")
    parser.add_argument("--keep", action="store_true", help="keep the folder with the logs")
    options = parser.parse_args()
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # it complains of what is done here to its servers
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    machine = Machine()
    try:
        return run(machine, options)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        options.keep = True
        print(f"FAILED, the logs are in {machine.folder}: {error}", file=sys.stderr)
        if isinstance(error, AssertionError):
            return 1
        raise
    finally:
        machine.close(keep=options.keep)


if __name__ == "__main__":
    sys.exit(main())
