"""Show whether the engine runs, its consumers and its queues: ``orchestrator status``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.text import Text

from orchestrator.broker.topology import FIXED_QUEUES, Exchanges, step_queue
from orchestrator.cli.context import REFUSED, CliContext, execute, explain
from orchestrator.cli.options import AsJson
from orchestrator.cli.output import clean
from orchestrator.cli.present import Present
from orchestrator.cli.queues import depth_cells
from orchestrator.cli.render import engine_document, engine_line, fields_of
from orchestrator.db.retention import (
    Expired,
    ExpiredRecords,
    list_expired,
    list_expired_records,
    list_stored_workflows,
)
from orchestrator.db.revisions import describe_age, known_at_start, list_applied
from orchestrator.db.schedules.overdue import (
    BrokenSchedule,
    OverdueSchedule,
    list_broken_schedules,
    list_overdue_schedules,
)
from orchestrator.db.status import (
    ConsumerSighting,
    Overdue,
    Unclaimed,
    UnconfirmedEvents,
    count_open_letters,
    list_consumers,
    list_overdue,
    list_unclaimed,
    read_engine_status,
    read_unconfirmed_events,
)
from orchestrator.errors import ConfigurationError, DefinitionError, ServerUnavailableError
from orchestrator.operations.explanation import LATE_AFTER, describe_culprit
from orchestrator.operations.queues import is_unread, measure_all
from orchestrator.operations.waiting import Wait, list_inabilities, reader_of
from orchestrator.registry import queue_of, step_queues
from orchestrator.services.retention import RECORDS, find_rules
from orchestrator.text import format_span
from orchestrator.workflow.values import DEFAULT_QUEUE, TASK_QUEUE

if TYPE_CHECKING:
    from orchestrator.broker.connection import QueueDepth

CLEAN_UP = "task_clean_up_tasks"
EXPIRED_AFTER = 2 * 86_400.0
"""Seconds after its time for which a finished task may be there: a clean-up comes once a day."""

UNATTENDED_AFTER = 5.0
"""Seconds without progress after which a missing consumer is reported."""


def status(as_json: AsJson = False) -> None:
    """Show whether the engine runs, its programs, which steps run, and how much waits in its queues."""

    async def body(context: CliContext) -> int | None:
        coded = list_coded_queues(context)
        async with context.connection() as connection:
            engine = await read_engine_status(connection)
            consumers = await list_consumers(connection)
            unclaimed = await list_unclaimed(connection, UNATTENDED_AFTER)
            overdue = [] if engine.paused else await list_overdue(connection, LATE_AFTER)
            unconfirmed = await read_unconfirmed_events(connection, UNATTENDED_AFTER)
            letters = await count_open_letters(connection)
            late_schedules = await list_overdue_schedules(connection)
            broken_schedules = await list_broken_schedules(connection)
            kept_for = find_rules(await list_stored_workflows(connection), context.settings.task_log_retention_days)
            expired = await list_expired(connection, kept_for.rules)
            old_records = await list_expired_records(connection, RECORDS)
            applied = await list_applied(connection)
            present = await Present.read(connection, context.settings.step_timeout)
        known = known_at_start(context.project)
        age = describe_age(known, applied)
        older = {
            one.name: lacking
            for one in consumers
            if one.alive and (lacking := known.find_lacking(one.revisions, applied))
        }
        waiting = [
            Waiting(
                one,
                Wait.of(
                    one.workflow, queue_of(one.workflow, one.step), consumers, paused=engine.paused, plans=one.plans
                ),
            )
            for one in unclaimed
        ]
        needed = {DEFAULT_QUEUE, TASK_QUEUE, *(queue for one in consumers for queue in one.queues)}
        needed |= {one.wait.queue for one in waiting if one.wait.queue is not None}
        output, code = context.output, 0
        problem: ServerUnavailableError | ConfigurationError | None = None
        depths: dict[str, QueueDepth | None] = {}
        try:
            depths = await measure_all(context.address, needed | coded)
            for name in coded - needed:
                # Made when it is first needed.
                if depths[step_queue(name)] is None:
                    del depths[step_queue(name)]
        except (ServerUnavailableError, ConfigurationError) as error:
            # What PostgreSQL knows is worth seeing all the same.
            problem, code = error, REFUSED
        output.document(
            {
                **engine_document(engine),
                **present.document(),
                "consumers": [fields_of(one) for one in consumers],
                "inabilities": list(list_inabilities(consumers)),
                "unclaimed": [one.document() for one in waiting],
                "overdue": [fields_of(one) for one in overdue],
                "unconfirmed_events": fields_of(unconfirmed),
                "dead_letters": letters,
                "schedules": {
                    "overdue": [fields_of(one) for one in late_schedules],
                    "broken": [fields_of(one) for one in broken_schedules],
                },
                "expired_tasks": [fields_of(one) for one in expired],
                "expired_records": [fields_of(one) for one in old_records],
                "revisions": {"applied": applied, "known": known.heads, "difference": age, "older_consumers": older},
                "queues": None
                if problem
                else [{"name": name, **depth_document(depth)} for name, depth in depths.items()],
            }
        )
        output.line(engine_line(engine))
        present.show_counts(output)
        if age is not None:
            output.line((age, "red"))
        output.line()
        output.table(
            ("consumer", "queues", "running", "at most", "last seen"),
            [
                (
                    clean(one.name),
                    clean(", ".join(one.queues)),
                    str(one.running),
                    str(one.concurrency),
                    Text(f"{format_span(one.silent_for)} ago")
                    if one.alive
                    else Text(f"{format_span(one.silent_for)} ago: presumed dead", style="red"),
                )
                for one in consumers
            ],
            empty="no consumers: 'orchestrator consumer' starts one, 'orchestrator dev' one with a coordinator",
        )
        present.show_steps(output)
        wrong = (list_inabilities, describe_blocked, describe_threads)
        for line in (*(line for one in wrong for line in one(consumers)), *describe_older(older)):
            output.line((clean(line), "red"))
        if problem is None:
            output.line()
            output.table(
                ("queue", "ready", "consumers"), [(name, *depth_cells(depth)) for name, depth in depths.items()]
            )
            for line in advise(depths, waiting):
                output.line((line, "red"))
        for one in waiting:
            output.line()
            for line in one.lines():
                output.line((line, "yellow"))
        for late in overdue:
            output.line((explain_overdue(late), "red"))
        for line in describe_schedules(late_schedules, broken_schedules):
            output.line((line, "red"))
        for line in explain_unconfirmed(unconfirmed):
            output.line((line, "red"))
        if letters:
            several = "dead letters are open" if letters > 1 else "dead letter is open"
            output.line((f"{letters} {several}: 'orchestrator dead-letters list' says why", "yellow"))
        for line in explain_expired(expired, old_records):
            output.line((line, "yellow"))
        if problem is not None:
            for line in explain(problem) or ():
                output.complain(line)
        return code

    execute(body, as_json=as_json)


@dataclass(frozen=True, slots=True)
class Waiting:
    """Steps that no consumer has claimed for a while, and what they wait for."""

    steps: Unclaimed
    wait: Wait

    def document(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {**fields_of(self.steps), **self.wait.document()}

    def lines(self) -> Iterator[str]:
        """Yield what people read about it."""
        steps = self.steps
        several, longest = ("processes stand", "the longest for") if steps.processes > 1 else ("process stands", "for")
        yield (
            f"{steps.processes} {several} at '{clean(steps.step)}' of '{clean(steps.workflow)}', {longest}"
            f" {format_span(steps.longest)}: {clean(self.wait.summary())}"
        )
        yield from (f"  • {clean(line)}" for line in self.wait.details())


def list_coded_queues(context: CliContext) -> set[str]:
    """Return the step queues that the workflows of this program name; a broken module only causes a note."""
    try:
        context.load_workflows()
    except DefinitionError as error:
        context.output.complain(f"note: step queues may be missing: {clean(error)}")
    return step_queues()


def describe_older(older: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Yield which consumers have older code than the database."""
    for name, lacking in older.items():
        what = f"older code than the database, without the revision {', '.join(map(clean, lacking))}"
        yield f"{clean(name)} has {what}: restart it with the current code"


