"""The examples' own table; ``migrations/0001_recipes.py`` creates it."""

from __future__ import annotations

from sqlalchemy import Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """A base of the project's own, so that its tables and the engine's stay apart."""


class Site(Base):
    """A building and the number of its free racks."""

    __tablename__ = "recipes_sites"

    name: Mapped[str] = mapped_column(Text, primary_key=True)
    free_racks: Mapped[int]
