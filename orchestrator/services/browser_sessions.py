"""Sign browsers in and out. A session's secret is in the browser's cookie; only its hash is stored."""

from __future__ import annotations

import secrets
from hashlib import sha256

from orchestrator.authorization import Role, User
from orchestrator.db import browser_sessions
from orchestrator.db.browser_sessions import StoredSession
from orchestrator.db.session import Database

SECRET_LENGTH = 43
"""Characters of 256 random bits."""


def make_secret() -> str:
    """Return a new secret."""
    return secrets.token_urlsafe(32)


async def open_session(
    database: Database, user: User, *, key_id: str | None, longest: float, ends_at: float | None
) -> str:
    """Sign a user in; return the secret of the session.

    Args:
        key_id: of the API key that the user has shown.
        longest: seconds after which the session ends.
        ends_at: when the key or token ends, in seconds since 1970.
    """
    secret = make_secret()
    stored = StoredSession(
        user_name=str(user), roles=sorted(role.value for role in user.roles), claims=user.claims, key_id=key_id
    )
    await browser_sessions.insert_session(database.pool, _hash(secret), stored, longest, ends_at)
    return secret


async def find_session(database: Database, secret: str) -> tuple[User, StoredSession] | None:
    """Return who has signed in with a secret; ``None`` when nobody has, or the session has ended."""
    found = await browser_sessions.find_session(database.pool, _hash(secret))
    if found is None:
        return None
    return User(found.user_name, [Role(role) for role in found.roles], found.claims), found


async def close_session(database: Database, secret: str) -> None:
    """Sign out."""
    await browser_sessions.delete_session(database.pool, _hash(secret))


def _hash(secret: str) -> bytes:
    return sha256(secret.encode()).digest()
