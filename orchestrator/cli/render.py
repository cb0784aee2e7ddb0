"""How processes and their logs look to people, and as JSON documents."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from rich.text import Text

from orchestrator.cli.output import Output, clean, coloured
from orchestrator.db.callbacks import CallbackProgress
from orchestrator.db.processes.queries import ProcessSummary
from orchestrator.engine.log import LogEntry, count_tries
from orchestrator.engine.references import OLD_SUBSCRIPTIONS, SUBSCRIPTION_ID
from orchestrator.services.pause import EngineStatus
from orchestrator.types import JSON, State

_WIDE = 120
"""Columns of a terminal in which the log is shown as a table."""

_OWN = {OLD_SUBSCRIPTIONS}
_SUBSCRIPTION = {SUBSCRIPTION_ID, "product", "status", "version"}
_BLOCK = {"subscription_instance_id", "owner_subscription_id", "name"}
"""Keys of the state that are the engine's own; keys by which references of subscriptions and blocks are recognised."""

_VALUE, _CHANGES = 48, 160
"""Characters of one value, and of all changes of an entry, in compact form."""


def short(process_id: UUID) -> str:
    """The beginning of an id, enough to name the process in a command."""
    return str(process_id)[:8]


def when(moment: datetime) -> str:
    """A time as the operator's clock shows it."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def took(entry: LogEntry) -> str:
    """How long an entry's function ran."""
    return "" if entry.consumer is None else seconds((entry.finished_at - entry.started_at).total_seconds())


