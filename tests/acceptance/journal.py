"""What the steps of the test projects tell the tests outside of any transaction: a journal, and gates to wait at."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from uuid import UUID


def lab() -> Path:
    """Return the folder that steps and tests share."""
    return Path(os.environ["LAB"])


def note(process_id: UUID | str, what: str, **facts: object) -> None:
    """Write a line that stays, whatever becomes of the transaction."""
    line = json.dumps({"process_id": str(process_id), "what": what, "pid": os.getpid(), "at": time.time(), **facts})
    descriptor = os.open(lab() / "journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)


def is_open(gate: object) -> bool:
    """Whether a test has opened a gate."""
    return (lab() / "gates" / str(gate)).exists()


async def wait_at(gate: object) -> None:
    """Wait until a test opens a gate."""
    while not is_open(gate):  # noqa: ASYNC110 - a file, opened by another program
        await asyncio.sleep(0.02)
