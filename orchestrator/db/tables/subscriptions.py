"""Subscriptions: what customers have, the blocks it is made of, who touched it, and every change of it."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Computed, ForeignKey, Identity, Index, func, text
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.orm import Mapped, mapped_column

from orchestrator.db.tables.base import Base


class SubscriptionRow(Base):
    """What a customer has of a product.

    Columns that need an explanation:
        insync: whether no workflow is changing it: the lock. See ``locked_by``.
        locked_by: the process that has taken the lock; ``NULL`` when no process holds it.
        words: what the row itself can be found by.
        block_words: what it can be found by beside that, the values of its blocks. Triggers on the blocks write it.
        version: raised by every change of what the subscription *is* – not by locking and unlocking it.
    """

    __tablename__ = "subscriptions"
    __table_args__ = (
        # Lists are pages in this order, whatever they are filtered by: each filter has an index that ends like it.
        Index("ix_subscriptions_created_at", text("created_at DESC"), "subscription_id"),
        Index("ix_subscriptions_status", "status", text("created_at DESC"), "subscription_id"),
        Index("ix_subscriptions_product_id", "product_id", text("created_at DESC"), "subscription_id"),
        Index("ix_subscriptions_customer_id", "customer_id", text("created_at DESC"), "subscription_id"),
        Index(
            "ix_subscriptions_out_of_sync",
            text("created_at DESC"),
            "subscription_id",
            postgresql_where=text("NOT insync"),
        ),
        Index("ix_subscriptions_start_date", text("start_date DESC NULLS LAST"), "subscription_id"),
        Index("ix_subscriptions_words", "words", postgresql_using="gin", postgresql_with={"fastupdate": "off"}),
        Index(
            "ix_subscriptions_block_words", "block_words", postgresql_using="gin", postgresql_with={"fastupdate": "off"}
        ),
        Index("ix_subscriptions_locked_by", "locked_by", postgresql_where=text("locked_by IS NOT NULL")),
        CheckConstraint(
            "status IN ('initial', 'active', 'migrating', 'disabled', 'terminated', 'provisioning')", name="status"
        ),
        CheckConstraint("NOT insync OR locked_by IS NULL", name="lock"),
    )

    subscription_id: Mapped[UUID] = mapped_column(primary_key=True)
    product_id: Mapped[UUID] = mapped_column(ForeignKey("products.product_id"))
    customer_id: Mapped[str]
    description: Mapped[str]
    status: Mapped[str]
    insync: Mapped[bool]
    locked_by: Mapped[UUID | None] = mapped_column(ForeignKey("processes.process_id", ondelete="SET NULL"))
    start_date: Mapped[datetime | None]
    end_date: Mapped[datetime | None]
    note: Mapped[str | None]
    version: Mapped[int] = mapped_column(server_default=text("1"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    words: Mapped[str | None] = mapped_column(
        TSVECTOR(),
        Computed(
            # As PostgreSQL writes it: a comparison with the migrations would otherwise find a difference.
            "search_words(left(description, 4000) || ' '::text || left(customer_id, 1000) || ' '::text"
            " || left(COALESCE(note, ''::text), 4000))",
            persisted=True,
        ),
    )
    block_words: Mapped[str] = mapped_column(TSVECTOR(), server_default=text("''"))


class SubscriptionInstanceRow(Base):
    """One product block of a subscription, with the values of its resource types as JSON (``null`` values are left out)."""

    __tablename__ = "subscription_instances"
    __table_args__ = (
        Index("ix_subscription_instances_subscription_id", "subscription_id"),
        Index("ix_subscription_instances_product_block_id", "product_block_id"),
    )

    subscription_instance_id: Mapped[UUID] = mapped_column(primary_key=True)
    subscription_id: Mapped[UUID] = mapped_column(ForeignKey("subscriptions.subscription_id", ondelete="CASCADE"))
    product_block_id: Mapped[UUID] = mapped_column(ForeignKey("product_blocks.product_block_id"))
    label: Mapped[str | None]
    # Not "values": that is a word of SQL.
    resources: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))


class SubscriptionRootRow(Base):
    """A block that stands in a field of the subscription itself; it may belong to another subscription."""

    __tablename__ = "subscription_roots"
    __table_args__ = (Index("ix_subscription_roots_depends_on_id", "depends_on_id"),)

    subscription_id: Mapped[UUID] = mapped_column(
        ForeignKey("subscriptions.subscription_id", ondelete="CASCADE"), primary_key=True
    )
    field: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    depends_on_id: Mapped[UUID] = mapped_column(ForeignKey("subscription_instances.subscription_instance_id"))


class SubscriptionInstanceRelationRow(Base):
    """A block that stands in a field of another block; the two may belong to different subscriptions."""

    __tablename__ = "subscription_instance_relations"
    __table_args__ = (Index("ix_subscription_instance_relations_depends_on_id", "depends_on_id"),)

    in_use_by_id: Mapped[UUID] = mapped_column(
        ForeignKey("subscription_instances.subscription_instance_id", ondelete="CASCADE"), primary_key=True
    )
    field: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    depends_on_id: Mapped[UUID] = mapped_column(ForeignKey("subscription_instances.subscription_instance_id"))


class ProcessSubscriptionRow(Base):
    """A process has touched a subscription."""

    __tablename__ = "processes_subscriptions"
    __table_args__ = (Index("ix_processes_subscriptions_subscription_id", "subscription_id", "created_at"),)

    process_id: Mapped[UUID] = mapped_column(ForeignKey("processes.process_id", ondelete="CASCADE"), primary_key=True)
    subscription_id: Mapped[UUID] = mapped_column(ForeignKey("subscriptions.subscription_id"), primary_key=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class SubscriptionChangeRow(Base):
    """One change of a subscription: what was different afterwards, and who did it. Append-only.

    No foreign key on ``process_id``: the audit trail of a subscription may outlive its processes'.

    ``changes`` maps a key to its old and new value: ``{"status": ["initial", "active"], "<block>.ims_id": [null, 7]}``; see
    :mod:`orchestrator.db.subscriptions.change_keys`.
    """

    __tablename__ = "subscription_changes"
    __table_args__ = (
        Index("ix_subscription_changes_subscription_id", "subscription_id", "change_id"),
        Index("ix_subscription_changes_process_id", "process_id", postgresql_where=text("process_id IS NOT NULL")),
    )

    change_id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    subscription_id: Mapped[UUID] = mapped_column(ForeignKey("subscriptions.subscription_id", ondelete="CASCADE"))
    version: Mapped[int]
    process_id: Mapped[UUID | None]
    step: Mapped[str | None]
    attempt: Mapped[int | None]
    author: Mapped[str]
    changes: Mapped[dict[str, Any]]
    note: Mapped[str | None]
    at: Mapped[datetime] = mapped_column(server_default=func.now())
