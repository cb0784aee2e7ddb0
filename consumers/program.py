"""The consumer program: its parts, its start and its graceful stop."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import structlog

from consumers.completion import FEW_SUSPECTS, Completion
from consumers.hand_back import HandBack
from consumers.heartbeat import Heartbeat
from consumers.inbox import Inbox
from consumers.isolation import Isolation
from consumers.long_steps import LongSteps
from consumers.metrics import Metrics
from consumers.run_ahead import Budget
from consumers.runner import Runner, make_claims
from consumers.threads import StepThreads
from orchestrator.broker.deliveries import Deliveries
from orchestrator.broker.fitness import consume_while_fit
from orchestrator.broker.gate import PATIENCE as GATE_PATIENCE
from orchestrator.broker.gate import Gate
from orchestrator.broker.topology import step_queue
from orchestrator.db.readers import make_waiting_due
from orchestrator.db.revisions import known_at_start
from orchestrator.db.session import explain_transient
from orchestrator.forked import end_process
from orchestrator.health import Health
from orchestrator.metrics import serve_metrics
from orchestrator.registry import find_abilities
from orchestrator.runtime import ending_with, open_servers
from orchestrator.services.plans import ProgramPlans
from orchestrator.settings import Settings
from orchestrator.shares import Pace, Shares
from orchestrator.workflow import DEFAULT_QUEUE, TASK_QUEUE
from orchestrator.workflows.shipped import load_workflows

logger = structlog.get_logger(__name__)

DEFAULT_CONCURRENCY = 1000
"""The most steps at once. An async step that waits costs a few kilobytes, so the limit bounds memory, not work."""

MAX_PREFETCH = 250
"""The most commands that wait here for a claim. A larger number would only withhold them from other consumers."""

MOST_YOUNG = 2_000
"""New objects after which Python's garbage collector runs, instead of 700. The objects of hundreds of steps live until their
steps end, and at 700 it walked over them several times, which took a tenth of a consumer's processor time."""


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
        DefinitionError, ConfigurationError, ServerUnavailableError: at start-up; each text is one line.
    """
    load_workflows(settings.workflows, shipped_schedules=settings.shipped_schedules)
    abilities = find_abilities()
    names = list(queues) or [DEFAULT_QUEUE, TASK_QUEUE]
    async with AsyncExitStack() as stack:
        servers = await stack.enter_async_context(open_servers(settings, "consumer", names))
        database, publisher = servers.database, servers.publisher
        threads = StepThreads(settings.step_threads)
        stack.callback(threads.shutdown, wait=False, cancel_futures=True)
        stack.enter_context(ending_with(threads, stopping))
        inbox = Inbox()
        heartbeat = Heartbeat(
            database,
            names,
            concurrency,
            abilities,
            servers.watch,
            interval=settings.heartbeat_interval,
            presumed_dead_after=settings.presumed_dead_after,
            revisions=known_at_start(Path(settings.migrations)).heads,
            inbox=inbox,
            threads=threads,
            consumer_id=servers.program_id,
        )
        servers.watch.end_program_with(partial(end_process, os.EX_SOFTWARE))
        async with database.transaction() as session:
            await ProgramPlans.load().register(session, f"consumer {heartbeat.name}")
        await heartbeat.register()
        await make_waiting_due(database.pool, abilities.knows)
        metrics = Metrics()
        exposed = stack.enter_context(serve_metrics(metrics.registry, settings.metrics_address))
        pace = Pace()
        completion = Completion(
            database,
            publisher,
            metrics,
            pace,
            redispatch_after=settings.redispatch_after,
            max_lost_attempts=settings.max_lost_attempts,
        )
        claims = make_claims(database, heartbeat, precedence=completion.precedence)
        isolation = Isolation(
            database,
            completion,
            metrics,
            make_claims(database, heartbeat, at_once=1, largest=FEW_SUSPECTS),
            pool_size=settings.database_pool_size,
            places=Shares(concurrency, names),
            dangerous_for=settings.presumed_dead_after,
        )
        runner = Runner(
            database,
            completion,
            heartbeat,
            HandBack(database.pool, publisher, heartbeat.consumer_id, stopping=stopping),
            claims,
            isolation,
            settings.limits,
            threads,
            Shares(concurrency, names),
            pace,
            Budget(settings.run_ahead, settings.run_ahead_seconds),
        )
        metrics.observe_running(lambda: runner.running)
        metrics.observe_left_behind(lambda: threads.left_behind)
        takers = {step_queue(name): inbox.watch(name, runner.take) for name in names}
        deliveries = Deliveries(
            servers.address,
            servers.topology,
            takers,
            prefetch=min(MAX_PREFETCH, concurrency + concurrency // 5 + 1),
            max_bytes=settings.max_message_bytes,
            explain_transient=explain_transient,
            publisher=publisher,
            lingering=takers,
            gate=Gate(lambda: database.answers(GATE_PATIENCE)),
        )
        exposed.find_problem = Health(database, stopping, lambda: publisher.is_ready and deliveries.consuming.is_set())
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(publisher.run())
            tasks.create_task(deliveries.run())
            tasks.create_task(heartbeat.run(runner.compare))
            # Half of the limit, so that others have the time to take over.
            patience = settings.heartbeat_interval + settings.presumed_dead_after / 2
            beats = consume_while_fit(
                deliveries, lambda: heartbeat.missing_for, patience, "no heartbeat was recorded", stopping
            )
            tasks.create_task(beats)
            tasks.create_task(LongSteps(lambda: runner.attempts, settings.step_timeout).run(stopping))
            # The present objects (modules, workflows, models) stay until the end, and a garbage collection that walks over them
            # takes longer than a hundred steps.
            gc.collect()
            gc.freeze()
            gc.set_threshold(MOST_YOUNG)
            servers.started()
            logger.info("consumer started", name=heartbeat.name, queues=names, concurrency=concurrency)
            await stopping.wait()
            logger.info("consumer stopping")
            ends_at = asyncio.get_running_loop().time() + settings.drain_grace
            runner.refuse()
            await deliveries.stop(grace=settings.publish_timeout)
            await runner.drain(max(0.0, ends_at - asyncio.get_running_loop().time()))
            await heartbeat.stop()
            await publisher.stop()
        logger.info("consumer stopped")
