"""Put into words why a process does not go on, from what was read about it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from pydantic_core import to_json

from orchestrator.db.standing import AwaitedCallback, Standing
from orchestrator.db.status import ConsumerSighting, EngineStatus
from orchestrator.operations.waiting import Wait
from orchestrator.text import format_span
from orchestrator.types import ProcessStatus

LATE_AFTER = 30.0
"""Seconds for which a process may be due: a coordinator that can do so looks at it within a few."""

MAX_FOREIGN = 300
"""Characters of an error's message, or of a progress report, that an explanation repeats."""

MISSED_HEARTBEATS = 2
"""Heartbeats that a consumer may miss before its silence is worth a word."""

Clock = Callable[[datetime], str]
"""Writes a time for the reader."""


class Kind(StrEnum):
    """Why a process does not go on, or that it does."""

    FINAL = "final"
    FAILED = "failed"
    INPUT = "input"
    CALLBACK = "callback"
    RETRY = "retry"
    PAUSED = "paused"
    QUEUED = "queued"
    NO_CONSUMER = "no_consumer"
    NO_COORDINATOR = "no_coordinator"
    RUNNING = "running"
    CONSUMER_SILENT = "consumer_silent"
    CONSUMER_BLOCKED = "consumer_blocked"


STUCK = frozenset(
    {Kind.PAUSED, Kind.NO_CONSUMER, Kind.NO_COORDINATOR, Kind.CONSUMER_SILENT, Kind.CONSUMER_BLOCKED},
)
"""Kinds in which something is wrong or switched off: an operator must look after the programs, not after the process."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a process does not go on.

    Args:
        summary: in a few words.
        details: what else is worth knowing, and what to do; a line each.
        data: the same for programs.
    """

    kind: Kind
    summary: str
    details: tuple[str, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {"kind": self.kind.value, "summary": self.summary, "details": list(self.details), "data": self.data}


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a process and of those on whom it depends.

    Args:
        wait: what its step waits for that no consumer has claimed.
        claimant: the consumer that has claimed its step; ``None`` also when its row is gone.
        is_known: whether this program's code has the step at which the process stands.
    """

    standing: Standing
    engine: EngineStatus
    wait: Wait | None = None
    claimant: ConsumerSighting | None = None
    is_known: bool = True


def write_utc(moment: datetime) -> str:
    """Return a time for readers anywhere."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def explain(facts: Facts, clock: Clock = write_utc) -> Explanation:
    """Return why a process does not go on."""
    status = ProcessStatus(facts.standing.status)
    if status.is_final:
        return _explain_end(facts.standing, clock)
    if status.is_failure:
        return _explain_failure(facts, clock)
    match status:
        case ProcessStatus.SUSPENDED:
            return _explain_input(facts, clock)
        case ProcessStatus.AWAITING_CALLBACK:
            return _explain_callback(facts, clock)
        case ProcessStatus.WAITING:
            return _explain_retry(facts, clock)
    return _explain_unclaimed(facts, clock) if facts.standing.claimed_by is None else _explain_claimed(facts, clock)


def describe_pause(engine: EngineStatus, clock: Clock) -> str:
    """Return that the engine is paused, by whom, since when and why, as far as that is recorded."""
    by = "" if engine.changed_by is None else f" by {engine.changed_by}"
    since = "" if engine.changed_at is None else f" since {clock(engine.changed_at)}"
    return f"the engine is paused{by}{since}{f': {engine.reason}' if engine.reason else ''}"


def describe_culprit(blocked_by: Mapping[str, Any] | None) -> str:
    """Return what blocks an event loop, beginning with a space; empty when it is not known."""
    found = blocked_by or {}
    return "".join(f" {word} {found[word]}" for word in ("by", "at") if found.get(word))


def _explain_end(standing: Standing, clock: Clock) -> Explanation:
    newest = standing.newest
    by = "" if newest is None else f" by {newest.author}"
    note = [newest.note] if newest is not None and newest.note else []
    at = standing.since if newest is None else newest.at
    return Explanation(Kind.FINAL, f"{standing.status} since {clock(at)}{by}", tuple(note), {"since": at})


def _explain_failure(facts: Facts, clock: Clock) -> Explanation:
    standing = facts.standing
    tries = f", try {standing.tries}" if standing.tries > 1 else ""
    error = _last_error(standing)
    summary = f"{_words(standing.status)} at {standing.step!r} since {clock(standing.since)}{tries}: {error}"
    return Explanation(
        Kind.FAILED,
        summary,
        (
            "retry it from the state after its last successful step, patch its state first, skip or rewind, or abort it",
            *_describe_unknown_step(facts),
            *_describe_pause_beside(facts, clock, "nothing is retried until it is unpaused"),
        ),
        {"step": standing.step, "since": standing.since, "tries": standing.tries, "error": error},
    )


def _explain_input(facts: Facts, clock: Clock) -> Explanation:
    standing = facts.standing
    return Explanation(
        Kind.INPUT,
        f"waits for input of {standing.step!r} from {standing.assignee} since {clock(standing.since)}",
        (
            *_describe_unknown_step(facts),
            *_describe_pause_beside(facts, clock, "no input is taken until it is unpaused"),
        ),
        {"step": standing.step, "assignee": standing.assignee, "since": standing.since},
    )


def _explain_callback(facts: Facts, clock: Clock) -> Explanation:
    standing, callback = facts.standing, facts.standing.callback
    since = f"since {clock(standing.since)}"
    data: dict[str, Any] = {"step": standing.step, "since": standing.since}
    if callback is None:
        # Its row is gone, which no program of the engine does.
        return Explanation(Kind.CALLBACK, f"awaits the callback of {standing.step!r} {since}", (), data)
    deadline = "no deadline" if callback.deadline is None else f"expires {clock(callback.deadline)}"
    several = "message" if callback.reports == 1 else "messages"
    data |= {
        "expires_at": callback.deadline,
        "progress_reports": callback.reports,
        "progress": callback.progress,
        "progress_at": callback.reported_at,
        "answered_at": callback.answered_at,
    }
    late = _explain_lateness(facts, f"the callback of {standing.step!r} {since}, {deadline}")
    if late is not None:
        return late
    pause = tuple(_describe_pause_beside(facts, clock, "what comes after the callback waits until it is unpaused"))
    if callback.answered_at is not None:
        summary = f"the callback of {standing.step!r} was answered {clock(callback.answered_at)}"
        return Explanation(Kind.CALLBACK, summary, ("a coordinator that has its plan goes on with it", *pause), data)
    return Explanation(
        Kind.CALLBACK,
        f"awaits the callback of {standing.step!r} {since}, {deadline}, {callback.reports} progress {several}",
        (
            *_describe_progress(callback, clock),
            *pause,
        ),
        data,
    )


def _describe_progress(callback: AwaitedCallback, clock: Clock) -> Iterator[str]:
    if callback.progress is not None:
        at = "" if callback.reported_at is None else f", {clock(callback.reported_at)}"
        yield f"the newest progress{at}: {_shorten(to_json(callback.progress, fallback=str).decode())}"


def _explain_retry(facts: Facts, clock: Clock) -> Explanation:
    standing = facts.standing
    number, error = standing.tries + 1, _last_error(standing)
    data = {"step": standing.step, "try": number, "at": standing.due_at, "error": error}
    of = f"try {number} of {standing.step!r}"
    last = f"the last error: {error}"
    if facts.engine.paused:
        return Explanation(
            Kind.PAUSED, describe_pause(facts.engine, clock), (f"{of} comes once it is unpaused", last), data
        )
    late = _explain_lateness(facts, f"{of} has been due since {_time(standing.due_at, clock)}")
    if late is not None:
        return Explanation(late.kind, late.summary, (*late.details, last), data)
    if standing.due_at is None or (standing.late or 0) >= 0:
        return Explanation(Kind.RETRY, f"{of} is due now, {last}", (), data)
    return Explanation(Kind.RETRY, f"{of} at {clock(standing.due_at)}, {last}", (), data)


def _explain_unclaimed(facts: Facts, clock: Clock) -> Explanation:
    standing, wait = facts.standing, facts.wait
    assert wait is not None  # noqa: S101 - whoever reads an unclaimed step's facts reads what it waits for
    data = {"step": standing.step, "since": standing.since, **wait.document()}
    if facts.engine.paused:
        return Explanation(Kind.PAUSED, describe_pause(facts.engine, clock), (f"{standing.step!r} is next",), data)
    since = f"{standing.step!r} waits since {clock(standing.since)}"
    details = (since, *wait.details(), *_describe_unknown_step(facts))
    if wait.is_stuck:
        return Explanation(Kind.NO_CONSUMER, wait.summary(), details, data)
    late = _explain_lateness(facts, since)
    if late is not None:
        return Explanation(late.kind, late.summary, (*late.details, *wait.details()), data)
    return Explanation(Kind.QUEUED, wait.summary(), details, data)


def _explain_claimed(facts: Facts, clock: Clock) -> Explanation:
    standing, one = facts.standing, facts.claimant
    since = "" if standing.claimed_at is None else f" since {clock(standing.claimed_at)}"
    tries = f", try {standing.tries}" if standing.tries > 1 else ""
    data: dict[str, Any] = {"step": standing.step, "since": standing.claimed_at, "try": standing.tries}
    pause = tuple(_describe_pause_beside(facts, clock, "this step finishes, the next one waits until it is unpaused"))
    if one is None:
        return Explanation(
            Kind.CONSUMER_SILENT,
            f"the consumer that has claimed {standing.step!r}{since} is not known any more",
            ("a coordinator gives the step to another one", *pause),
            {**data, "consumer": None},
        )
    data |= {"consumer": one.name, "silent_for": one.silent_for, "blocked_for": one.blocked_for}
    where = f"{standing.step!r} runs on {one.name}{since}{tries}"
    if not one.alive or one.silent_for > MISSED_HEARTBEATS * one.heartbeat_interval:
        then = "a coordinator gives the step to another one"
        fate = (
            f"presumed dead after {one.presumed_dead_after:g} s: then {then}" if one.alive else f"presumed dead: {then}"
        )
        summary = f"its consumer {one.name} has been silent for {_span(one.silent_for)}"
        return Explanation(Kind.CONSUMER_SILENT, summary, (where, f"it is {fate}", *pause), data)
    if one.blocked_for is not None:
        return Explanation(
            Kind.CONSUMER_BLOCKED,
            f"its consumer {one.name} does not respond: its event loop has been blocked for {_span(one.blocked_for)}",
            (where, *_describe_block(one), *pause),
            data,
        )
    return Explanation(Kind.RUNNING, where, pause, data)


def _describe_block(one: ConsumerSighting) -> Iterator[str]:
    culprit = describe_culprit(one.blocked_by)
    if culprit:
        yield f"blocked{culprit}"


def _explain_lateness(facts: Facts, what: str) -> Explanation | None:
    """Return that no coordinator takes a process that is due; ``None`` when it is not due, or has only just become so."""
    standing = facts.standing
    if facts.engine.paused or standing.late is None or standing.late < LATE_AFTER:
        return None
    plan = "no plan" if standing.plan is None else f"the plan {standing.plan}"
    todo = (
        f"the process has {plan} of {standing.workflow!r}: start a coordinator that has this plan or the registered one"
        " ('orchestrator plans list')"
    )
    return Explanation(
        Kind.NO_COORDINATOR,
        f"no coordinator has looked at it, although it has been due for {_span(standing.late)}",
        (what, todo),
        {"step": standing.step, "since": standing.since, "due_at": standing.due_at, "plan": standing.plan},
    )


def _describe_unknown_step(facts: Facts) -> Iterator[str]:
    if not facts.is_known:
        yield (
            f"the code of this program has no step {facts.standing.step!r} of {facts.standing.workflow!r}: use one that has it,"
            " or bring the step back under this name"
        )


def _describe_pause_beside(facts: Facts, clock: Clock, consequence: str) -> Iterator[str]:
    if facts.engine.paused:
        yield f"{describe_pause(facts.engine, clock)}; {consequence}"


def _last_error(standing: Standing) -> str:
    failure, newest = standing.failure, standing.newest
    if failure is not None and failure.step in {standing.step, "failed"}:
        return _shorten(f"{failure.type or 'error'}: {failure.message or ''}")
    return _shorten(newest.note or newest.name) if newest is not None else "not known"


def _time(moment: datetime | None, clock: Clock) -> str:
    return "" if moment is None else clock(moment)


def _words(status: str) -> str:
    return status.replace("_", " ")


def _span(seconds: float) -> str:
    return f"{round(seconds)} s" if seconds < 10 else format_span(seconds)  # noqa: PLR2004 - whole seconds say enough here


def _shorten(foreign: str) -> str:
    text = " ".join(foreign.split())
    return text if len(text) <= MAX_FOREIGN else f"{text[: MAX_FOREIGN - 1]}…"
