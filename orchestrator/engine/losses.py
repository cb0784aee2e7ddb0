"""Decide what an attempt that ended without an outcome means: what counts against its step, and when the next try is."""

from __future__ import annotations

from dataclasses import dataclass, replace

from orchestrator.engine.events import AttemptLost, Failure, Loss
from orchestrator.engine.process import Process

LONGEST_PAUSE = 600.0
"""The most seconds between two attempts of a step that is lost repeatedly."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows from a lost attempt.

    Args:
        process: the process with its counters.
        note: what was observed, for the log.
        failure: why the step is not run again; ``None`` when it is.
        pause: seconds until it is run again; ``None`` for at once.
    """

    process: Process
    note: str
    failure: Failure | None = None
    pause: float | None = None


def judge(process: Process, event: AttemptLost) -> Verdict:
    """Count a lost attempt.

    Only the death of a child process that ran the step alone counts against the step. A consumer that is silent makes its steps
    suspects, which consumers run in child processes. Whatever else was seen says nothing about the step.
    """
    note = f"attempt {event.attempt} was lost: the consumer {event.consumer} {event.because}"
    match event.loss:
        case Loss.GIVEN_BACK:
            return Verdict(process, f"attempt {event.attempt} was given back by the consumer {event.consumer}")
        case Loss.INTERRUPTED:
            times = process.interruptions + 1
            return Verdict(replace(process, interruptions=times), note, pause=_pause(times))
        case Loss.SILENT:
            times = process.lost + 1
            return Verdict(replace(process, lost=times), note, pause=_pause(times))
        case Loss.SHARED:
            return Verdict(replace(process, lost=max(process.lost, 1)), note)
        case Loss.CRASHED:
            times = process.crashes + 1
            counted = replace(process, lost=max(process.lost, 1), crashes=times)
            if times < event.limit:
                return Verdict(counted, note, pause=_pause(times))
            message = f"{note}; this step has now brought down its consumer {times} times in a row and is not run again"
            return Verdict(counted, note, Failure("ConsumerLostError", message))


def _pause(times: int) -> float | None:
    """Return the seconds to wait after so many losses in a row: none after the first, then 1, 2, 4 and so on."""
    # The power of a large number does not fit into a float.
    return None if times <= 1 else min(2.0 ** min(times - 2, 20), LONGEST_PAUSE)
