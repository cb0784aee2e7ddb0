"""Show processes and their logs to people, and as JSON documents."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from rich.text import Text

from orchestrator.cli.output import Output, clean, coloured
from orchestrator.engine.log import LogEntry, Repeats, count_tries, fold_repeats
from orchestrator.engine.references import OLD_SUBSCRIPTIONS, SUBSCRIPTION_ID
from orchestrator.text import format_span
from orchestrator.types import JSON, State

if TYPE_CHECKING:
    from orchestrator.db.callbacks import CallbackProgress
    from orchestrator.db.processes.newest import ProcessSummary
    from orchestrator.db.status import EngineStatus
    from orchestrator.operations.explanation import Explanation

_WIDE = 120
"""Columns of a terminal in which the log is shown as a table."""

_OWN = {OLD_SUBSCRIPTIONS}
_SUBSCRIPTION = {SUBSCRIPTION_ID, "product", "status", "version"}
_BLOCK = {"subscription_instance_id", "owner_subscription_id", "name"}
"""Keys of the state that are the engine's own; keys by which references of subscriptions and blocks are recognized."""

_VALUE, _CHANGES = 48, 160
"""Characters of one value, and of all changes of an entry, in compact form."""


def short(process_id: UUID) -> str:
    """Return the beginning of an id, enough to name the process in a command."""
    return str(process_id)[:8]


def when(moment: datetime) -> str:
    """Return a time as the operator's clock shows it; one at the end of the calendar as it is, with its offset."""
    try:
        return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except OverflowError:
        return moment.isoformat(sep=" ", timespec="seconds")


def clock(moment: datetime) -> str:
    """Return a time as the operator's clock shows it, with the date unless it is today's."""
    local = moment.astimezone()
    return f"{local:%H:%M:%S}" if local.date() == datetime.now().astimezone().date() else when(moment)


def took(entry: LogEntry) -> str:
    """Return how long an entry's function ran; empty if none ran."""
    return "" if entry.consumer is None else format_span((entry.finished_at - entry.started_at).total_seconds())


def changes(entry: LogEntry) -> str:
    """Return what an entry changed in the state, in one line, without the keys that the engine keeps there for itself."""
    found = [f"{key}={_compact_reference(value)}" for key, value in entry.delta.items() if key not in _OWN]
    found += [f"-{key}" for key in entry.removed if key not in _OWN]
    return clean(" ".join(found), limit=_CHANGES)


def _compact_reference(value: JSON) -> str:
    """Return a value in a few characters; of a reference to a model, its short id and its name."""
    if isinstance(value, dict) and value.keys() >= _SUBSCRIPTION:
        return f"subscription {str(value[SUBSCRIPTION_ID])[:8]} ({value['product']}, {value['status']})"
    if isinstance(value, dict) and value.keys() >= _BLOCK:
        return f"block {str(value['subscription_instance_id'])[:8]} ({value['name']})"
    return compact(value)


def compact(value: JSON) -> str:
    """Return a value as JSON in a few characters."""
    written = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return written if len(written) <= _VALUE else f"{written[: _VALUE - 1]}…"


def failure_line(failure: Mapping[str, JSON]) -> str:
    """Return an error's type and message."""
    return clean(f"{failure.get('type') or 'error'}: {failure.get('message') or ''}")


def subject(entry: LogEntry) -> Text:
    """Return the step's name, or what was done to the process."""
    return Text(clean(entry.name), style="" if entry.kind == "step" else "italic cyan")


def entry_line(entry: LogEntry, number: int | None) -> Text:
    """Return an entry as one line, for following a process.

    Args:
        number: which try of its step it is.
    """
    parts: list[Text | tuple[str, str]] = [
        (f"{entry.sequence:>4}", "dim"),
        (clock(entry.finished_at), "dim"),
        subject(entry),
    ]
    if entry.name.replace(" ", "_") != entry.status:
        parts.append(coloured(entry.status))
    if number is not None and (number > 1 or entry.failure is not None):
        parts.append((f"try {number}", "dim"))
    parts += [(took(entry), "dim"), (f"by {clean(entry.author)}", "dim"), (changes(entry), "")]
    if entry.failure is not None:
        parts.append((failure_line(entry.failure), "red"))
    if entry.note:
        parts.append((f"({clean(entry.note)})", "dim"))
    return Text("  ").join([text for part in parts if (text := Text.assemble(part))])


