"""Commands about RabbitMQ: ``orchestrator topology …``."""

from __future__ import annotations

from orchestrator.broker.connection import close, connect, declare
from orchestrator.broker.topology import EXCHANGES, Topology
from orchestrator.cli.context import CliContext, execute
from orchestrator.cli.options import AsJson
from orchestrator.cli.output import clean
from orchestrator.cli.queues import depth_cells
from orchestrator.errors import DefinitionError
from orchestrator.operations.queues import measure_all
from orchestrator.registry import known_workflows, plan_of, step_queues


def declare_command(as_json: AsJson = False) -> None:
    """Declare all exchanges, queues and bindings. Programs do so themselves, if their user may; it can be repeated."""

    async def body(context: CliContext) -> None:
        topology = _build_topology(context)
        connection = await connect(context.address, "declare")
        try:
            await declare(connection, topology)
        finally:
            await close(connection)
        context.output.line(f"declared {len(EXCHANGES)} exchanges and {len(topology.queues)} queues")
        context.output.document(
            {
                "exchanges": [one.name.value for one in EXCHANGES],
                "queues": [one.name for one in topology.queues],
                "queue_type": topology.queue_type,
            }
        )

    execute(body, as_json=as_json)


def show_command(as_json: AsJson = False) -> None:
    """Show each exchange and who may write to it, each queue, who reads it, and how much waits in it."""

    async def body(context: CliContext) -> None:
        topology = _build_topology(context)
        depths = await measure_all(context.address, set(topology.step_queues))
        context.output.document(
            {
                "exchanges": [{"name": e.name.value, "type": e.type, "writers": e.writers} for e in EXCHANGES],
                "queues": [
                    {
                        "name": queue.name,
                        "exchange": queue.exchange.value,
                        "routing_keys": list(queue.keys),
                        "reader": queue.reader,
                        "exists": (depth := depths.get(queue.name)) is not None,
                        "ready": depth.ready if depth else None,
                        "consumers": depth.consumers if depth else None,
                    }
                    for queue in topology.queues
                ],
            }
        )
        context.output.table(("exchange", "type", "written by"), [(e.name.value, e.type, e.writers) for e in EXCHANGES])
        context.output.line()
        context.output.table(
            ("queue", "bound to", "routing keys", "read by", "ready", "consumers"),
            [
                (
                    queue.name,
                    queue.exchange.value,
                    ", ".join(key for key in queue.keys if key),
                    queue.reader,
                    *depth_cells(depths.get(queue.name)),
                )
                for queue in topology.queues
            ],
        )

    execute(body, as_json=as_json)


def _build_topology(context: CliContext) -> Topology:
    """Return the topology with every step queue that the workflows of this program name."""
    context.load_workflows()
    broken: dict[str, None] = {}
    for workflow in known_workflows():
        try:
            plan_of(workflow)
        except DefinitionError as error:
            broken[clean(error)] = None
    for text in broken:
        context.output.complain(f"note: the queues of a broken workflow are left out: {text}")
    return Topology.of(context.settings.queue_type, step_queues())