def seconds(span: float) -> str:
    """A duration."""
    if span < 10:  # noqa: PLR2004 - below ten seconds the milliseconds matter
        return f"{span:.3f} s"
    minutes, rest = divmod(round(span), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def changes(entry: LogEntry) -> str:
    """What an entry changed in the state, in one line; what the engine keeps there for itself is left out."""
    found = [f"{key}={_told(value)}" for key, value in entry.delta.items() if key not in _OWN]
    found += [f"-{key}" for key in entry.removed if key not in _OWN]
    return clean(" ".join(found), limit=_CHANGES)


def _told(value: JSON) -> str:
    """A value in a few characters: of a reference to a model what a person knows it by."""
    if isinstance(value, dict) and value.keys() >= _SUBSCRIPTION:
        return f"subscription {str(value[SUBSCRIPTION_ID])[:8]} ({value['product']}, {value['status']})"
    if isinstance(value, dict) and value.keys() >= _BLOCK:
        return f"block {str(value['subscription_instance_id'])[:8]} ({value['name']})"
    return compact(value)


def compact(value: JSON) -> str:
    """A value in a few characters."""
    written = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return written if len(written) <= _VALUE else f"{written[: _VALUE - 1]}…"


def failure_line(failure: Mapping[str, JSON]) -> str:
    """An error's type and message."""
    return clean(f"{failure.get('type') or 'error'}: {failure.get('message') or ''}")


def subject(entry: LogEntry) -> Text:
    """The step's name, or what was done to the process."""
    return Text(clean(entry.name), style="" if entry.kind == "step" else "italic cyan")


def entry_line(entry: LogEntry, number: int | None) -> Text:
    """An entry in one line, for following a process.

    Args:
        number: which try of its step it is.
    """
    line = Text.assemble(
        (f"{entry.sequence:>4}  ", "dim"), (entry.finished_at.astimezone().strftime("%H:%M:%S"), "dim")
    )
    line.append("  ")
    line.append_text(subject(entry))
    if entry.name.replace(" ", "_") != entry.status:
        line.append("  ")
        line.append_text(coloured(entry.status))
    if number is not None and (number > 1 or entry.failure is not None):
        line.append(f"  try {number}", style="dim")
    if span := took(entry):
        line.append(f"  {span}", style="dim")
    line.append(f"  by {clean(entry.author)}", style="dim")
    if changed := changes(entry):
        line.append(f"  {changed}")
    if entry.failure is not None:
        line.append(f"  {failure_line(entry.failure)}", style="red")
    if entry.note:
        line.append(f"  ({clean(entry.note)})", style="dim")
    return line


def header(
    output: Output,
    process: ProcessSummary,
    entries: Sequence[LogEntry],
    callback: CallbackProgress | None,
    queue: str | None,
) -> None:
    """Print what a process is and where it stands.

    Args:
        queue: the step queue in which it waits for a consumer.
    """
    output.line(("process   ", "dim"), str(process.process_id))
    output.line(("workflow  ", "dim"), clean(process.workflow), ("  (task)" if process.is_task else "", "dim"))
    place = f"  at '{clean(process.step)}'" if process.step is not None else ""
    author = entries[-1].author if entries else process.actor
    runs = "  (a consumer runs it)" if process.claimed else ""
    if queue is not None:
        runs = f"  (waits for a consumer of the queue '{queue}')"
    output.line(("status    ", "dim"), coloured(process.status), place, (runs, "dim"))
    if process.assignee != "SYSTEM":
        output.line(("assignee  ", "dim"), clean(process.assignee))
    output.line(("started   ", "dim"), f"{when(process.started_at)} by {clean(process.started_by)}")
    output.line(("changed   ", "dim"), f"{when(process.updated_at)} by {clean(author)}")
    if process.due_at is not None and process.status == "waiting":
        output.line(("next try  ", "dim"), when(process.due_at))
    if callback is not None:
        deadline = "no deadline" if callback.deadline is None else f"until {when(callback.deadline)}"
        output.line(("callback  ", "dim"), f"'{clean(callback.step)}', {deadline}")
        if callback.progress is not None:
            output.line(("progress  ", "dim"), clean(json.dumps(callback.progress, ensure_ascii=False)))


def log_table(output: Output, entries: Sequence[LogEntry], *, traceback: bool) -> None:
    """Print a process's log: a table, or line by line in a narrow terminal."""
    numbers = count_tries(entries)
    rows = []
    for entry in entries:
        if output.console.width < _WIDE:
            output.prose(entry_line(entry, numbers.get(entry.sequence)))
            if traceback and entry.failure is not None and entry.failure.get("traceback"):
                output.line((clean(str(entry.failure["traceback"]).rstrip(), lines=True), "dim"))
            continue
        told = Text(changes(entry))
        for text, style in _remarks(entry, traceback=traceback):
            told = told if not told.plain else told.append("\n")
            told.append(text, style=style)
        rows.append(
            (
                Text(str(entry.sequence), style="dim"),
                when(entry.finished_at),
                subject(entry),
                coloured(entry.status),
                str(numbers.get(entry.sequence, "")),
                took(entry),
                clean(entry.author),
                told,
            )
        )
    output.table(("#", "time", "step / process", "status", "try", "took", "by", "changes"), rows, prose="changes")


def _remarks(entry: LogEntry, *, traceback: bool) -> list[tuple[str, str]]:
    found = []
    if entry.failure is not None:
        found.append((failure_line(entry.failure), "red"))
        details = entry.failure.get("details")
        if details is not None:
            found.append((clean(f"details: {json.dumps(details, ensure_ascii=False)}"), "red"))
        if traceback and entry.failure.get("traceback"):
            found.append((clean(str(entry.failure["traceback"]).rstrip(), lines=True), "dim"))
    if entry.note:
        found.append((f"({clean(entry.note)})", "dim"))
    return found


def state_lines(output: Output, state: State, title: str) -> None:
    """Print a state."""
    output.line((title, "bold"))
    output.line(clean(json.dumps(state, indent=2, ensure_ascii=False, sort_keys=True), lines=True))


def process_document(
    process: ProcessSummary, entries: Sequence[LogEntry], callback: CallbackProgress | None = None
) -> dict[str, Any]:
    """A process with its log, as JSON."""
    numbers = count_tries(entries)
    return {
        **summary_document(process),
        "callback": None if callback is None else fields_of(callback),
        "log": [
            fields_of(entry)
            | {
                "try": numbers.get(entry.sequence),
                "seconds": None if entry.consumer is None else (entry.finished_at - entry.started_at).total_seconds(),
            }
            for entry in entries
        ],
    }


def summary_document(process: ProcessSummary) -> dict[str, Any]:
    """A process without its log, as JSON."""
    return fields_of(process)


def fields_of(value: Any) -> dict[str, Any]:
    """A dataclass's fields by name, values untouched."""
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


def engine_line(status: EngineStatus) -> str:
    """The engine's status in words."""
    steps = "1 step runs" if status.running == 1 else f"{status.running} steps run"
    return f"{status.word}: {steps} at this moment"
