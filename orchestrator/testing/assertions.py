"""Assert where a process stands. What fails says at which step, with which error, and shows the log."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from difflib import unified_diff
from pathlib import Path
from pprint import pformat

from orchestrator.testing.process import ProcessUnderTest
from orchestrator.types import JSON, ProcessStatus, State

_OWN = f'  File "{Path(__file__).parent.parent}'
"""How a frame of the engine begins in a traceback."""

_FAILED = (ProcessStatus.FAILED, ProcessStatus.INCONSISTENT_DATA, ProcessStatus.API_UNAVAILABLE)


def assert_complete(process: ProcessUnderTest) -> None:
    """Assert that a process has come to its end."""
    __tracebackhide__ = True
    assert_status(process, ProcessStatus.COMPLETED)


def assert_suspended(process: ProcessUnderTest, step: str | None = None) -> None:
    """Assert that a process waits for the input of a person, at this step if one is given."""
    __tracebackhide__ = True
    assert_status(process, ProcessStatus.SUSPENDED, step=step)


def assert_waiting(process: ProcessUnderTest, step: str | None = None) -> None:
    """Assert that a process waits for the next automatic try of its step."""
    __tracebackhide__ = True
    assert_status(process, ProcessStatus.WAITING, step=step)


def assert_awaiting_callback(process: ProcessUnderTest, step: str | None = None) -> None:
    """Assert that a process waits for the answer of an external system."""
    __tracebackhide__ = True
    assert_status(process, ProcessStatus.AWAITING_CALLBACK, step=step)


def assert_failed(process: ProcessUnderTest, step: str | None = None, error: str | None = None) -> None:
    """Assert that a process has failed.

    Args:
        step: at which step.
        error: a part of ``type: message`` of its error.
    """
    __tracebackhide__ = True
    assert_status(process, *_FAILED, step=step)
    if error is not None and error not in (process.error or ""):
        raise AssertionError(f"expected an error with {error!r}\n{describe(process)}")


def assert_aborted(process: ProcessUnderTest) -> None:
    """Assert that a process was ended by a person."""
    __tracebackhide__ = True
    assert_status(process, ProcessStatus.ABORTED)


def assert_status(process: ProcessUnderTest, *statuses: ProcessStatus, step: str | None = None) -> None:
    """Assert that a process has one of these statuses, at this step if one is given."""
    __tracebackhide__ = True
    if process.status not in statuses or step not in {None, process.step}:
        place = "" if step is None else f" at {step!r}"
        raise AssertionError(f"expected {' or '.join(one.value for one in statuses)}{place}\n{describe(process)}")


def assert_step_name(process: ProcessUnderTest, expected: str) -> None:
    """Assert that the newest log entry about a step is about this one."""
    __tracebackhide__ = True
    steps = process.steps
    actual = steps[-1][0] if steps else None
    if actual != expected:
        raise AssertionError(
            f"expected {expected!r} as the newest step in the log, not {actual!r}\n{describe(process)}"
        )


def assert_assignee(process: ProcessUnderTest, expected: str) -> None:
    """Assert who is to act on a process."""
    __tracebackhide__ = True
    if process.assignee != expected:
        raise AssertionError(f"expected the assignee {expected!r}, not {process.assignee!r}\n{describe(process)}")


def assert_state(process: ProcessUnderTest, expected: Mapping[str, JSON]) -> None:
    """Assert that the state has these keys with these values, whatever else it has."""
    __tracebackhide__ = True
    actual = {key: process.state[key] for key in expected if key in process.state}
    _assert_equal(actual, dict(expected), "the state", process)


def assert_state_equal(
    process: ProcessUnderTest, expected: Mapping[str, JSON], excluded_keys: Collection[str] = ()
) -> None:
    """Assert that the state is this one, but for some keys."""
    __tracebackhide__ = True
    actual, wanted = (
        {key: value for key, value in one.items() if key not in excluded_keys} for one in (process.state, expected)
    )
    _assert_equal(actual, wanted, "the state", process)


def extract_state(process: ProcessUnderTest) -> State:
    """Return the state of a process."""
    return process.state


def extract_error(process: ProcessUnderTest) -> str | None:
    """Return the newest error of a process that has failed or waits for its next try, as ``type: message``."""
    return process.error


def describe(process: ProcessUnderTest) -> str:
    """Return where a process stands, why, and its log, for people."""
    place = "" if process.step is None else f" at the step {process.step!r}"
    lines = [f"the process of {process.workflow!r} is {process.status.value}{place}"]
    failure = process.failure
    if failure is not None:
        lines += [f"  {process.error}", *_indent(_leave_out_engine(str(failure["traceback"] or "")))]
        if failure["details"] is not None:
            lines.append(f"  details: {failure['details']!r}")
    lines.append("its log:")
    for entry in process.log:
        error = "" if entry.failure is None else f"  {entry.failure['type']}: {entry.failure['message']}"
        note = "" if entry.note is None else f"  ({entry.note})"
        lines.append(f"  {entry.sequence:>3}  {entry.name}  {entry.status}{error}{note}")
    return "\n".join(lines)


def _assert_equal(
    actual: Mapping[str, JSON], expected: Mapping[str, JSON], what: str, process: ProcessUnderTest
) -> None:
    __tracebackhide__ = True
    if actual == expected:
        return
    before, after = (pformat(dict(one)).splitlines() for one in (expected, actual))
    difference = "\n".join(unified_diff(before, after, "expected", "actual", lineterm=""))
    raise AssertionError(f"{what} is not as expected\n{difference}\n{describe(process)}")


def _leave_out_engine(traceback: str) -> str:
    """Return a traceback without the engine's own frames, which call the author's function."""
    frames = re.split(r'^(?=  File ")', traceback, flags=re.MULTILINE)
    return "".join(one for one in frames if not one.startswith(_OWN))


def _indent(text: str) -> list[str]:
    return [f"  {line}" for line in text.rstrip().splitlines()]
