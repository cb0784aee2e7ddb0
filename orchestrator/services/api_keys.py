"""API keys: make, find and revoke them. A key is shown once; only its hash is stored.

A key is ``orch_<id>_<secret>``. The id is public: it names the key in lists and logs. The secret has 256 random bits.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.authorization import MAX_USER, Role, is_user_name
from orchestrator.db import api_keys
from orchestrator.db.api_keys import StoredKey, ValidKey
from orchestrator.db.session import Database
from orchestrator.errors import ConflictError, InvalidInputError, NotFoundError

PREFIX = "orch_"
_KEY = re.compile(rf"{PREFIX}[0-9a-f]{{12}}_[0-9a-f]{{64}}")


@dataclass(frozen=True, slots=True)
class MadeKey:
    """A new key. ``secret`` is all of it, and cannot be read again."""

    key_id: str
    secret: str
    expires_at: datetime | None


async def create_key(session: AsyncSession, name: str, role: Role, user: str, days: int | None) -> MadeKey:
    """Make a key.

    Args:
        name: who acts with the key; the audit trail has this name.
        days: after which the key expires; ``None`` for never.

    Raises:
        InvalidInputError: the name is not 1 to 200 printable characters.
    """
    if not is_user_name(name):
        raise InvalidInputError(f"the name of an API key has 1 to {MAX_USER} printable characters")
    key_id = secrets.token_hex(6)
    secret = f"{PREFIX}{key_id}_{secrets.token_hex(32)}"
    digest = _hash(secret)
    expires_at = await api_keys.insert_key(session, key_id, digest, name=name, role=role, author=user, days=days)
    return MadeKey(key_id, secret, expires_at)


async def find_key(database: Database, secret: str) -> ValidKey | None:
    """Return what a key opens; ``None`` when it is unknown, revoked or has expired."""
    if not _KEY.fullmatch(secret):
        return None
    return await api_keys.find_key(database.pool, _hash(secret))


async def is_valid(database: Database, key_id: str) -> bool:
    """Return whether a key that was found before is neither revoked nor expired now."""
    return await api_keys.is_valid(database.pool, key_id)


async def list_keys(session: AsyncSession) -> list[StoredKey]:
    """Return all keys, also those that open nothing any more, the newest first."""
    return await api_keys.list_keys(session)


async def revoke_key(session: AsyncSession, key_id: str, user: str) -> str:
    """Revoke a key at once; return its name.

    Raises:
        NotFoundError: there is no such key.
        ConflictError: it is revoked already.
    """
    name = await api_keys.revoke_key(session, key_id, user)
    if name is not None:
        return name
    if await api_keys.has_key(session, key_id):
        raise ConflictError(f"the API key {key_id} is revoked already")
    raise NotFoundError(f"there is no API key {key_id!r}: 'orchestrator api-keys list' shows them")


def _hash(secret: str) -> bytes:
    return sha256(secret.encode()).digest()
