"""The project's own tables, as SQLAlchemy models. The migration beside this file makes them."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import ForeignKey, Text, func
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """A base of the project's own, so that its tables and the engine's stay apart."""

    type_annotation_map = {str: Text()}  # noqa: RUF012 - SQLAlchemy reads it from the class


class Node(Base):
    """A router and how many ports it has."""

    __tablename__ = "inventory_nodes"

    name: Mapped[str] = mapped_column(primary_key=True)
    ports: Mapped[int]


class Line(Base):
    """A customer's line on one port of a node.

    Nothing here forbids two lines of one process: that there is only ever one is the engine's doing, and the demo counts.
    """

    __tablename__ = "inventory_lines"

    line_id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.gen_random_uuid())
    process_id: Mapped[UUID]
    node: Mapped[str] = mapped_column(ForeignKey("inventory_nodes.name"))
    port: Mapped[int]
    customer: Mapped[str]
    bandwidth: Mapped[int]
    protected: Mapped[bool] = mapped_column(default=False)
    status: Mapped[str] = mapped_column(default="reserved")


class BurnIn(Base):
    """A test run of a line: written when the test starts, kept only if it ends well."""

    __tablename__ = "inventory_burn_ins"

    burn_in_id: Mapped[int] = mapped_column(primary_key=True)
    line_id: Mapped[UUID] = mapped_column(ForeignKey("inventory_lines.line_id"))
    rounds: Mapped[int] = mapped_column(default=0)
