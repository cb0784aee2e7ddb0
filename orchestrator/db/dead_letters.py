"""The dead letters, as rows: kept, listed, locked for a replay, closed, and forgotten after a while."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.session import DriverPool, to_jsonb
from orchestrator.errors import ConflictError, NotFoundError
from orchestrator.messages import DeadLetter

# What the message says of its process, completed by what the database knows.
_KEEP = text(
    """
    INSERT INTO dead_letters (letter_id, digest, died_at, reason, queue, exchange, routing_key, process_id, workflow, step,
                              token_hash, properties, packed_headers, body, unhandled)
    SELECT COALESCE(CAST(:letter_id AS uuid), gen_random_uuid()), :digest, COALESCE(:died_at, now()), :reason, :queue,
           :exchange, :routing_key, COALESCE(CAST(:process_id AS uuid), c.process_id),
           COALESCE(p.workflow, CAST(:workflow AS text)), COALESCE(c.step, CAST(:step AS text)), :token_hash,
           CAST(:properties AS jsonb), :packed_headers, :body, :unhandled
      FROM (SELECT) AS one
      LEFT JOIN callbacks c ON c.token_hash = :token_hash
      LEFT JOIN processes p ON p.process_id = COALESCE(CAST(:process_id AS uuid), c.process_id)
     WHERE NOT (:is_redelivered AND EXISTS (SELECT FROM dead_letters d WHERE d.digest = :digest))
    ON CONFLICT (letter_id) DO NOTHING
    RETURNING letter_id
    """
)
_COLUMNS = """
letter_id, died_at, reason, queue, exchange, routing_key, process_id, workflow, step, properties, octet_length(body) AS size,
outcome, closed_at, closed_by
"""
_CONDITIONS = """
(:closed OR closed_at IS NULL)
   AND (CAST(:queue AS text) IS NULL OR queue = :queue)
   AND (CAST(:workflow AS text) IS NULL OR workflow = :workflow)
   AND (CAST(:process_id AS uuid) IS NULL OR process_id = :process_id)
"""
_LIST = text(
    f"SELECT {_COLUMNS} FROM dead_letters WHERE {_CONDITIONS}"  # noqa: S608 - built from constants
    " ORDER BY died_at DESC, letter_id LIMIT :limit OFFSET :offset"
)
_COUNT = text(f"SELECT count(*) FROM dead_letters WHERE {_CONDITIONS}")  # noqa: S608 - as above
_OLDEST = text(f"SELECT letter_id FROM dead_letters WHERE {_CONDITIONS} ORDER BY died_at, letter_id")  # noqa: S608
_READ = f"SELECT {_COLUMNS}, body, packed_headers, token_hash, digest FROM dead_letters WHERE letter_id = :letter_id"  # noqa: S608
_READ_ONE = text(_READ)
_LOCK = text(f"{_READ} FOR UPDATE SKIP LOCKED")
_CLOSE = text(
    "UPDATE dead_letters SET outcome = :outcome, closed_at = now(), closed_by = :author WHERE letter_id = :letter_id"
)
_OPEN = text(
    "SELECT count(*) AS letters, COALESCE(sum(octet_length(body)), 0)::bigint AS bytes FROM dead_letters WHERE closed_at IS NULL"
)
# A flood that was discarded at once is forgotten at once, and none of these statements may take long.
_FORGET = text(
    """
    DELETE FROM dead_letters
     WHERE letter_id IN (SELECT letter_id FROM dead_letters WHERE closed_at < now() - :days * interval '24 hours'
                          ORDER BY closed_at LIMIT 1000 FOR UPDATE SKIP LOCKED)
    """
)


@dataclass(frozen=True, slots=True)
class LetterSummary:
    """A dead letter without its body.

    Args:
        properties: what the sender has set, headers included.
        size: of the body, in bytes.
        outcome: ``replayed``, ``discarded``, or ``None`` while it is open.
    """

    letter_id: UUID
    died_at: datetime
    reason: str
    queue: str
    exchange: str
    routing_key: str
    process_id: UUID | None
    workflow: str | None
    step: str | None
    properties: dict[str, Any]
    size: int
    outcome: str | None
    closed_at: datetime | None
    closed_by: str | None


@dataclass(frozen=True, slots=True)
class StoredLetter:
    """A dead letter as it is kept, and the message in it."""

    summary: LetterSummary
    letter: DeadLetter


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which letters to list: the open ones, or all, of a queue, a workflow, a process."""

    closed: bool = False
    queue: str | None = None
    workflow: str | None = None
    process_id: UUID | None = None

    def parameters(self) -> dict[str, object]:
        """Return the parameters of a statement."""
        return {
            "closed": self.closed,
            "queue": self.queue,
            "workflow": self.workflow,
            "process_id": self.process_id,
        }