def depth_document(depth: QueueDepth | None) -> dict[str, int | bool | None]:
    """Return a queue's numbers, as JSON."""
    if depth is None:
        return {"exists": False, "ready": None, "consumers": None}
    return {"exists": True, "ready": depth.ready, "consumers": depth.consumers}


def describe_blocked(consumers: Sequence[ConsumerSighting]) -> Iterator[str]:
    """Yield which consumers do not respond, for how long, and what blocks them."""
    for one in consumers:
        if one.blocked_for is None or one.blocked_by is None:
            continue
        culprit = clean(describe_culprit(one.blocked_by))
        yield (
            f"{clean(one.name)} does not respond: its event loop has been blocked for {format_span(one.blocked_for)}{culprit};"
            " its other steps stand still meanwhile"
        )


def describe_threads(consumers: Sequence[ConsumerSighting]) -> Iterator[str]:
    """Yield which consumers have threads whose functions do not end, and how many."""
    for one in consumers:
        if one.threads_left_behind:
            several = (
                "threads run functions that go on"
                if one.threads_left_behind > 1
                else "thread runs a function that goes on"
            )
            yield (
                f"{clean(one.name)}: {one.threads_left_behind} {several} after the end of the step; the log names them"
                " ('thread left behind')"
            )


def advise(depths: Mapping[str, QueueDepth | None], waiting: Sequence[Waiting]) -> Iterator[str]:
    """Yield what is wrong with the queues, and which program to start."""
    coordinated = {queue.name for queue in FIXED_QUEUES if queue.reader == "coordinator"}
    for name in sorted(coordinated):
        if is_unread(depths.get(name)):
            yield f"no coordinator reads {name}: start 'orchestrator coordinator'"
    prefix = step_queue("")
    unread = {
        name.removeprefix(prefix) for name, depth in depths.items() if name.startswith(prefix) and is_unread(depth)
    }
    queues = {one.wait.queue for one in waiting}
    missed = {queue for queue in queues if queue is not None and not _is_read(depths.get(step_queue(queue)))}
    for queue in sorted(unread | missed):
        yield f"no consumer reads {step_queue(queue)}: start '{reader_of(queue)}'"


