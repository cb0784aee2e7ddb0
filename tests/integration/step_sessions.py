"""A table to write to with a step's session, and what to look at afterwards."""

from __future__ import annotations

from sqlalchemy import AsyncAdaptedQueuePool
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from orchestrator.db.session import Database


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "items"

    number: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)


async def guard(database: Database) -> Database:
    async with database.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    return database


async def names(database: Database) -> list[str]:
    return [row["name"] for row in await database.pool.fetch("SELECT name FROM items ORDER BY number")]


def checked_out(database: Database) -> int:
    """How many connections steps and use cases hold."""
    pool = database.engine.pool
    assert isinstance(pool, AsyncAdaptedQueuePool)
    return pool.checkedout()