def header(output: Output, process: ProcessSummary, entries: Sequence[LogEntry], explanation: Explanation) -> None:
    """Print what a process is, where it stands and why it does not go on."""
    place = f"  at '{clean(process.step)}'" if process.step is not None else ""
    author = entries[-1].author if entries else process.actor
    lines: dict[str, tuple[str | Text | tuple[str, str], ...]] = {
        "process": (str(process.process_id),),
        "workflow": (clean(process.workflow), ("  (task)" if process.is_task else "", "dim")),
        "status": (coloured(process.status), place),
    }
    if process.assignee != "SYSTEM":
        lines["assignee"] = (clean(process.assignee),)
    lines["started"] = (f"{when(process.started_at)} by {clean(process.started_by)}",)
    if process.parent_id is not None:
        lines["parent"] = (str(process.parent_id), ("  whose step has started it", "dim"))
    lines["changed"] = (f"{when(process.updated_at)} by {clean(author)}",)
    if process.note is not None and process.noted_at is not None:
        lines["note"] = (
            clean(process.note, lines=True),
            (f"  ({clean(process.noted_by)}, {when(process.noted_at)})", "dim"),
        )
    lines["why"] = (clean(explanation.summary),)
    for label, parts in lines.items():
        output.line((f"{label:<10}", "dim"), *parts)
    for line in explanation.details:
        output.line((" " * 10, "dim"), f"• {clean(line)}")


def log_table(output: Output, entries: Sequence[LogEntry], *, traceback: bool) -> None:
    """Print a process's log, an error that was met again and again once: a table, or line by line in a narrow terminal."""
    numbers = count_tries(entries)
    folded = fold_repeats(entries)
    if output.console.width < _WIDE:
        for one in folded:
            line = entry_line(one.last, numbers.get(one.last.sequence))
            output.prose(line.append(f"  ({_count(one)})", "dim") if one.count > 1 else line)
            if traceback and (frames := _traceback(one.last)):
                output.line((frames, "dim"))
        return
    output.table(
        ("#", "time", "step / process", "status", "try", "took", "by", "changes"),
        [
            (
                Text(str(one.last.sequence), style="dim"),
                when(one.last.finished_at),
                subject(one.last),
                coloured(one.last.status),
                str(numbers.get(one.last.sequence, "")),
                took(one.last),
                clean(one.last.author),
                _details(one, traceback=traceback),
            )
            for one in folded
        ],
        prose="changes",
    )


def _count(one: Repeats) -> str:
    return f"the same {one.count} times, first at {when(one.first.finished_at)}"


def _details(one: Repeats, *, traceback: bool) -> Text:
    """Return what an entry changed, why it failed, and its note: a line for each."""
    entry = one.last
    parts = [(changes(entry), "")]
    if entry.failure is not None:
        parts.append((failure_line(entry.failure), "red"))
        if entry.failure.get("details") is not None:
            parts.append((clean(f"details: {json.dumps(entry.failure['details'], ensure_ascii=False)}"), "red"))
        parts.append((_traceback(entry) if traceback else "", "dim"))
    if one.count > 1:
        parts.append((_count(one), "dim"))
    if entry.note:
        parts.append((f"({clean(entry.note)})", "dim"))
    return Text("\n").join([Text(*part) for part in parts if part[0]])


def _traceback(entry: LogEntry) -> str:
    found = None if entry.failure is None else entry.failure.get("traceback")
    return clean(str(found).rstrip(), lines=True) if found else ""


def state_lines(output: Output, state: State, title: str) -> None:
    """Print a state."""
    output.line((title, "bold"))
    output.line(clean(json.dumps(state, indent=2, ensure_ascii=False, sort_keys=True), lines=True))


def process_document(
    process: ProcessSummary, entries: Sequence[LogEntry], callback: CallbackProgress | None = None
) -> dict[str, Any]:
    """Return a process with its log, as JSON."""
    numbers = count_tries(entries)
    return {
        **fields_of(process),
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


def fields_of(value: Any) -> dict[str, Any]:
    """Return a dataclass's fields by name, values untouched."""
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


def engine_line(status: EngineStatus) -> str:
    """Return a line with the engine's status: who has paused or unpaused it, when and why."""
    steps = "1 step runs" if status.running == 1 else f"{status.running} steps run"
    line = f"{status.word}: {steps} at this moment"
    if status.changed_by is None or status.changed_at is None:
        return line
    done = "paused" if status.paused else "unpaused"
    reason = f": {clean(status.reason)}" if status.reason else ""
    return f"{line}; {done} by {clean(status.changed_by)} at {when(status.changed_at)}{reason}"


def engine_document(status: EngineStatus) -> dict[str, Any]:
    """Return the engine's status, as JSON."""
    return {
        "status": status.word,
        "running": status.running,
        "changed_by": status.changed_by,
        "changed_at": status.changed_at,
        "reason": status.reason,
    }
