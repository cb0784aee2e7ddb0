"""Structured logs: one configuration for all programs. Never a token, a password or a state."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final, Literal, Protocol, cast
from uuid import UUID

import structlog
from structlog.types import EventDict, WrappedLogger

from orchestrator.log_values import cut_values
from orchestrator.streams import GuardedStream

_SECRETS = frozenset(
    {"token", "callback_token", "password", "state", "inputs", "user_inputs", "payload", "body", "url"}
    | {"secret", "api_key", "authorization"}
)
_REDACTED: Final = "[redacted]"

_hidden: ContextVar[tuple[str, ...]] = ContextVar("hidden_from_log", default=())

_CRITICAL_ONLY = ("aio_pika", "aiormq", "asyncio")
"""They log every broken connection with a traceback; the engine logs it in one line."""

_WARNINGS_ONLY = (
    *("alembic", "asyncpg", "graphql", "httpcore", "httpx", "multipart", "orchestrator", "python_multipart"),
    *("sqlalchemy", "sse_starlette", "strawberry", "uvicorn", "websockets"),
)
"""What the engine uses itself: below warnings, statements with their values and the URLs of requests would be in the log.

SQLAlchemy names loggers after classes, of the engine's as well; the engine's own are structlog's."""

_OF_EVERY_RECORD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


TRACEBACK: Final = "_traceback"
"""The field for a traceback that not every program shows."""


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


def hide_in_log(secret: str) -> None:
    """Keep a text out of every line that this task logs from now on, and what it starts."""
    _hidden.set((*_hidden.get(), secret))


def _hide(secret: str, event: EventDict) -> None:
    """Remove what :func:`hide_in_log` was given, from authors' lines above all."""
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = value.replace(secret, _REDACTED)
        elif not isinstance(value, int | float | None) and secret in repr(value):
            event[name] = _REDACTED


def _add_fields(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Add a standard-library record's logger, and the fields that its author gave as ``extra``."""
    record: logging.LogRecord = event["_record"]
    event["logger"] = record.name
    for name, value in vars(record).items():
        if name not in _OF_EVERY_RECORD:
            event.setdefault(name, value)
    return event


class _LineLogger:
    """Has each line of structlog's written."""

    def __init__(self, write: Callable[[str], None], name: object = None) -> None:
        self.name = name
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


Level = Literal["debug", "info", "warning", "error"]


def configure_logging(
    fmt: Literal["console", "json"],
    level: Level,
    levels: Mapping[str, Level] | None = None,
    *,
    tracebacks: bool = False,
) -> None:
    """Set up structlog, and route the standard library's loggers – of authors and libraries – through it.

    Args:
        levels: logger → its level, and that of those below it, instead of ``level``.
        tracebacks: whether lines about failed steps have their tracebacks, as at level ``debug``.
    """
    number = _number_of(level)
    numbers = {name: _number_of(one) for name, one in (levels or {}).items()}
    complete = _make_completion(shows_tracebacks=tracebacks or number <= logging.DEBUG)
    renderer: structlog.types.Processor
    if fmt == "json":
        renderer = _make_json_renderer()
    else:
        # Not the default formatter: it shows the local variables of every frame, passwords and tokens among them.
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stderr is not None and sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    if isinstance(sys.stderr, GuardedStream):
        about_losses = structlog.wrap_logger(
            structlog.ReturnLogger(), [complete, renderer], structlog.make_filtering_bound_logger(logging.WARNING)
        )
        sys.stderr.lines.format_loss = lambda count, reason: str(
            about_losses.warning("log lines were lost", lines=count, reason=reason)
        )
    write = _find_sink()
    structlog.configure(
        processors=[complete, renderer],
        wrapper_class=_filter(number, numbers),
        logger_factory=lambda *names: _LineLogger(write, *names[:1]),
        cache_logger_on_first_use=True,
    )
    handler = _LineHandler(write)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
            foreign_pre_chain=[_add_fields, complete],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    _set_levels(
        {"root": number}
        | dict.fromkeys(_WARNINGS_ONLY, max(number, logging.WARNING))
        | dict.fromkeys(_CRITICAL_ONLY, logging.CRITICAL)
        | numbers
    )


def _make_completion(*, shows_tracebacks: bool) -> structlog.types.Processor:
    """Return what adds to a line what every line has, and removes and cuts what none may have.

    One processor, because there is a line for each step, and most lines need few of its parts.
    """
    find_time = _make_clock()

    def complete(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        event = structlog.contextvars.merge_contextvars(logger, method, event)
        event = structlog.processors.add_log_level(logger, method, event)
        event["timestamp"] = find_time()
        # Values under secret names, whatever a caller passes: the last line of defence.
        if not _SECRETS.isdisjoint(event):
            event.update(dict.fromkeys(_SECRETS & event.keys(), _REDACTED))
        if "exc_info" in event:
            event = structlog.processors.format_exc_info(logger, method, event)
        text = event.pop(TRACEBACK, None)
        if shows_tracebacks and text:
            event.setdefault("exception", text)
        for secret in _hidden.get():
            _hide(secret, event)
        return cut_values(logger, method, event)

    return complete


def _make_clock() -> Callable[[], str]:
    """Return what writes the time as ``datetime.isoformat`` does, in UTC; only the part below a second is new each time."""
    latest = -1, ""

    def find_time() -> str:
        nonlocal latest
        second, fraction = divmod(time.time_ns() // 1000, 1_000_000)
        known, written = latest  # together: lines come from several threads
        if known != second:
            written = datetime.fromtimestamp(second, UTC).isoformat().removesuffix("+00:00")
            latest = second, written
        return f"{written}.{fraction:06d}Z" if fraction else f"{written}Z"

    return find_time


def _make_json_renderer() -> structlog.types.Processor:
    """Return what writes a line as JSON, with one encoder for all lines: structlog's makes one for each."""
    encoders: dict[object, json.JSONEncoder] = {}

    def write(event: EventDict, *, default: Callable[[Any], Any]) -> str:
        encoder = encoders.get(default)
        if encoder is None:
            encoder = encoders[default] = json.JSONEncoder(default=default)
        return encoder.encode(event)

    return structlog.processors.JSONRenderer(serializer=write)


def _number_of(level: Level) -> int:
    return logging.getLevelNamesMapping()[level.upper()]


_set: list[str] = []


def _set_levels(numbers: Mapping[str, int]) -> None:
    """Set the levels of standard-library loggers, and take back those that were set before."""
    for name in _set:
        logging.getLogger(name).setLevel(logging.NOTSET)
    _set[:] = numbers
    for name, number in numbers.items():
        logging.getLogger(name).setLevel(number)


def _filter(number: int, numbers: Mapping[str, int]) -> type[Any]:
    """Return what makes a logger of structlog's that takes lines from the level of its name on."""
    classes: dict[int, Any] = {one: structlog.make_filtering_bound_logger(one) for one in {number, *numbers.values()}}

    def make(logger: _LineLogger, *args: Any, **options: Any) -> Any:
        name = str(logger.name or "")
        while name not in numbers and name:
            name = name.rpartition(".")[0]
        return classes[numbers.get(name, numbers.get("root", number))](logger, *args, **options)

    return cast("type[Any]", make)  # it is only ever called