def explain_overdue(late: Overdue) -> str:
    """Return why no coordinator has looked at processes that are due."""
    several = "processes have" if late.processes > 1 else "process has"
    plan = "no plan" if late.plan is None else f"the plan {clean(late.plan)}"
    return (
        f"{late.processes} {several} been due for {format_span(late.longest)}, with {plan} of '{clean(late.workflow)}':"
        " no running coordinator has this plan or the registered one ('orchestrator plans list')"
    )


def describe_schedules(overdue: Sequence[OverdueSchedule], broken: Sequence[BrokenSchedule]) -> Iterator[str]:
    """Yield which schedules no coordinator serves, and which cannot start anything."""
    for late in overdue:
        why = late.broken or "is a coordinator running?"
        yield f"the schedule '{clean(late.name)}' has been due for {format_span(late.waited)}: {clean(why)}"
    for one in broken:
        yield f"the schedule '{clean(one.name)}' starts nothing: {clean(one.broken)}"


def explain_unconfirmed(events: UnconfirmedEvents) -> Iterator[str]:
    """Yield why events do not reach their readers, if there are such events."""
    if events.waited is not None:
        several = "processes have" if events.processes > 1 else "process has"
        yield (
            f"events: {events.processes} {several} events that the broker has not confirmed, the oldest for"
            f" {format_span(events.waited)}: a queue bound to {Exchanges.EVENTS.value} refuses messages (is it full, with"
            " overflow reject-publish?), or RabbitMQ or every coordinator is away; the events are kept"
        )


def explain_expired(tasks: Sequence[Expired], records: Sequence[ExpiredRecords]) -> Iterator[str]:
    """Yield what a clean-up should have deleted, if it is late."""
    late = [(one.expired_for, f"finished tasks of '{clean(one.workflow)}'") for one in tasks[:1]]
    late += [(one.expired_for, f"rows of {one.table}") for one in records]
    for expired_for, what in late:
        if expired_for > EXPIRED_AFTER:
            yield (
                f"{what} have been past their time for {format_span(expired_for)}: does '{CLEAN_UP}' run, and does it end well?"
                f" ('orchestrator list --workflow {CLEAN_UP}')"
            )


def _is_read(depth: QueueDepth | None) -> bool:
    return depth is not None and depth.consumers > 0
