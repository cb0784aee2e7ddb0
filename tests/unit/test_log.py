"""What is computed from a process's log alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.engine.log import LogEntry, count_tries, fold_repeats, state_after
from tests.unit.log_entries import entry


def test_a_state_at_an_entry_is_the_fold_of_the_log_up_to_it() -> None:
    log = [
        entry(1, "created", 0, kind="process", delta={"a": 1, "b": 1}),
        entry(2, "One", 1, delta={"a": 2}),
        entry(3, "patched", 1, kind="process", delta={"c": 3}, removed="b"),
        entry(4, "Two", 2, delta={"b": 4}),
    ]
    assert [state_after(log, n) for n in range(5)] == [
        {},
        {"a": 1, "b": 1},
        {"a": 2, "b": 1},
        {"a": 2, "c": 3},
        {"a": 2, "c": 3, "b": 4},
    ]


def test_tries_are_counted_for_each_step_and_only_for_entries_about_which_something_ran() -> None:
    log = [
        entry(1, "created", 0, kind="process"),
        entry(2, "Start", 0),
        entry(3, "One", 1),
        entry(4, "Two", 2),
        entry(5, "failed", 2, kind="process"),
        entry(6, "retried", 2, kind="process"),
        entry(7, "Two", 3),
        entry(8, "Done", 3),
    ]
    assert count_tries(log) == {3: 1, 4: 1, 7: 2}


def test_a_lost_attempt_counts_as_a_try_of_the_step_that_comes_next_in_the_log() -> None:
    log = [entry(1, "One", 1), entry(2, "attempt lost", 2, kind="process"), entry(3, "Two", 3)]
    assert count_tries(log) == {1: 1, 3: 2}


def failed(sequence: int, message: str = "no route", name: str = "Ping", **changes: Any) -> LogEntry:
    return replace(
        entry(sequence, name, sequence), status="waiting", failure={"type": "OSError", "message": message}, **changes
    )


def between(sequence: int, name: str = "waiting") -> LogEntry:
    return entry(sequence, name, 0, kind="process")


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ([], []),
        ([failed(1), failed(2), failed(3)], [(1, 3, 3)]),
        ([failed(1), failed(2, "no name"), failed(3)], [(1, 1, 1), (2, 2, 1), (3, 3, 1)]),
        ([failed(1), failed(2, name="Pong")], [(1, 1, 1), (2, 2, 1)]),
        ([failed(1), entry(2, "retried", 1, kind="process"), failed(3)], [(1, 1, 1), (2, 2, 1), (3, 3, 1)]),
        ([failed(1), replace(failed(2), status="failed")], [(1, 2, 2)]),
        ([failed(1), failed(2, delta={"a": 1})], [(1, 1, 1), (2, 2, 1)]),
        ([failed(1), failed(2, note="blocked its consumer")], [(1, 1, 1), (2, 2, 1)]),
        ([entry(1, "Ping", 1), entry(2, "Ping", 2)], [(1, 1, 1), (2, 2, 1)]),
        ([failed(1), between(2), between(3, "due again"), failed(4)], [(1, 4, 2)]),
        ([failed(1), between(2), between(3, "due again"), failed(4), between(5)], [(1, 4, 2), (5, 5, 1)]),
        ([failed(1), between(2), between(3, "due again"), entry(4, "Ping", 2)], [(n, n, 1) for n in range(1, 5)]),
        ([failed(1), between(2), between(3, "patched"), failed(4)], [(n, n, 1) for n in range(1, 5)]),
        (
            [failed(1), between(2), failed(3), between(4), failed(5, "no name"), between(6), failed(7, "no name")],
            [(1, 3, 2), (4, 4, 1), (5, 7, 2)],
        ),
    ],
)
def test_entries_are_one_that_say_that_a_step_has_failed_again_with_the_same_error(
    log: list[LogEntry], expected: list[tuple[int, int, int]]
) -> None:
    assert [(one.first.sequence, one.last.sequence, one.count) for one in fold_repeats(log)] == expected
