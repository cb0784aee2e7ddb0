"""Record which commands about a process were carried out, so that a repeated one takes effect once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from uuid import UUID

from pydantic_core import to_json
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.tables import CommandRow
from orchestrator.errors import ConflictError
from orchestrator.types import JSON, sort_keys


@dataclass(frozen=True, slots=True)
class Command:
    """A command about a process.

    Args:
        key: repeated commands with the same key count once; ``None`` makes each one count.
        wants: the kind of command and its arguments, which tell a repeated command from another one with the same key.
    """

    process_id: UUID
    key: str | None
    wants: Sequence[JSON]

    def digest(self) -> bytes:
        """Return the digest of ``wants``, which the database stores."""
        return sha256(to_json(sort_keys(list(self.wants)))).digest()


async def is_repeated(session: AsyncSession, command: Command) -> bool:
    """Return whether the command was carried out before. While the process is locked, no other transaction can do so.

    Raises:
        ConflictError: its key was used for a different command.
    """
    if command.key is None:
        return False
    query = select(CommandRow.digest).where(CommandRow.process_id == command.process_id, CommandRow.key == command.key)
    digest = await session.scalar(query)
    if digest is not None and digest != command.digest():
        raise ConflictError(
            f"the idempotency key (or message_id) {command.key!r} was already used for another command about the process"
            f" {command.process_id}: give each command a key of its own"
        )
    return digest is not None


async def record_command(session: AsyncSession, command: Command, sequence: int) -> None:
    """Record, in the transaction that carries the command out, that ``sequence`` is its first log entry."""
    if command.key is not None:
        row = CommandRow(process_id=command.process_id, key=command.key, digest=command.digest(), sequence=sequence)
        session.add(row)
        await session.flush()
