"""The coordinator program: wiring, start and graceful end."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import structlog

from orchestrator.broker.connection import BrokerAddress
from orchestrator.broker.deliveries import Deliveries
from orchestrator.broker.publisher import Publisher
from orchestrator.broker.topology import Queues, Topology
from orchestrator.coordinator.dispatcher import Dispatcher
from orchestrator.coordinator.handlers import Receiver
from orchestrator.coordinator.reconciler import Reconciler
from orchestrator.db.session import Database, is_connection_error
from orchestrator.services.start import StartLimits
from orchestrator.settings import Settings
from orchestrator.workflows.shipped import load_workflows

logger = structlog.get_logger(__name__)

PREFETCH = 200
"""Messages of each queue under way at once; results wait only for confirms, so many are needed to keep busy."""


async def run_coordinator(settings: Settings, stopping: asyncio.Event) -> None:
    """Coordinate until ``stopping`` is set, then finish what has begun.

    Raises:
        DefinitionError, ConfigurationError, ServerUnavailableError: at start-up, each one line.
    """
    load_workflows(settings.workflows)
    topology = Topology.of(settings.queue_type)
    address = BrokerAddress(settings.amqp_url.get_secret_value(), "orchestrator coordinator", settings.connect_timeout)
    database = Database(
        settings.database_url.get_secret_value(),
        pool_size=settings.database_pool_size,
        connect_timeout=settings.connect_timeout,
        application_name="orchestrator-coordinator",
    )
    limits = StartLimits(settings.redispatch_after, settings.state_soft_limit, settings.state_hard_limit)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(database.close)
        await database.open()
        await database.require_tables()
        publisher = Publisher(address, topology, settings.publish_timeout)
        await publisher.check()
        dispatcher = Dispatcher(publisher, database.pool)
        receiver = Receiver(database, publisher, dispatcher, limits)
        reconciler = Reconciler(
            database,
            dispatcher,
            address,
            limits,
            interval=settings.reconcile_interval,
            presumed_dead_after=settings.presumed_dead_after,
            max_lost_attempts=settings.max_lost_attempts,
        )
        deliveries = Deliveries(
            address,
            topology,
            {
                Queues.RESULTS.value: receiver.result,
                Queues.COMMANDS.value: receiver.command,
                Queues.CALLBACKS.value: receiver.callback,
            },
            prefetch=PREFETCH,
            max_bytes=settings.max_message_bytes,
            is_transient=is_connection_error,
            publisher=publisher,
            refuse={Queues.COMMANDS.value: receiver.refuse},
        )
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(publisher.run())
            tasks.create_task(deliveries.run())
            tasks.create_task(reconciler.run(stopping))
            tasks.create_task(dispatcher.run(stopping))
            logger.info("coordinator started")
            await stopping.wait()
            logger.info("coordinator stopping")
            await deliveries.stop(grace=settings.drain_grace)
            await dispatcher.flush()
            await publisher.stop()
        logger.info("coordinator stopped")
