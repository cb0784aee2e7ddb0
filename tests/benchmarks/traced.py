"""The engine's programs with a record of when what happened, for :mod:`tests.benchmarks.hops`.

``python -m tests.benchmarks.traced coordinator`` is ``orchestrator coordinator`` with some of its functions wrapped. At its end
it writes what it has recorded into a folder. The program itself has no place for this.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import consumers.completion
import consumers.runner
from orchestrator.__main__ import main
from orchestrator.broker import deliveries
from orchestrator.broker.incoming import Delivery
from orchestrator.broker.outgoing import Outgoing
from orchestrator.broker.window import Window
from orchestrator.messages import MessageType

FOLDER_VARIABLE = "BENCH_TRACES"
"""Names the environment variable with the folder for the records."""

_records: list[tuple[float, str, str | None]] = []


def _note(what: str, process: str | None) -> None:
    _records.append((time.time(), what, process))


def _wrap_publishing(publish: Callable[[Window, Outgoing, str], Awaitable[bool]]) -> Callable[..., Awaitable[bool]]:
    async def wrapped(window: Window, message: Outgoing, message_id: str) -> bool:
        _note(f"{message.type} published", message.correlation_id)
        is_taken = await publish(window, message, message_id)
        _note(f"{message.type} confirmed", message.correlation_id)
        return is_taken

    return wrapped


def _wrap_reading(read: Callable[..., Delivery]) -> Callable[..., Delivery]:
    def wrapped(*arguments: Any) -> Delivery:
        delivery = read(*arguments)
        _note(f"{delivery.type} received", delivery.correlation_id)
        return delivery

    return wrapped


def _wrap_statement(
    name: str, run: Callable[..., Awaitable[Any]], find: Callable[[Any], object]
) -> Callable[..., Awaitable[Any]]:
    async def wrapped(connection: Any, rows: Any, **options: Any) -> Any:
        for one in rows:
            _note(f"{name} sent", str(find(one)))
        result = await run(connection, rows, **options)
        for one in rows:
            _note(f"{name} answered", str(find(one)))
        return result

    return wrapped


def trace() -> None:
    """Wrap the functions."""
    window: Any = Window
    window.publish = _wrap_publishing(Window.publish)
    reading: Any = deliveries
    reading.read_delivery = _wrap_reading(reading.read_delivery)
    runner: Any = consumers.runner
    runner.claim_many = _wrap_statement("claim", runner.claim_many, lambda one: one.command.process_id)
    completion: Any = consumers.completion
    completion.advance_many = _wrap_statement("outcome", completion.advance_many, lambda one: one.before.process_id)


def run() -> None:
    """Run a program and leave its record."""
    trace()
    try:
        main()
    finally:
        known = {one.value for one in (MessageType.STEP_COMMAND, MessageType.STEP_RESULT, MessageType.STEP_EVENT)}
        path = Path(os.environ[FOLDER_VARIABLE]) / f"{sys.argv[1]}.json"
        path.write_text(json.dumps([one for one in _records if one[1].split()[0] in known | {"claim", "outcome"}]))


if __name__ == "__main__":
    run()
