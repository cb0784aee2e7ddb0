"""The keys of the HTTP API: one look-up by a unique index for each request."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.session import DriverPool

USE_IS_WRITTEN_EVERY = "5 minutes"
"""So that a request does not cost a write."""

_IS_VALID = "revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())"

# What is unknown, revoked or expired takes the same path through the same index, and as long.
_FIND = f"""
SELECT key_id, name, role, expires_at,
       last_used_at IS NULL OR last_used_at < now() - interval '{USE_IS_WRITTEN_EVERY}' AS is_use_due
  FROM api_keys WHERE digest = $1 AND {_IS_VALID}
"""  # noqa: S608 - built from constants
_USE = "UPDATE api_keys SET last_used_at = now() WHERE key_id = $1"
_CHECK = f"SELECT EXISTS (SELECT FROM api_keys WHERE key_id = $1 AND {_IS_VALID})"  # noqa: S608 - built from constants

_INSERT = text(
    """
    INSERT INTO api_keys (key_id, digest, name, role, created_by, expires_at)
    VALUES (:key_id, :digest, :name, :role, :author, now() + make_interval(days => CAST(:days AS int)))
    RETURNING expires_at
    """
)
_LIST = text(
    f"""
    SELECT key_id, name, role, created_by, created_at, expires_at, last_used_at, revoked_at, revoked_by,
           {_IS_VALID} AS is_valid
      FROM api_keys ORDER BY created_at DESC, key_id
    """  # noqa: S608 - built from constants
)
_REVOKE = text(
    """
    UPDATE api_keys SET revoked_at = now(), revoked_by = :author WHERE key_id = :key_id AND revoked_at IS NULL
    RETURNING name
    """
)
_EXISTS = text("SELECT EXISTS (SELECT FROM api_keys WHERE key_id = :key_id)")


@dataclass(frozen=True, slots=True)
class ValidKey:
    """A key that opens the API now."""

    key_id: str
    name: str
    role: str
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key as ``orchestrator api-keys list`` shows it; the secret is stored nowhere."""

    key_id: str
    name: str
    role: str
    created_by: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None
    revoked_by: str | None
    is_valid: bool


async def find_key(pool: DriverPool, digest: bytes) -> ValidKey | None:
    """Return the key with this hash if it is valid, and write down that it was used."""
    row = await pool.fetchrow(_FIND, digest)
    if row is None:
        return None
    *values, is_use_due = row
    if is_use_due:
        await pool.execute(_USE, row["key_id"])
    return ValidKey(*values)


async def is_valid(pool: DriverPool, key_id: str) -> bool:
    """Return whether a key still opens the API."""
    return bool(await pool.fetchval(_CHECK, key_id))


async def insert_key(
    session: AsyncSession, key_id: str, digest: bytes, *, name: str, role: str, author: str, days: int | None
) -> datetime | None:
    """Store a key's hash; return when it expires, ``None`` for never."""
    values = {"key_id": key_id, "digest": digest, "name": name, "role": role, "author": author, "days": days}
    expires_at: datetime | None = await session.scalar(_INSERT, values)
    return expires_at


async def list_keys(session: AsyncSession) -> list[StoredKey]:
    """Return all keys, the newest first."""
    return [StoredKey(**row) for row in (await session.execute(_LIST)).mappings()]


async def revoke_key(session: AsyncSession, key_id: str, author: str) -> str | None:
    """Revoke a key; return its name, ``None`` when there is no such key that is not revoked."""
    name: str | None = await session.scalar(_REVOKE, {"key_id": key_id, "author": author})
    return name


async def has_key(session: AsyncSession, key_id: str) -> bool:
    """Return whether there is or was a key of this id."""
    return bool(await session.scalar(_EXISTS, {"key_id": key_id}))
