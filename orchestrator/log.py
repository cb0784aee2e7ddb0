"""Structured logs: one configuration for all programs. Never a token, a password or a state."""

from __future__ import annotations

import logging
import sys
from typing import Literal, Protocol
from uuid import UUID

import structlog
from structlog.types import EventDict, WrappedLogger

_SECRETS = frozenset(
    {"token", "callback_token", "password", "state", "inputs", "user_inputs", "payload", "body", "url"}
)


class OfProcess(Protocol):
    """Whatever belongs to a step of a process: a process, a claim's process, a command."""

    @property
    def process_id(self) -> UUID: ...
    @property
    def workflow(self) -> str: ...
    @property
    def step(self) -> str | None: ...


def log_fields(one: OfProcess) -> dict[str, object]:
    """Return the fields by which a log line names a process, its step and, if there is one, the attempt."""
    fields: dict[str, object] = {"process_id": str(one.process_id), "workflow": one.workflow, "step": one.step}
    attempt = getattr(one, "attempt", None)
    return fields if attempt is None else {**fields, "attempt": attempt}


def _redact(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Remove values under secret names, whatever a caller passes: the last line of defence."""
    for name in _SECRETS & event.keys():
        event[name] = "[redacted]"
    return event


def configure_logging(fmt: Literal["console", "json"], level: str) -> None:
    """Set up structlog, and route the standard library's loggers (of the client libraries) through it."""
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _redact,
    ]
    renderer: structlog.types.Processor
    if fmt == "json":
        shared.append(structlog.processors.format_exc_info)
        renderer = structlog.processors.JSONRenderer()
    else:
        # Not the default formatter: it shows the local variables of every frame, passwords and tokens among them.
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processor=renderer, foreign_pre_chain=shared))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # The client libraries log every broken connection with a traceback; the engine logs it in one line.
    root.setLevel(max(number, logging.WARNING))
    for noisy in ("aio_pika", "aiormq", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
