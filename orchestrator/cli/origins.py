"""Which server an error came from.

Its class alone does not tell: the clients of both raise plain ``OSError``, and RabbitMQ's even ``RuntimeError``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from orchestrator.broker.connection import BROKER_ERRORS
from orchestrator.db.session import is_connection_error, is_ours

_BROKER_CLIENT = {"aio_pika", "aiormq", "pamqp"}
_EVENT_LOOP = {"uvloop"}


def is_of_broker(error: BaseException) -> bool:
    """Whether an error means that RabbitMQ is away or refuses us, rather than that our code or a user's is wrong."""
    return isinstance(error, BROKER_ERRORS) and _comes_from(error, "orchestrator.broker", _BROKER_CLIENT)


def is_of_database(error: BaseException) -> bool:
    """Whether an error means that PostgreSQL is away, and not some file or another server of a user's code."""
    return is_connection_error(error) and (not isinstance(error, OSError) or is_ours(error))


def _comes_from(error: BaseException, package: str, client: set[str]) -> bool:
    """Whether an error was raised by a client library that we had called, or is a loss that our ``package`` has noticed.

    A user's module may use the same library for a server of its own; then it is the nearest that is not the library.
    """
    by_client = _top(type(error).__module__) in client
    for module in reversed(list(_modules(error))):
        if _top(module) in sys.stdlib_module_names or _top(module) in _EVENT_LOOP:
            continue
        if _top(module) in client:
            by_client = True
            continue
        noticed = module.startswith(f"{package}.") and isinstance(error, OSError)
        return _top(module) == "orchestrator" and (by_client or noticed)
    return by_client


def _modules(error: BaseException) -> Iterator[str]:
    """The modules that an error came through, the one that raised it last."""
    frame = error.__traceback__
    while frame is not None:
        yield str(frame.tb_frame.f_globals.get("__name__", ""))
        frame = frame.tb_next


def _top(module: str) -> str:
    return module.partition(".")[0]
