"""Schedules, and what became of their slots."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Computed,
    DateTime,
    Float,
    ForeignKey,
    Identity,
    Index,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.orm import Mapped, mapped_column

from orchestrator.db.tables.base import Base


class ScheduleRow(Base):
    """A schedule. Rows are kept when it is removed, so that code which still declares it does not bring it back.

    Columns that need an explanation:
        trigger: as :func:`orchestrator.engine.schedule.write_trigger` writes it.
        jitter: seconds.
        declared: the definition that the code declares, when ``origin`` is ``code``.
        touched: the fields of the definition that a person has set and that the code no longer decides.
        disabled_reason: why it is not enabled.
        settled_through: slots up to this instant are settled: no clock that steps back and no clean-up makes them start again.
        settled_wall: what the clock on the wall showed then, by the rules of the program that has settled it; programs with
            other rules of the time zone settle up to there. ``NULL`` after a change, and for triggers without a zone.
        next_slot, due_at: the next slot, and when it is to start: later by the jitter. ``NULL`` when there is none.
        zone_rules: the version of the time zones' rules by which ``next_slot`` was found.
        queued_slot: the slot that waits for the process of an earlier one.
        last_process_id: of a process that may have been deleted.
        skips: how many slots in a row were skipped because an earlier process was still running.
        broken: why it cannot start anything.
        words: what the row can be found by.
    """

    __tablename__ = "schedules"
    __table_args__ = (
        CheckConstraint("origin IN ('code', 'person')", name="origin"),
        CheckConstraint("missed IN ('skip', 'once', 'all') AND missed_limit > 0", name="missed"),
        CheckConstraint("overlap IN ('allow', 'skip', 'queue')", name="overlap"),
        CheckConstraint("jitter >= 0", name="jitter"),
        Index("ix_schedules_due_at", "due_at", postgresql_where=text("enabled AND deleted_at IS NULL")),
        Index("ix_schedules_queued_slot", "queued_slot", postgresql_where=text("queued_slot IS NOT NULL")),
    )

    schedule_id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.gen_random_uuid())
    name: Mapped[str] = mapped_column(unique=True)
    origin: Mapped[str]
    workflow: Mapped[str]
    inputs: Mapped[list[dict[str, Any]]]
    trigger: Mapped[dict[str, Any]]
    enabled: Mapped[bool]
    missed: Mapped[str]
    missed_limit: Mapped[int]
    overlap: Mapped[str]
    jitter: Mapped[float] = mapped_column(Float)
    note: Mapped[str | None]
    declared: Mapped[dict[str, Any] | None]
    touched: Mapped[list[str]] = mapped_column(server_default=text("'{}'"))
    disabled_reason: Mapped[str | None]
    settled_through: Mapped[datetime]
    settled_wall: Mapped[datetime | None] = mapped_column(DateTime(timezone=False))
    next_slot: Mapped[datetime | None]
    due_at: Mapped[datetime | None]
    zone_rules: Mapped[str]
    queued_slot: Mapped[datetime | None]
    last_slot: Mapped[datetime | None]
    last_result: Mapped[str | None]
    last_reason: Mapped[str | None]
    last_process_id: Mapped[UUID | None]
    last_at: Mapped[datetime | None]
    skips: Mapped[int] = mapped_column(server_default=text("0"))
    broken: Mapped[str | None]
    created_by: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    changed_by: Mapped[str]
    changed_at: Mapped[datetime] = mapped_column(server_default=func.now())
    deleted_by: Mapped[str | None]
    deleted_at: Mapped[datetime | None]
    words: Mapped[str | None] = mapped_column(
        TSVECTOR,
        Computed(
            "search_words(left(name, 1000) || ' '::text || left(workflow, 1000) || ' '::text"
            " || left(COALESCE(note, ''::text), 4000))",
            persisted=True,
        ),
    )


class ScheduleSlotRow(Base):
    """What became of a slot, or of several in a row.

    Columns that need an explanation:
        slot: when it was due, without the jitter; the newest one when it stands for several.
        slots: how many it stands for.
        process_id: of a process that may have been deleted.
    """

    __tablename__ = "schedule_slots"
    __table_args__ = (
        CheckConstraint("slots > 0", name="slots"),
        Index("ix_schedule_slots_at", "at"),
    )

    schedule_id: Mapped[UUID] = mapped_column(ForeignKey("schedules.schedule_id", ondelete="CASCADE"), primary_key=True)
    slot: Mapped[datetime] = mapped_column(primary_key=True)
    result: Mapped[str]
    reason: Mapped[str | None]
    slots: Mapped[int] = mapped_column(server_default=text("1"))
    process_id: Mapped[UUID | None]
    at: Mapped[datetime] = mapped_column(server_default=func.now())


class ScheduleChangeRow(Base):
    """What a person or code has done to a schedule. Append-only.

    ``changes`` has each field with what it was and what it became.
    """

    __tablename__ = "schedule_changes"
    __table_args__ = (Index("ix_schedule_changes_schedule_id", "schedule_id", "change_id"),)

    change_id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    schedule_id: Mapped[UUID] = mapped_column(ForeignKey("schedules.schedule_id", ondelete="CASCADE"))
    action: Mapped[str]
    author: Mapped[str]
    at: Mapped[datetime] = mapped_column(server_default=func.now())
    reason: Mapped[str | None]
    changes: Mapped[dict[str, Any]]


class ScheduleDeclarationRow(Base):
    """All schedules that one version of the code declares. The one with the highest number is in force.

    Columns that need an explanation:
        source: whose code: the engine's or the project's.
        schedules: name → definition.
        seen_at: when a coordinator with this code last ran.
    """

    __tablename__ = "schedule_declarations"
    __table_args__ = (
        CheckConstraint("source IN ('engine', 'project')", name="source"),
        UniqueConstraint("source", "number"),
    )

    source: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int]
    schedules: Mapped[dict[str, Any]]
    declared_by: Mapped[str]
    declared_at: Mapped[datetime] = mapped_column(server_default=func.now())
    seen_at: Mapped[datetime] = mapped_column(server_default=func.now())
