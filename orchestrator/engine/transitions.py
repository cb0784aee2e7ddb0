"""The transition table, as data: which event is allowed in which status, and where it may lead.

The documentation's table is generated from it, :func:`orchestrator.engine.decide.decide` checks against it before it
decides, and the property tests check every decision's outcome against it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from orchestrator.engine import events
from orchestrator.engine.process import Process
from orchestrator.errors import IllegalTransitionError
from orchestrator.types import ProcessStatus

_S = ProcessStatus
_FAILURES = frozenset({_S.FAILED, _S.API_UNAVAILABLE, _S.INCONSISTENT_DATA})
_ARRIVALS = frozenset({_S.RUNNING, _S.SUSPENDED, _S.FAILED, _S.COMPLETED})
"""The statuses to which arrival at a position may lead; FAILED because a condition may raise."""

TRANSITIONS: Mapping[type, Mapping[ProcessStatus, frozenset[ProcessStatus]]] = {
    events.Started: {_S.CREATED: _ARRIVALS},
    events.StepSucceeded: {_S.RUNNING: _ARRIVALS | {_S.AWAITING_CALLBACK}},
    events.StepFailed: {_S.RUNNING: _FAILURES | {_S.WAITING}},
    events.AttemptLost: {_S.RUNNING: frozenset({_S.RUNNING, _S.WAITING, _S.FAILED})},
    events.NotRun: {_S.RUNNING: frozenset({_S.RUNNING})},
    events.RetryDue: {_S.WAITING: frozenset({_S.RUNNING})},
    events.CallbackCompleted: {_S.AWAITING_CALLBACK: _ARRIVALS},
    events.CallbackFailed: {_S.AWAITING_CALLBACK: frozenset({_S.FAILED})},
    events.Submitted: {_S.SUSPENDED: _ARRIVALS},
    events.Retried: dict.fromkeys((*sorted(_FAILURES), _S.WAITING), _ARRIVALS),
    events.Aborted: {
        status: frozenset({_S.ABORTED})
        for status in (_S.RUNNING, _S.SUSPENDED, _S.WAITING, _S.AWAITING_CALLBACK, *sorted(_FAILURES))
    },
    events.Patched: {status: frozenset({status}) for status in (*sorted(_FAILURES), _S.SUSPENDED)},
    events.StepSkipped: dict.fromkeys((*sorted(_FAILURES), _S.WAITING), _ARRIVALS),
    events.Rewound: dict.fromkeys((*sorted(_FAILURES), _S.WAITING, _S.SUSPENDED, _S.AWAITING_CALLBACK), _ARRIVALS),
    events.PlanChanged: {
        status: frozenset({status})
        for status in (_S.RUNNING, _S.SUSPENDED, _S.WAITING, _S.AWAITING_CALLBACK, *sorted(_FAILURES))
    },
    events.CodeChanged: {
        status: frozenset({_S.FAILED}) for status in (_S.RUNNING, _S.SUSPENDED, _S.WAITING, _S.AWAITING_CALLBACK)
    },
}

RESTING = frozenset(_S) - {_S.CREATED, _S.RUNNING}
"""Statuses in which nothing is dispatched: the process holds no message, connection or task."""


_NOTES = frozenset({events.Patched, events.NotRun, events.PlanChanged})
"""Events that do not move the process."""

_VERBS: Mapping[type, str] = {
    events.Submitted: "given input",
    events.Retried: "retried",
    events.Aborted: "aborted",
    events.Patched: "patched",
    events.StepSkipped: "made to skip its step",
    events.Rewound: "rewound",
    events.CallbackCompleted: "completed by a callback",
    events.CallbackFailed: "failed by a callback",
}

_ADVICE: Mapping[ProcessStatus, str] = {
    _S.SUSPENDED: "this one waits for input: resume it with that, or abort it",
    _S.AWAITING_CALLBACK: "this one waits for a callback",
}


def require_allowed(process: Process, event: object) -> None:
    """Check that the table allows an event in the status of a process.

    Raises:
        IllegalTransitionError: it does not; nothing changes.
    """
    require_possible(process, type(event))


def require_possible(process: Process, event: type) -> None:
    """Check that the table allows events of this class in the status of a process.

    Raises:
        IllegalTransitionError: it does not.
    """
    if process.status not in TRANSITIONS[event]:
        raise IllegalTransitionError(refusal(event, process.status))


def refusal(event: type, status: ProcessStatus) -> str:
    """Return the error text for an event in a status: why it is refused, and what to do instead."""
    text = f"a process that is {status.value} cannot be {_VERBS.get(event, 'changed like this')}"
    if status.is_final:
        return f"{text}: it is final"
    *others, last = (one.value for one in TRANSITIONS[event])
    allowed = f"{', '.join(others)} or {last}" if others else last
    advice = f"; {_ADVICE[status]}" if status in _ADVICE else ""
    return f"{text}: only one that is {allowed} can{advice}"


def as_markdown() -> str:
    """Return the table as the documentation shows it."""
    lines = ["| event | allowed in | leads to |", "| --- | --- | --- |"]
    for event, rows in TRANSITIONS.items():
        grouped: dict[tuple[str, ...], list[str]] = {}
        for status, outcomes in rows.items():
            same = ("unchanged",) if outcomes == {status} and event in _NOTES else tuple(sorted(outcomes))
            grouped.setdefault(same, []).append(status)
        lines.extend(
            f"| `{event.__name__}` | {', '.join(sources)} | {', '.join(outcomes)} |"
            for outcomes, sources in grouped.items()
        )
    return "\n".join(lines) + "\n"


def as_mermaid() -> str:
    """Return the table as a Mermaid state diagram."""
    edges: dict[tuple[str, str], list[str]] = {}
    for event, rows in TRANSITIONS.items():
        for status, outcomes in rows.items():
            for outcome in sorted(outcomes):
                edges.setdefault((status.value, outcome.value), []).append(event.__name__)
    lines = ["stateDiagram-v2", f"    [*] --> {_S.CREATED.value}"]
    lines.extend(f"    {source} --> {target}: {', '.join(names)}" for (source, target), names in sorted(edges.items()))
    lines.extend(f"    {status.value} --> [*]" for status in sorted(_S) if status.is_final)
    return "\n".join(lines) + "\n"


def as_document() -> str:
    """Return the whole of ``docs/transitions.md``."""
    return (
        "# Transitions\n\n"
        "<!-- Generated, do not edit: python -m orchestrator.engine.transitions > docs/transitions.md -->\n\n"
        "What may happen to a process in which status, and where that may lead. The engine decides by this very table\n"
        "(`orchestrator/engine/transitions.py`); an event that is not in it is refused and changes nothing.\n\n"
        "No process is ever `resumed`: existing user interfaces know that status, so it is a public name and stays free.\n\n"
        f"{as_markdown()}\n```mermaid\n{as_mermaid()}```\n"
    )


if __name__ == "__main__":
    sys.stdout.write(as_document())
