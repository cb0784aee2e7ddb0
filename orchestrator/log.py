"""Structured logs: one configuration for all programs. Never a token, a password or a state."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable
from typing import Literal, Protocol
from uuid import UUID

import structlog
from structlog.types import EventDict, WrappedLogger

from orchestrator.log_values import cut_values
from orchestrator.streams import GuardedStream

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


class _LineLogger:
    """Has each line of structlog's written."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write

    def msg(self, line: str) -> None:
        self._write(line)

    debug = info = warning = warn = error = critical = fatal = exception = log = msg


class _LineHandler(logging.Handler):
    """Has each line of the standard library's loggers written."""

    def __init__(self, write: Callable[[str], None]) -> None:
        super().__init__()
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._write(self.format(record))
        except Exception:
            self.handleError(record)


def _find_sink() -> Callable[[str], None]:
    """Return what writes a line to stderr, and never raises because it cannot be written."""
    stream = sys.stderr
    if isinstance(stream, GuardedStream):
        lines = stream.lines
        return lambda line: lines.write(f"{line}\n".encode("utf-8", "backslashreplace"))

    def write(line: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # the second: it is closed
            stream.write(f"{line}\n")
            stream.flush()

    return write if stream is not None else lambda _: None


def configure_logging(fmt: Literal["console", "json"], level: str) -> None:
    """Set up structlog, and route the standard library's loggers (of the client libraries) through it."""
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _redact,
        structlog.processors.format_exc_info,
        cut_values,
    ]
    renderer: structlog.types.Processor
    if fmt == "json":
        renderer = structlog.processors.JSONRenderer()
    else:
        # Not the default formatter: it shows the local variables of every frame, passwords and tokens among them.
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stderr is not None and sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    if isinstance(sys.stderr, GuardedStream):
        about_losses = structlog.wrap_logger(
            structlog.ReturnLogger(), [*shared, renderer], structlog.make_filtering_bound_logger(logging.WARNING)
        )
        sys.stderr.lines.format_loss = lambda count, reason: str(
            about_losses.warning("log lines were lost", lines=count, reason=reason)
        )
    write = _find_sink()
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_: _LineLogger(write),
        cache_logger_on_first_use=True,
    )
    handler = _LineHandler(write)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processor=renderer, foreign_pre_chain=shared))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # The client libraries log every broken connection with a traceback; the engine logs it in one line.
    root.setLevel(max(number, logging.WARNING))
    for noisy in ("aio_pika", "aiormq", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
