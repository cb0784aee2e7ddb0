"""Log lines of the engine that a person can read who looks at a failed test."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from structlog.dev import ConsoleRenderer, plain_traceback

from orchestrator.log import TRACEBACK


@contextmanager
def readable_log(level: int = logging.INFO) -> Iterator[None]:
    """Have structlog print short lines from a level on while the block runs, unless the project has configured it."""
    if structlog.is_configured():
        yield
        return
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            _leave_out_traceback,
            ConsoleRenderer(colors=False, exception_formatter=plain_traceback),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
    )
    try:
        yield
    finally:
        structlog.reset_defaults()


def _leave_out_traceback(
    _: structlog.types.WrappedLogger, __: str, event: structlog.types.EventDict
) -> structlog.types.EventDict:
    """Leave out the traceback of a failed step, which assertions about its process show."""
    event.pop(TRACEBACK, None)
    return event
