"""Say why no consumer runs a step although consumers read its queue: for the process's log."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.plans import find_registered
from orchestrator.db.processes.queries import read_notes
from orchestrator.db.readers import QueueReader, list_readers
from orchestrator.engine.decide import NO_CONSUMER
from orchestrator.engine.plan import Leaf
from orchestrator.engine.process import Process

MAX_NOTES = 10
"""Entries about one wait, at most; consumers may come and go for days."""

MAX_READERS, MAX_REASON = 5, 300
"""Consumers that an entry names, and characters of each reason."""


async def explain_standstill(session: AsyncSession, process: Process, leaf: Leaf) -> str | None:
    """Return why no living consumer of a step's queue can run it.

    Returns:
        ``None`` when one can, when no consumer reads the queue, or when the log says it already: once for each consumer and
        reason, and step.
    """
    readers = await _list_readers(session, process, leaf)
    if not readers or any(reader.inability is None for reader in readers):
        return None
    reasons = [f"{one.name} {(one.inability or '')[:MAX_REASON]}" for one in readers[:MAX_READERS]]
    known = await read_notes(session, process.process_id, NO_CONSUMER, process.attempt)
    if len(known) >= MAX_NOTES or all(any(reason in note for note in known) for reason in reasons):
        return None
    more = [f"and {len(readers) - MAX_READERS} more"] if len(readers) > MAX_READERS else []
    return f"no consumer of the queue {leaf.queue!r} can run this step: {'; '.join([*reasons, *more])}"


async def has_no_reader(session: AsyncSession, process: Process, leaf: Leaf) -> bool:
    """Return whether living consumers read a step's queue, and none of them can run it."""
    readers = await _list_readers(session, process, leaf)
    return bool(readers) and all(reader.inability is not None for reader in readers)


async def _list_readers(session: AsyncSession, process: Process, leaf: Leaf) -> list[QueueReader]:
    registered = await find_registered(session, process.workflow)
    plans = [process.plan, None if registered is None else registered.fingerprint]
    return await list_readers(session, leaf.queue, process.workflow, [one for one in plans if one is not None])
