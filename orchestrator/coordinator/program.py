"""The coordinator program: its parts, its start and its graceful stop."""

from __future__ import annotations

import asyncio
import gc

import structlog

from orchestrator.broker.bytes_in_hand import bound_prefetch
from orchestrator.broker.connection import QueueDepth
from orchestrator.broker.deliveries import Deliveries
from orchestrator.broker.fitness import consume_while_fit
from orchestrator.broker.gate import PATIENCE as GATE_PATIENCE
from orchestrator.broker.gate import Gate
from orchestrator.broker.incoming import Delivery
from orchestrator.broker.topology import Queues
from orchestrator.broker.upkeep import Upkeep
from orchestrator.coordinator.announcer import Announcer
from orchestrator.coordinator.backlog import Backlog
from orchestrator.coordinator.dead_letters import PREFETCH as FEW_LETTERS
from orchestrator.coordinator.dead_letters import LetterKeeper
from orchestrator.coordinator.declarations import Declarations
from orchestrator.coordinator.dispatcher import Dispatcher
from orchestrator.coordinator.expiry import Expiry
from orchestrator.coordinator.handlers import Handlers
from orchestrator.coordinator.intake import PREFETCH as FEW_STARTS
from orchestrator.coordinator.intake import Intake
from orchestrator.coordinator.metrics import Metrics
from orchestrator.coordinator.queries import Queries
from orchestrator.coordinator.reconciler import Reconciler
from orchestrator.coordinator.scheduler import Scheduler
from orchestrator.coordinator.unhandled import UnhandledLetters
from orchestrator.db.session import explain_transient
from orchestrator.health import Health
from orchestrator.hosts import program_name
from orchestrator.messages import MessageType
from orchestrator.metrics import Exposed, serve_metrics
from orchestrator.runtime import ending_with, open_servers
from orchestrator.services.plans import ProgramPlans
from orchestrator.services.schedule_reconciliation import list_reconciliations
from orchestrator.settings import Settings
from orchestrator.shares import Pace
from orchestrator.stopping import end_tasks
from orchestrator.user_code import HOOK_THREADS
from orchestrator.workflow import TASK_QUEUE
from orchestrator.workflows.shipped import load_workflows

logger = structlog.get_logger(__name__)

PREFETCH = 200
"""Messages of each queue in progress at once; results wait for confirms only, so throughput needs many."""

MOST_YOUNG = 2_000
"""New objects after which Python's garbage collector runs, instead of 700. The objects of hundreds of messages live until the
broker has confirmed what follows from them, and at 700 it would walk over them several times."""

ROUNDS_GRACE = 1.0
"""Seconds that periodic work gets to end after the grace of messages; in an outage one round may last minutes."""


async def run_coordinator(settings: Settings, stopping: asyncio.Event) -> None:
    """Coordinate until ``stopping`` is set, then finish the messages in progress.

    Raises:
        DefinitionError, ConfigurationError, ServerUnavailableError: at start-up; each text is one line.
    """
    load_workflows(settings.workflows, shipped_schedules=settings.shipped_schedules)
    plans = ProgramPlans.load()
    metrics = Metrics()
    with (
        serve_metrics(metrics.registry, settings.metrics_address) as exposed,
        ending_with(HOOK_THREADS, stopping),
    ):
        await _coordinate(settings, stopping, plans, metrics, exposed)


