"""Test workflows: run them by the code of production, on a real database, without broker and programs.

With pytest the fixtures ``workflow_engine`` and ``workflow_database`` are there as soon as the package is installed. Elsewhere::

    with open_database(load_settings(needs_broker=False)) as database:
        async with open_engine(database.settings) as engine:
            process = await engine.run_workflow("create_line", {"node": "ams-1"})
"""

from __future__ import annotations

from orchestrator.engine.log import LogEntry
from orchestrator.settings import load_settings
from orchestrator.testing.assertions import (
    assert_aborted,
    assert_assignee,
    assert_awaiting_callback,
    assert_complete,
    assert_failed,
    assert_state,
    assert_state_equal,
    assert_status,
    assert_step_name,
    assert_suspended,
    assert_waiting,
    describe,
    extract_error,
    extract_state,
)
from orchestrator.testing.database import WorkflowDatabase, open_database
from orchestrator.testing.engine import Engine, open_engine
from orchestrator.testing.forms import run_form_generator
from orchestrator.testing.process import ProcessUnderTest

__all__ = [
    "Engine",
    "LogEntry",
    "ProcessUnderTest",
    "WorkflowDatabase",
    "assert_aborted",
    "assert_assignee",
    "assert_awaiting_callback",
    "assert_complete",
    "assert_failed",
    "assert_state",
    "assert_state_equal",
    "assert_status",
    "assert_step_name",
    "assert_suspended",
    "assert_waiting",
    "describe",
    "extract_error",
    "extract_state",
    "load_settings",
    "open_database",
    "open_engine",
    "run_form_generator",
]
