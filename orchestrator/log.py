"""Structured logs: one configuration for all programs. Never a token, a password or a state."""

from __future__ import annotations

import logging
import sys
from typing import Literal

import structlog
from structlog.types import EventDict, WrappedLogger

_SECRETS = frozenset(
    {"token", "callback_token", "password", "state", "inputs", "user_inputs", "payload", "body", "url"}
)


def _redact(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """The last line of defence: whatever a caller passes, values under these names are not written."""
    for name in _SECRETS & event.keys():
        event[name] = "[redacted]"
    return event


def configure_logging(fmt: Literal["console", "json"], level: str) -> None:
    """Set up structlog, and let the standard library's loggers (of the client libraries) speak through it."""
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
    # The client libraries report every broken connection with a traceback; ours say it in a line.
    root.setLevel(max(number, logging.WARNING))
    for noisy in ("aio_pika", "aiormq", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