async def _coordinate(
    settings: Settings, stopping: asyncio.Event, plans: ProgramPlans, metrics: Metrics, exposed: Exposed
) -> None:
    async with open_servers(settings, "coordinator") as servers:
        database, publisher = servers.database, servers.publisher
        async with database.transaction() as session:
            await plans.register(session, f"coordinator {program_name()}")
        announcer = Announcer(publisher, database.pool, lambda: intake.is_full)
        dispatcher = Dispatcher(publisher, announcer)
        backlog = Backlog(database, announcer, interval=settings.reconcile_interval)
        pace = Pace()
        handlers = Handlers(
            database, publisher, dispatcher, settings.limits, plans, settings.max_message_bytes, stopping
        )

        async def measure(queue: str) -> QueueDepth | None:
            return await deliveries.measure(queue)

        intake = Intake(database, measure)
        queries = Queries(database, publisher, settings.max_message_bytes, intake.backlog)

        unhandled = UnhandledLetters(database, publisher, settings.limits, interval=settings.reconcile_interval)

        async def take_command(delivery: Delivery) -> None:
            await unhandled.admit(delivery)
            if delivery.routing_key == MessageType.START:
                async with intake.start() as waits_on:
                    if not await handlers.take_command(delivery):
                        waits_on()
                return
            with intake.running_work():
                if queries.knows(delivery):
                    await queries.take(delivery)
                else:
                    intake.note_request()
                    await handlers.take_command(delivery)

        async def take_callback(delivery: Delivery) -> None:
            with intake.running_work():
                await handlers.take_callback(delivery)

        async def take_result(delivery: Delivery) -> None:
            if delivery.trace.get("step") is None:
                # No consumer has sent it: the process was started or changed over HTTP, or by the command line.
                intake.note_request()
            with intake.running_work():
                pace.note_other_work()
                try:
                    await handlers.take_result(delivery)
                finally:
                    pace.note_other_work()

        async def take_tasks_result(delivery: Delivery) -> None:
            async with pace.turn(TASK_QUEUE):
                await handlers.take_result(delivery)

        reconciler = Reconciler(
            database,
            dispatcher,
            servers.address,
            settings.limits,
            plans,
            interval=settings.reconcile_interval,
            presumed_dead_after=settings.presumed_dead_after,
        )
        scheduler = Scheduler(
            database,
            dispatcher,
            settings.limits,
            plans.workflows,
            interval=settings.reconcile_interval,
            metrics=metrics,
        )
        from_outside = bound_prefetch(PREFETCH, settings.max_message_bytes)
        deliveries = Deliveries(
            servers.address,
            servers.topology,
            {
                Queues.RESULTS.value: take_result,
                Queues.TASKS_RESULTS.value: take_tasks_result,
                Queues.CONTROL.value: take_command,
                Queues.COMMANDS.value: take_command,
                Queues.CALLBACKS.value: take_callback,
                Queues.LETTERS.value: LetterKeeper(database, publisher, unhandled.kept.set).take,
            },
            prefetch=PREFETCH,
            max_bytes=settings.max_message_bytes,
            explain_transient=explain_transient,
            publisher=publisher,
            refuse={Queues.COMMANDS.value: handlers.refuse, Queues.CONTROL.value: handlers.refuse},
            few={
                Queues.LETTERS.value: FEW_LETTERS,
                Queues.COMMANDS.value: min(FEW_STARTS, from_outside),
                Queues.CONTROL.value: from_outside,
                Queues.CALLBACKS.value: from_outside,
            },
            takes_cut={Queues.LETTERS.value},
            lingering={Queues.RESULTS.value, Queues.TASKS_RESULTS.value},
            gate=Gate(lambda: database.answers(GATE_PATIENCE)),
        )
        declarations = Declarations(database, list_reconciliations(f"coordinator {program_name()}"), settings.limits)
        exposed.find_problem = Health(database, stopping, lambda: publisher.is_ready and deliveries.consuming.is_set())
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(publisher.run())
            tasks.create_task(deliveries.run())
            patience = settings.presumed_dead_after / 2
            answers = consume_while_fit(
                deliveries, lambda: database.unanswered_for, patience, "PostgreSQL has not answered", stopping
            )
            running = [
                answers,
                reconciler.run(stopping),
                scheduler.run(stopping),
                unhandled.run(stopping),
                intake.run(stopping),
                announcer.run(stopping),
                backlog.run(stopping),
                Upkeep(servers.address, servers.topology).run(stopping),
                declarations.run(stopping),
            ]
            if settings.metrics_address is not None:
                running.append(Expiry(database, metrics, settings.task_log_retention_days).run(stopping))
            rounds = [tasks.create_task(one) for one in running]
            # The present objects stay until the end, so garbage collections need not walk over them.
            gc.collect()
            gc.freeze()
            gc.set_threshold(MOST_YOUNG)
            servers.started()
            logger.info("coordinator started")
            await stopping.wait()
            logger.info("coordinator stopping")
            pace.lift()
            await deliveries.stop(grace=settings.drain_grace)
            rounds.append(tasks.create_task(announcer.try_write_marks()))
            # Another coordinator, or this one after its restart, does the rest of a round.
            if not await end_tasks(rounds, ROUNDS_GRACE):
                database.abandon()
            await publisher.stop()
        logger.info("coordinator stopped")
