"""The catalogue: products, the blocks they are made of, and which workflows each product has."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, ForeignKeyConstraint, Identity, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from orchestrator.db.tables.base import Base

SINGLE_TARGETS = ("CREATE", "TERMINATE", "VALIDATE", "RECONCILE")
"""Targets of which a product may have one workflow at most."""


class ProductRow(Base):
    """What customers can subscribe to. Products of one type share their model; fixed inputs tell them apart."""

    __tablename__ = "products"

    product_id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.gen_random_uuid())
    name: Mapped[str] = mapped_column(unique=True)
    description: Mapped[str] = mapped_column(server_default="")
    product_type: Mapped[str]
    tag: Mapped[str] = mapped_column(server_default="")
    status: Mapped[str] = mapped_column(server_default="active")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    end_date: Mapped[datetime | None]


class FixedInputRow(Base):
    """A property of a product that no subscription can change, for example its speed."""

    __tablename__ = "fixed_inputs"

    product_id: Mapped[UUID] = mapped_column(ForeignKey("products.product_id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]


class ProductBlockRow(Base):
    """A named group of resource types that products are made of."""

    __tablename__ = "product_blocks"

    product_block_id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.gen_random_uuid())
    name: Mapped[str] = mapped_column(unique=True)
    description: Mapped[str] = mapped_column(server_default="")
    tag: Mapped[str] = mapped_column(server_default="")
    status: Mapped[str] = mapped_column(server_default="active")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    end_date: Mapped[datetime | None]


class ResourceTypeRow(Base):
    """The name of a value that blocks can hold. The same name may be used by several blocks."""

    __tablename__ = "resource_types"

    resource_type_id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.gen_random_uuid())
    resource_type: Mapped[str] = mapped_column(unique=True)
    description: Mapped[str] = mapped_column(server_default="")


class ProductProductBlockRow(Base):
    """A product is made of this block (blocks inside blocks are relations between blocks)."""

    __tablename__ = "product_product_blocks"
    __table_args__ = (Index("ix_product_product_blocks_product_block_id", "product_block_id"),)

    product_id: Mapped[UUID] = mapped_column(ForeignKey("products.product_id", ondelete="CASCADE"), primary_key=True)
    product_block_id: Mapped[UUID] = mapped_column(ForeignKey("product_blocks.product_block_id"), primary_key=True)


class ProductBlockResourceTypeRow(Base):
    """A block holds a value of this resource type."""

    __tablename__ = "product_block_resource_types"
    __table_args__ = (Index("ix_product_block_resource_types_resource_type_id", "resource_type_id"),)

    product_block_id: Mapped[UUID] = mapped_column(
        ForeignKey("product_blocks.product_block_id", ondelete="CASCADE"), primary_key=True
    )
    resource_type_id: Mapped[UUID] = mapped_column(ForeignKey("resource_types.resource_type_id"), primary_key=True)


class ProductBlockRelationRow(Base):
    """Blocks of one kind refer to blocks of another kind."""

    __tablename__ = "product_block_relations"
    __table_args__ = (Index("ix_product_block_relations_depends_on_id", "depends_on_id"),)

    in_use_by_id: Mapped[UUID] = mapped_column(
        ForeignKey("product_blocks.product_block_id", ondelete="CASCADE"), primary_key=True
    )
    depends_on_id: Mapped[UUID] = mapped_column(ForeignKey("product_blocks.product_block_id"), primary_key=True)


class ProductWorkflowRow(Base):
    """A product has this workflow.

    ``target`` repeats the workflow's, so that the database itself can refuse a second workflow of a kind that may stand once.
    """

    __tablename__ = "products_workflows"
    __table_args__ = (
        ForeignKeyConstraint(
            ["workflow_id", "target"],
            ["workflows.workflow_id", "workflows.target"],
            name="fk_products_workflows_workflow_id",
            onupdate="CASCADE",
        ),
        Index(
            "uq_products_workflows_single",
            "product_id",
            "target",
            unique=True,
            postgresql_where=text(f"target IN ({', '.join(repr(target) for target in SINGLE_TARGETS)})"),
        ),
        Index("ix_products_workflows_workflow_id", "workflow_id", "target"),
    )

    product_id: Mapped[UUID] = mapped_column(ForeignKey("products.product_id", ondelete="CASCADE"), primary_key=True)
    workflow_id: Mapped[UUID] = mapped_column(primary_key=True)
    target: Mapped[str]


class MetadataChangeRow(Base):
    """A person has changed the description of one of these, or of a workflow, or the status of a product. Append-only.

    No foreign key: who has changed what outlives the row. ``changes`` maps a column to its old and new value.
    """

    __tablename__ = "metadata_changes"
    __table_args__ = (Index("ix_metadata_changes_row_id", "row_id", "change_id"),)

    change_id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    kind: Mapped[str]
    row_id: Mapped[UUID]
    author: Mapped[str]
    changes: Mapped[dict[str, Any]]
    at: Mapped[datetime] = mapped_column(server_default=func.now())
