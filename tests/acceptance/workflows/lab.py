"""What the steps of all test workflows use: a journal outside of any transaction, gates to wait at, a table to write to."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Identity
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tests.acceptance.journal import is_open, lab, note, wait_at

__all__ = ["Base", "Effect", "StrictEffect", "effect", "is_open", "lab", "note", "wait_at"]


class Base(DeclarativeBase):
    """The project's own models."""


class Effect(Base):
    """Something that a step has done."""

    __tablename__ = "effects"

    effect_id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    process_id: Mapped[UUID]
    step: Mapped[str]


class StrictEffect(Base):
    """A table with constraints, one of which is looked at only when the transaction commits."""

    __tablename__ = "strict_effects"

    name: Mapped[str] = mapped_column(primary_key=True)
    other: Mapped[str | None]


async def effect(session: AsyncSession, process_id: UUID, step: str) -> None:
    """Write into our own table, inside the step's transaction."""
    session.add(Effect(process_id=process_id, step=step))
    await session.flush()
