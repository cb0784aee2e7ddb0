"""The consumer program: wiring, start and graceful end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack

import structlog

from consumers.completion import Finisher
from consumers.heartbeat import Heartbeat
from consumers.metrics import Metrics
from consumers.runner import Runner
from orchestrator.broker.connection import BrokerAddress
from orchestrator.broker.deliveries import Deliveries
from orchestrator.broker.publisher import Publisher
from orchestrator.broker.topology import Topology, step_queue
from orchestrator.db.session import Database, is_connection_error
from orchestrator.db.step_session import install_guards
from orchestrator.services.steps import StepLimits
from orchestrator.settings import Settings
from orchestrator.workflow import DEFAULT_QUEUE, TASK_QUEUE
from orchestrator.workflows.shipped import load_workflows

logger = structlog.get_logger(__name__)

DEFAULT_CONCURRENCY = 1000
"""Steps at once. An async step that waits costs a few kilobytes, so the limit is there to bound memory, not work."""

MAX_PREFETCH = 250
"""Commands that wait here for a claim. More would only hide them from other consumers."""


async def run_consumer(
    settings: Settings,
    stopping: asyncio.Event,
    *,
    queues: Sequence[str] = (),
    concurrency: int = DEFAULT_CONCURRENCY,
) -> None:
    """Run steps until ``stopping`` is set, then drain.

    Args:
        queues: the step queues to read; default ``default`` and ``tasks``.

    Raises:
        DefinitionError, ConfigurationError, ServerUnavailableError: at start-up, each one line.
    """
    load_workflows(settings.workflows)
    names = list(queues) or [DEFAULT_QUEUE, TASK_QUEUE]
    topology = Topology.of(settings.queue_type, names)
    address = BrokerAddress(settings.amqp_url.get_secret_value(), "orchestrator consumer", settings.connect_timeout)
    database = Database(
        settings.database_url.get_secret_value(),
        pool_size=settings.database_pool_size,
        connect_timeout=settings.connect_timeout,
        application_name="orchestrator-consumer",
    )
    install_guards(database.engine)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(database.close)
        await database.open()
        await database.require_tables()
        publisher = Publisher(address, topology, settings.publish_timeout)
        await publisher.check()
        threads = ThreadPoolExecutor(settings.step_threads, thread_name_prefix="step")
        stack.callback(threads.shutdown, wait=False, cancel_futures=True)
        heartbeat = Heartbeat(
            database.pool,
            names,
            concurrency,
            interval=settings.heartbeat_interval,
            timeout=settings.presumed_dead_after,
        )
        await heartbeat.register()
        metrics = Metrics()
        stack.enter_context(metrics.served(settings.metrics_address))
        finisher = Finisher(
            database,
            publisher,
            metrics,
            redispatch_after=settings.redispatch_after,
            max_lost_attempts=settings.max_lost_attempts,
        )
        runner = Runner(
            database,
            finisher,
            heartbeat,
            StepLimits(settings.step_timeout, settings.state_soft_limit, settings.state_hard_limit),
            threads,
            concurrency=concurrency,
            max_lost_attempts=settings.max_lost_attempts,
            probation_time=settings.presumed_dead_after,
        )
        metrics.watch(lambda: runner.running)
        deliveries = Deliveries(
            address,
            topology,
            {step_queue(name): runner.take for name in names},
            prefetch=min(MAX_PREFETCH, concurrency + concurrency // 5 + 1),
            max_bytes=settings.max_message_bytes,
            is_transient=is_connection_error,
            publisher=publisher,
        )
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(publisher.run())
            tasks.create_task(deliveries.run())
            tasks.create_task(heartbeat.run(runner.compare))
            logger.info("consumer started", name=heartbeat.name, queues=names, concurrency=concurrency)
            await stopping.wait()
            logger.info("consumer stopping")
            runner.refuse()
            await deliveries.stop(grace=settings.publish_timeout)
            await runner.drain(settings.drain_grace)
            await heartbeat.stop()
            await publisher.stop()
        logger.info("consumer stopped")
