"""What the steps of all test workflows use: a journal outside of any transaction, gates to wait at, a table to write to."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from uuid import UUID

from sqlalchemy import Identity
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


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


def lab() -> Path:
    """The folder that steps and tests share."""
    return Path(os.environ["LAB"])


def note(process_id: UUID, what: str, **facts: object) -> None:
    """Write a line that stays, whatever becomes of the transaction."""
    line = json.dumps({"process_id": str(process_id), "what": what, "pid": os.getpid(), "at": time.time(), **facts})
    descriptor = os.open(lab() / "journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)


def is_open(gate: object) -> bool:
    """Whether a test has opened a gate."""
    return (lab() / "gates" / str(gate)).exists()


async def wait_at(gate: object) -> None:
    """Wait until a test opens a gate."""
    while not is_open(gate):  # noqa: ASYNC110 - a file, opened by another program
        await asyncio.sleep(0.02)


async def effect(session: AsyncSession, process_id: UUID, step: str) -> None:
    """Write into our own table, inside the step's transaction."""
    session.add(Effect(process_id=process_id, step=step))
    await session.flush()