@dataclass(frozen=True, slots=True)
class OpenLetters:
    """How many letters are open, and the bytes of their bodies."""

    letters: int
    bytes: int


async def insert_letter(
    session: AsyncSession,
    letter: DeadLetter,
    *,
    process_id: UUID | None,
    workflow: str | None,
    step: str | None,
    is_redelivered: bool,
) -> UUID | None:
    """Store a letter; return its id, or ``None`` when it is there already."""
    found: UUID | None = await session.scalar(
        _KEEP,
        {
            "letter_id": letter.letter_id,
            "digest": letter.digest,
            "died_at": letter.died_at,
            "reason": letter.reason,
            "queue": letter.queue,
            "exchange": letter.exchange,
            "routing_key": letter.routing_key,
            "process_id": process_id,
            "workflow": workflow,
            "step": step,
            "token_hash": letter.token_hash,
            "properties": to_jsonb(letter.properties),
            "packed_headers": letter.packed_headers,
            "body": letter.body,
            "unhandled": letter.unhandled,
            "is_redelivered": is_redelivered,
        },
    )
    return found


async def list_letters(session: AsyncSession, wanted: Wanted, limit: int, offset: int = 0) -> list[LetterSummary]:
    """Return letters, the newest death first."""
    rows = await session.execute(_LIST, {**wanted.parameters(), "limit": limit, "offset": offset})
    return [LetterSummary(**row) for row in rows.mappings()]


async def count_letters(session: AsyncSession, wanted: Wanted) -> int:
    """Return how many letters there are."""
    return int(await session.scalar(_COUNT, wanted.parameters()) or 0)


async def list_oldest_first(session: AsyncSession, wanted: Wanted) -> Sequence[UUID]:
    """Return the ids of letters in the order in which they died."""
    return list(await session.scalars(_OLDEST, wanted.parameters()))


async def read_letter(session: AsyncSession, letter_id: UUID) -> StoredLetter:
    """Return a letter, whatever has become of it.

    Raises:
        NotFoundError: there is none.
    """
    row = (await session.execute(_READ_ONE, {"letter_id": letter_id})).mappings().one_or_none()
    if row is None:
        raise NotFoundError(f"there is no dead letter {letter_id}")
    return _stored(row)


async def read_sender(pool: DriverPool, letter_id: UUID) -> str | None:
    """Return the broker's user who has sent the message of a letter; ``None`` when the message does not say it."""
    query = "SELECT properties ->> 'user_id' FROM dead_letters WHERE letter_id = $1"
    sender: str | None = await pool.fetchval(query, letter_id)
    return sender


async def lock_open_letter(session: AsyncSession, letter_id: UUID) -> StoredLetter:
    """Lock and return an open letter until the end of the transaction, without waiting for others.

    Raises:
        NotFoundError: there is none.
        ConflictError: it was replayed or discarded, or another program is about to do so.
    """
    row = (await session.execute(_LOCK, {"letter_id": letter_id})).mappings().one_or_none()
    if row is None:
        await read_letter(session, letter_id)
        raise ConflictError(f"the dead letter {letter_id} is being replayed or discarded at this moment")
    stored = _stored(row)
    if stored.summary.outcome is not None:
        raise ConflictError(
            f"the dead letter {letter_id} was {stored.summary.outcome} by {stored.summary.closed_by}",
            {"outcome": stored.summary.outcome, "closed_by": stored.summary.closed_by},
        )
    return stored


async def close_letter(session: AsyncSession, letter_id: UUID, outcome: str, author: str) -> None:
    """Record what has become of a locked letter, and by whom."""
    await session.execute(_CLOSE, {"letter_id": letter_id, "outcome": outcome, "author": author})


async def count_open(session: AsyncSession) -> OpenLetters:
    """Return how much is open."""
    row = (await session.execute(_OPEN)).one()
    return OpenLetters(row.letters, row.bytes)


async def forget_closed(session: AsyncSession, days: float) -> None:
    """Delete letters that were closed more than so many days ago, a thousand at most."""
    await session.execute(_FORGET, {"days": days})


def _stored(row: Any) -> StoredLetter:
    summary = LetterSummary(**{name: row[name] for name in LetterSummary.__dataclass_fields__})
    letter = DeadLetter(
        letter_id=row["letter_id"],
        packed_headers=row["packed_headers"],
        body=row["body"],
        token_hash=row["token_hash"],
        digest=row["digest"],
        **{name: row[name] for name in ("reason", "died_at", "queue", "exchange", "routing_key", "properties")},
    )
    return StoredLetter(summary, letter)
