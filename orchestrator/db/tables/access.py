"""Who may use the HTTP API and its pages."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, LargeBinary, func
from sqlalchemy.orm import Mapped, mapped_column

from orchestrator.db.tables.base import Base


class ApiKeyRow(Base):
    """A key by which a program is known to the HTTP API. Rows are kept after the key has ended.

    Columns that need an explanation:
        key_id: the public part of the key, by which people name it.
        digest: the SHA-256 of the whole key. The key has 256 random bits, so a slow hash would protect nothing more.
        role: the highest one; it includes those below.
        last_used_at: late by some minutes, so that a request does not cost a write.
    """

    __tablename__ = "api_keys"

    key_id: Mapped[str] = mapped_column(primary_key=True)
    digest: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    name: Mapped[str]
    role: Mapped[str]
    created_by: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    revoked_by: Mapped[str | None]


class BrowserSessionRow(Base):
    """A browser that is signed in to the pages of ``/ui``. Rows are deleted at sign-out or after they have expired.

    Columns that need an explanation:
        digest: the SHA-256 of the cookie, which has 256 random bits.
        claims: of the token; empty for an API key.
        key_id: of the API key with which the user has signed in. The session ends with the key.
    """

    __tablename__ = "browser_sessions"

    digest: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    user_name: Mapped[str]
    roles: Mapped[list[str]]
    claims: Mapped[dict[str, Any]]
    key_id: Mapped[str | None] = mapped_column(ForeignKey("api_keys.key_id", ondelete="CASCADE"), index=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime] = mapped_column(index=True)
