"""Who is signed in to the pages: one look-up by the primary key for each request."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic_core import from_json, to_json

from orchestrator.db.session import DriverPool

# A session of an API key ends with the key.
_FIND = """
SELECT s.user_name, s.roles, s.claims::text AS claims, s.key_id, s.expires_at
  FROM browser_sessions s LEFT JOIN api_keys k USING (key_id)
 WHERE s.digest = $1 AND s.expires_at > now()
   AND (s.key_id IS NULL OR (k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now())))
"""
_INSERT = """
INSERT INTO browser_sessions (digest, user_name, roles, claims, key_id, expires_at)
VALUES ($1, $2, $3::text[], $4::text::jsonb, $5,
        least(now() + $6::float8 * interval '1 second', to_timestamp($7::float8)))
"""
_DELETE = "DELETE FROM browser_sessions WHERE digest = $1"
_DELETE_EXPIRED = "DELETE FROM browser_sessions WHERE expires_at < now()"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSession:
    """Who is signed in.

    Args:
        claims: of the token; empty for an API key.
        key_id: of the API key; ``None`` for a token.
    """

    user_name: str
    roles: Collection[str]
    claims: Mapping[str, Any]
    key_id: str | None
    expires_at: datetime | None = None


async def find_session(pool: DriverPool, digest: bytes) -> StoredSession | None:
    """Return the session of a cookie's hash; ``None`` when there is none that is valid now."""
    row = await pool.fetchrow(_FIND, digest)
    if row is None:
        return None
    values = dict(row)
    return StoredSession(**{**values, "claims": from_json(values["claims"])})


async def insert_session(
    pool: DriverPool, digest: bytes, session: StoredSession, longest: float, ends_at: float | None
) -> None:
    """Store a session, and delete those that have expired.

    Args:
        longest: seconds after which it ends.
        ends_at: when it ends at the latest, in seconds since 1970: the token or key ends then.
    """
    await pool.execute(_DELETE_EXPIRED)
    claims = to_json(dict(session.claims)).decode()
    await pool.execute(
        _INSERT, digest, session.user_name, list(session.roles), claims, session.key_id, longest, ends_at
    )


async def delete_session(pool: DriverPool, digest: bytes) -> None:
    """End a session."""
    await pool.execute(_DELETE, digest)
