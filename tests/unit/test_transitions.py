"""The transition table and what is generated from it."""

from __future__ import annotations

import re

import pytest

from orchestrator.engine import events
from orchestrator.engine.transitions import RESTING, TRANSITIONS, as_document, as_markdown, as_mermaid, refusal
from orchestrator.types import ProcessStatus, StepStatus


def test_the_statuses_are_pinned() -> None:
    """They are stored, published and shown."""
    assert [status.value for status in ProcessStatus] == [
        "created",
        "running",
        "suspended",
        "waiting",
        "awaiting_callback",
        "aborted",
        "failed",
        "api_unavailable",
        "inconsistent_data",
        "completed",
        "resumed",
    ]
    assert [status.value for status in StepStatus] == [
        "success",
        "skipped",
        "suspend",
        "waiting",
        "awaiting_callback",
        "failed",
        "abort",
        "complete",
    ]


def test_completed_and_aborted_are_final_and_nothing_leaves_them() -> None:
    final = {status for status in ProcessStatus if status.is_final}

    assert final == {ProcessStatus.COMPLETED, ProcessStatus.ABORTED}
    assert not any(final & set(rows) for rows in TRANSITIONS.values())


def test_every_event_is_in_the_table() -> None:
    assert set(TRANSITIONS) == set(events.Event.__args__)


def test_a_failure_can_be_retried_patched_skipped_and_aborted() -> None:
    """B7, B11."""
    failures = {status for status in ProcessStatus if status.is_failure}

    for event in (events.Retried, events.Patched, events.StepSkipped, events.Aborted):
        assert failures <= set(TRANSITIONS[event])


@pytest.mark.parametrize("event", TRANSITIONS)
def test_a_refusal_names_every_status_in_which_it_could_be_done_and_no_other(event: type) -> None:
    told = refusal(event, ProcessStatus.CREATED).partition(": only one that is ")[2]

    assert set(re.findall(r"[a-z_]+", told)) - {"or", "can"} == {status.value for status in TRANSITIONS[event]}


def test_whoever_retries_a_process_that_waits_for_input_is_advised_to_resume_it() -> None:
    """B34."""
    assert refusal(events.Retried, ProcessStatus.SUSPENDED) == (
        "a process that is suspended cannot be retried: only one that is api_unavailable, failed, inconsistent_data or waiting"
        " can; this one waits for input: resume it with that, or abort it"
    )


def test_whatever_can_be_reached_can_be_left_or_is_final() -> None:
    reached = {outcome for rows in TRANSITIONS.values() for outcomes in rows.values() for outcome in outcomes}
    left = {status for rows in TRANSITIONS.values() for status in rows}

    assert {status for status in reached if not status.is_final} <= left
    assert left - reached == {ProcessStatus.CREATED}


def test_whoever_waits_rests() -> None:
    assert set(ProcessStatus) - RESTING == {ProcessStatus.CREATED, ProcessStatus.RUNNING}


@pytest.mark.parametrize("event", TRANSITIONS)
def test_the_table_for_people_names_every_event_with_all_its_statuses(event: type) -> None:
    rows = [line for line in as_markdown().splitlines() if line.startswith(f"| `{event.__name__}` |")]

    sources = {source for row in rows for source in row.split("|")[2].strip().split(", ")}
    assert sources == {status.value for status in TRANSITIONS[event]}


def test_the_diagram_has_an_edge_for_every_transition_and_no_other() -> None:
    drawn = set()
    for source, target, names in re.findall(r"^    (\w+) --> (\w+): (.+)$", as_mermaid(), re.MULTILINE):
        drawn |= {(source, target, name) for name in names.split(", ")}

    assert drawn == {
        (status.value, outcome.value, event.__name__)
        for event, rows in TRANSITIONS.items()
        for status, outcomes in rows.items()
        for outcome in outcomes
    }


def test_the_diagram_begins_at_created_and_ends_at_what_is_final() -> None:
    assert "    [*] --> created\n" in as_mermaid()
    assert re.findall(r"(\w+) --> \[\*\]", as_mermaid()) == ["aborted", "completed"]


def test_the_document_holds_both_and_says_how_it_is_made() -> None:
    assert as_markdown() in as_document()
    assert f"```mermaid\n{as_mermaid()}```" in as_document()
    assert "python -m orchestrator.engine.transitions > docs/transitions.md" in as_document()
