"""The callbacks that processes wait for: opened with a token, parked when the action has committed, answered, closed.

A process has at most one callback that is open or parked. A transaction locks the process before its callback,
so that no two wait for each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.session import Driver, to_jsonb
from orchestrator.engine.decision import CallbackChange, CloseCallback, MoveCallback, OpenCallback, ParkCallback
from orchestrator.engine.state import read_leniently, read_value
from orchestrator.types import JSON

_CLOSE = """
UPDATE callbacks SET status = $2, token = NULL, closed_at = now()
 WHERE process_id = $1 AND status IN ('open', 'parked')
"""
_OPEN = """
INSERT INTO callbacks (token_hash, token, process_id, position, step, status, timeout)
VALUES ($1, $2, $3, $4, $5, 'open', $6)
"""
_PARK = """
UPDATE callbacks SET status = 'parked', token = NULL, deadline = statement_timestamp() + timeout * interval '1 second'
 WHERE process_id = $1 AND status = 'open'
"""
_MOVE = "UPDATE callbacks SET position = $2 WHERE process_id = $1 AND status IN ('open', 'parked')"
_PLAINTEXT = "SELECT token FROM callbacks WHERE process_id = $1 AND status = 'open'"

_LOCK = """
SELECT token_hash, position, status, timeout, deadline, outcome, payload::text AS payload FROM callbacks
 WHERE {condition} FOR UPDATE
"""
_LOCK_BY_TOKEN = text(_LOCK.format(condition="token_hash = :token_hash"))
_LOCK_PARKED = text(_LOCK.format(condition="process_id = :process_id AND status = 'parked'"))
_PROCESS = text("SELECT process_id FROM callbacks WHERE token_hash = :token_hash")
_HAS_ANSWER = text(
    "SELECT EXISTS (SELECT FROM callbacks WHERE process_id = :process_id AND status = 'parked' AND outcome IS NOT NULL)"
)
_ANSWER = text(
    "UPDATE callbacks SET outcome = :outcome, payload = CAST(:payload AS jsonb), received_at = now()"
    " WHERE token_hash = :token_hash"
)
_PROGRESS = text(
    "UPDATE callbacks SET progress = CAST(:progress AS jsonb), progress_count = progress_count + 1, progress_at = now()"
    " WHERE token_hash = :token_hash"
)
_EXPIRE = text("UPDATE callbacks SET status = 'expired' WHERE token_hash = :token_hash")
_READ_PROGRESS = text(
    """
    SELECT step, status, progress::text AS progress, deadline, created_at FROM callbacks
     WHERE process_id = :process_id AND status IN ('open', 'parked')
    """
)


@dataclass(frozen=True, slots=True)
class StoredCallback:
    """A callback as its row has it, without the token.

    Args:
        timeout: seconds from the action's commit to the deadline.
        outcome: the external system's answer, and ``payload`` what came with it; ``None`` until then.
        unreadable: why the payload in the row cannot be read.
    """

    token_hash: bytes
    position: int
    status: str
    timeout: float | None
    deadline: datetime | None
    outcome: str | None
    payload: JSON
    unreadable: str | None = None


@dataclass(frozen=True, slots=True)
class CallbackProgress:
    """What is known of the external job that a process waits for. Never the token."""

    step: str
    status: str
    progress: JSON
    deadline: datetime | None
    created_at: datetime


def hash_token(token: str | bytes) -> bytes:
    """Return what the database keeps of a callback token; bytes are that already.

    A 256-bit random token needs no salt and no slow hash.
    """
    return token if isinstance(token, bytes) else sha256(token.encode()).digest()


async def change_callback(connection: Driver, process_id: UUID, change: CallbackChange) -> None:
    """Store what a decision does to the process's callback."""
    match change:
        case OpenCallback(position, step, token, timeout):
            await connection.execute(_CLOSE, process_id, "superseded")
            seconds = None if timeout is None else timeout.total_seconds()
            await connection.execute(_OPEN, hash_token(token), token, process_id, position, step, seconds)
        case ParkCallback():
            await connection.execute(_PARK, process_id)
        case MoveCallback(position):
            await connection.execute(_MOVE, process_id, position)
        case CloseCallback(outcome):
            await connection.execute(_CLOSE, process_id, outcome)


async def read_token(connection: Driver, process_id: UUID) -> str | None:
    """Return the token that the action of a callback step hands out; ``None`` once the action has committed."""
    token: str | None = await connection.fetchval(_PLAINTEXT, process_id)
    return token


async def find_process_by_token(session: AsyncSession, token: str | bytes) -> UUID | None:
    """Return the process that a token belongs to, without locking anything; ``None`` for an unknown token."""
    process_id: UUID | None = await session.scalar(_PROCESS, {"token_hash": hash_token(token)})
    return process_id


async def lock_by_token(session: AsyncSession, token: str | bytes) -> StoredCallback | None:
    """Lock and return a callback, whatever its status; ``None`` for an unknown token."""
    return _callback((await session.execute(_LOCK_BY_TOKEN, {"token_hash": hash_token(token)})).one_or_none())


async def lock_parked(session: AsyncSession, process_id: UUID) -> StoredCallback | None:
    """Lock and return the callback that a process waits for; ``None`` when it waits for none."""
    return _callback((await session.execute(_LOCK_PARKED, {"process_id": process_id})).one_or_none())


async def has_answer(session: AsyncSession, process_id: UUID) -> bool:
    """Return whether the callback that a process waits for has been answered, without locking anything."""
    return bool(await session.scalar(_HAS_ANSWER, {"process_id": process_id}))


async def store_answer(session: AsyncSession, callback: StoredCallback, outcome: str, payload: JSON) -> None:
    """Store the external system's answer to a locked callback."""
    encoded = None if payload is None else to_jsonb(payload)
    await session.execute(_ANSWER, {"token_hash": callback.token_hash, "outcome": outcome, "payload": encoded})


async def store_progress(session: AsyncSession, callback: StoredCallback, progress: JSON) -> None:
    """Store the newest progress report for a locked callback."""
    encoded = None if progress is None else to_jsonb(progress)
    await session.execute(_PROGRESS, {"token_hash": callback.token_hash, "progress": encoded})


async def mark_expired(session: AsyncSession, callback: StoredCallback) -> None:
    """Store that a locked callback was closed because its deadline passed."""
    await session.execute(_EXPIRE, {"token_hash": callback.token_hash})


async def read_progress(session: AsyncSession, process_id: UUID) -> CallbackProgress | None:
    """Return the callback that a process waits for, or whose action it runs."""
    row = (await session.execute(_READ_PROGRESS, {"process_id": process_id})).one_or_none()
    if row is None:
        return None
    return CallbackProgress(
        row.step, row.status, row.progress and read_leniently(row.progress), row.deadline, row.created_at
    )


def _callback(row: Any) -> StoredCallback | None:
    if row is None:
        return None
    payload, unreadable = None, None
    try:
        payload = None if row.payload is None else read_value(row.payload)
    except ValueError as error:
        unreadable = str(error)
    return StoredCallback(
        row.token_hash, row.position, row.status, row.timeout, row.deadline, row.outcome, payload, unreadable
    )
