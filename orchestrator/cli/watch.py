"""Follow a process until it ends or needs input or an operator, from the last log entry seen."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

from orchestrator.cli.context import NEEDS_INPUT, NOT_IN_TIME, REFUSED, CliContext
from orchestrator.cli.forms import resume_command, show_form
from orchestrator.cli.output import Output, clean
from orchestrator.cli.render import entry_line, failure_line, process_document, short
from orchestrator.db.callbacks import CallbackProgress
from orchestrator.db.processes.newest import ProcessSummary
from orchestrator.engine.log import LogEntry, count_tries, is_between_tries, is_repeated
from orchestrator.operations.explanation import STUCK, Explanation
from orchestrator.text import format_span
from orchestrator.types import JSON, ProcessStatus

if TYPE_CHECKING:
    from rich.status import Status

UNATTENDED_AFTER = 5.0
"""Seconds without progress after which the reason is looked for."""

OUTAGE = 30.0
"""Seconds for which the server may be away while a process is followed."""

TRY_AGAIN_AFTER = 0.2

WAITS = "waiting"
"""The entry after a failure that is tried again by itself; shown for the first of several, so that people see what comes."""


class Source(Protocol):
    """Where a process is read.

    Args:
        server: who is asked, for people.
    """

    server: str

    async def read(self, known: int) -> tuple[ProcessSummary, list[LogEntry]]:
        """Return the process, and the entries of its log after number ``known``."""

    async def wait(self) -> None:
        """Wait until there may be something new."""

    async def explain(self) -> Explanation:
        """Return why the process does not go on."""

    async def read_form(self) -> JSON:
        """Return the form that the process waits for, if it can be shown."""

    async def read_callback(self) -> CallbackProgress | None:
        """Return what is known of the callback that the process waits for."""

    def is_outage(self, error: Exception) -> bool:
        """Return whether an error means that the server is away."""


@dataclass(slots=True)
class _Seen:
    process: ProcessSummary | None = None
    entries: list[LogEntry] = field(default_factory=list)
    moved_at: float = 0.0
    asked_at: float = 0.0
    reason: tuple[str, ...] = ()
    failed: LogEntry | None = None
    repeated: int = 0
    held: list[LogEntry] = field(default_factory=list)


async def follow(
    context: CliContext,
    source: Source,
    *,
    after: int = 0,
    patience: float | None = None,
    **extra: JSON,
) -> int:
    """Print each new entry of a process's log until it ends, is suspended, or ``patience`` seconds have passed.

    Args:
        after: entries up to this number are known already.
        extra: goes into the JSON document.

    Returns:
        The exit code: 0 when it is completed, otherwise one that says why not.
    """
    loop = asyncio.get_running_loop()
    seen = _Seen(moved_at=loop.time())
    deadline = None if patience is None else loop.time() + patience
    with _spinner(context) as spinner:
        while True:
            await _catch_up(context, source, seen, after)
            assert seen.process is not None  # noqa: S101 - _catch_up has read it or raised
            if _has_stopped(seen.process):
                break
            if deadline is not None and loop.time() >= deadline:
                break
            await _hint(context, source, seen)
            if spinner is not None:
                spinner.update(_describe_moment(seen, loop.time() - seen.moved_at))
            await source.wait()
    _show_held(context, seen, count_tries(seen.entries))
    return await _conclude(context, source, seen.process, seen.entries, patience, extra)


async def _catch_up(context: CliContext, source: Source, seen: _Seen, after: int) -> None:
    """Read the next entries; wait while the server is away."""
    loop = asyncio.get_running_loop()
    since: float | None = None
    while True:
        try:
            process, new = await source.read(seen.entries[-1].sequence if seen.entries else 0)
            break
        except Exception as error:
            # Of all errors only an outage is waited for.
            if not source.is_outage(error) or (since is not None and loop.time() - since > OUTAGE):
                raise
            if since is None:
                since = loop.time()
                context.output.complain(f"note: {source.server} does not answer; trying again")
            await asyncio.sleep(TRY_AGAIN_AFTER)
    if new or process != seen.process:
        seen.moved_at = loop.time()
    seen.process = process
    seen.entries.extend(new)
    numbers = count_tries(seen.entries)
    for entry in new:
        if entry.sequence > after:
            _show_entry(context, seen, entry, numbers)


def _show_entry(context: CliContext, seen: _Seen, entry: LogEntry, numbers: Mapping[int, int]) -> None:
    """Print an entry, unless it is one more try with the same error: that is counted, and what lies before it dropped."""
    if seen.failed is not None and is_repeated(seen.failed, entry):
        seen.repeated += 1
        seen.held.clear()
        seen.failed = entry
    elif seen.failed is not None and is_between_tries(entry) and (seen.repeated or entry.name != WAITS):
        seen.held.append(entry)
    else:
        _show_held(context, seen, numbers)
        context.output.prose(entry_line(entry, numbers.get(entry.sequence)))
        if entry.failure is not None and entry.kind == "step":
            seen.failed = entry
        elif not is_between_tries(entry):
            seen.failed = None


def _show_held(context: CliContext, seen: _Seen, numbers: Mapping[int, int]) -> None:
    """Print how often the error was met again that was printed last, and what has followed it."""
    if seen.repeated:
        times = "once" if seen.repeated == 1 else f"{seen.repeated} times"
        context.output.line((f"      the same error {times} more", "dim"))
        seen.repeated = 0
    for entry in seen.held:
        context.output.prose(entry_line(entry, numbers.get(entry.sequence)))
    seen.held.clear()


async def _hint(context: CliContext, source: Source, seen: _Seen) -> None:
    """Print why the process stands still for a while, and again when the reason is another one."""
    now = asyncio.get_running_loop().time()
    if min(now - seen.moved_at, now - seen.asked_at) < UNATTENDED_AFTER:
        return
    seen.asked_at = now
    found = await source.explain()
    # Not the summary, which may count seconds.
    reason = (found.kind, *found.details) if found.kind in STUCK else ()
    if reason != seen.reason:
        seen.reason = reason
        for note in (found.summary, *found.details) if reason else ():
            context.output.complain(f"note: {clean(note)}")


async def _conclude(
    context: CliContext,
    source: Source,
    process: ProcessSummary,
    entries: list[LogEntry],
    patience: float | None,
    extra: dict[str, JSON],
) -> int:
    output, name = context.output, short(process.process_id)
    status = ProcessStatus(process.status)
    form: JSON = None
    if status is ProcessStatus.SUSPENDED:
        form = await source.read_form()
    callback = await source.read_callback()
    output.document({**extra, **process_document(process, entries, callback), "form": form})
    if status is ProcessStatus.COMPLETED:
        return 0
    if status is ProcessStatus.SUSPENDED:
        show_input_request(output, process.process_id, process.step, process.sequence, form)
        return NEEDS_INPUT
    if _has_stopped(process):
        last = next((one for one in reversed(entries) if one.failure is not None), None)
        why = f": {failure_line(last.failure)}" if status.is_failure and last and last.failure else ""
        output.complain(f"{status.value}{why}")
        if status.is_failure:
            output.line(f"details: orchestrator show {name} --traceback; try again: orchestrator retry {name}")
        return REFUSED
    output.complain(
        f"still {status.value} after {format_span(patience or 0)}; continue with: orchestrator watch {name}"
    )
    return NOT_IN_TIME


def show_input_request(output: Output, process_id: UUID, step: str | None, sequence: int, form: JSON) -> None:
    """Print what a suspended process waits for and the command that gives it; nothing when the form is not known."""
    if form is None:
        return
    output.line(f"needs input at '{clean(step)}':")
    show_form(output, form)
    output.line(resume_command(process_id, sequence, form))


def _has_stopped(process: ProcessSummary) -> bool:
    status = ProcessStatus(process.status)
    return status.is_final or status.is_failure or status is ProcessStatus.SUSPENDED


def _describe_moment(seen: _Seen, since: float) -> str:
    process = seen.process
    assert process is not None  # noqa: S101 - see follow()
    step = f" '{clean(process.step)}'" if process.step is not None else ""
    word = "running" if process.claimed else process.status.replace("_", " ")
    # rich reads square brackets in a spinner's text as markup.
    again = f", the same error {seen.repeated + 1} times" if seen.repeated else ""
    return f"{word}{step}{again} … {format_span(since) if since >= 1 else ''}".replace("[", "(").replace("]", ")")


def _spinner(context: CliContext) -> AbstractContextManager[Status | None]:
    return context.output.console.status("…") if context.output.is_live else nullcontext()
