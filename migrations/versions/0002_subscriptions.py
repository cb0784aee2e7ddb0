"""Products, subscriptions, who touched them, and every change of them.

Revision ID: 0002
Revises: 0001
Create Date: 2026-11-23
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    # First: products_workflows refers to it.
    op.create_unique_constraint("uq_workflows_workflow_id_target", "workflows", ["workflow_id", "target"])
    op.create_table(
        "product_blocks",
        sa.Column("product_block_id", sa.UUID(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), server_default="", nullable=False),
        sa.Column("tag", sa.Text(), server_default="", nullable=False),
        sa.Column("status", sa.Text(), server_default="active", nullable=False),
        sa.Column("created_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("end_date", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("product_block_id", name=op.f("pk_product_blocks")),
        sa.UniqueConstraint("name", name=op.f("uq_product_blocks_name")),
    )
    op.create_table(
        "products",
        sa.Column("product_id", sa.UUID(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), server_default="", nullable=False),
        sa.Column("product_type", sa.Text(), nullable=False),
        sa.Column("tag", sa.Text(), server_default="", nullable=False),
        sa.Column("status", sa.Text(), server_default="active", nullable=False),
        sa.Column("created_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("end_date", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("product_id", name=op.f("pk_products")),
        sa.UniqueConstraint("name", name=op.f("uq_products_name")),
    )
    op.create_table(
        "resource_types",
        sa.Column("resource_type_id", sa.UUID(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("resource_type", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("resource_type_id", name=op.f("pk_resource_types")),
        sa.UniqueConstraint("resource_type", name=op.f("uq_resource_types_resource_type")),
    )
    op.create_table(
        "fixed_inputs",
        sa.Column("product_id", sa.UUID(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["product_id"], ["products.product_id"], name=op.f("fk_fixed_inputs_product_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("product_id", "name", name=op.f("pk_fixed_inputs")),
    )
    op.create_table(
        "product_block_relations",
        sa.Column("in_use_by_id", sa.UUID(), nullable=False),
        sa.Column("depends_on_id", sa.UUID(), nullable=False),
        sa.ForeignKeyConstraint(
            ["depends_on_id"],
            ["product_blocks.product_block_id"],
            name=op.f("fk_product_block_relations_depends_on_id"),
        ),
        sa.ForeignKeyConstraint(
            ["in_use_by_id"],
            ["product_blocks.product_block_id"],
            name=op.f("fk_product_block_relations_in_use_by_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("in_use_by_id", "depends_on_id", name=op.f("pk_product_block_relations")),
    )
    op.create_table(
        "product_block_resource_types",
        sa.Column("product_block_id", sa.UUID(), nullable=False),
        sa.Column("resource_type_id", sa.UUID(), nullable=False),
        sa.ForeignKeyConstraint(
            ["product_block_id"],
            ["product_blocks.product_block_id"],
            name=op.f("fk_product_block_resource_types_product_block_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["resource_type_id"],
            ["resource_types.resource_type_id"],
            name=op.f("fk_product_block_resource_types_resource_type_id"),
        ),
        sa.PrimaryKeyConstraint("product_block_id", "resource_type_id", name=op.f("pk_product_block_resource_types")),
    )
    op.create_table(
        "product_product_blocks",
        sa.Column("product_id", sa.UUID(), nullable=False),
        sa.Column("product_block_id", sa.UUID(), nullable=False),
        sa.ForeignKeyConstraint(
            ["product_block_id"],
            ["product_blocks.product_block_id"],
            name=op.f("fk_product_product_blocks_product_block_id"),
        ),
        sa.ForeignKeyConstraint(
            ["product_id"],
            ["products.product_id"],
            name=op.f("fk_product_product_blocks_product_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("product_id", "product_block_id", name=op.f("pk_product_product_blocks")),
    )
    op.create_table(
        "products_workflows",
        sa.Column("product_id", sa.UUID(), nullable=False),
        sa.Column("workflow_id", sa.UUID(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["product_id"], ["products.product_id"], name=op.f("fk_products_workflows_product_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["workflow_id", "target"],
            ["workflows.workflow_id", "workflows.target"],
            name="fk_products_workflows_workflow_id",
            onupdate="CASCADE",
        ),
        sa.PrimaryKeyConstraint("product_id", "workflow_id", name=op.f("pk_products_workflows")),
    )
    op.create_index("ix_products_workflows_workflow_id", "products_workflows", ["workflow_id"], unique=False)
    op.create_index(
        "uq_products_workflows_single",
        "products_workflows",
        ["product_id", "target"],
        unique=True,
        postgresql_where=sa.text("target IN ('CREATE', 'TERMINATE', 'VALIDATE', 'RECONCILE')"),
    )
    op.create_table(
        "subscriptions",
        sa.Column("subscription_id", sa.UUID(), nullable=False),
        sa.Column("product_id", sa.UUID(), nullable=False),
        sa.Column("customer_id", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("insync", sa.Boolean(), nullable=False),
        sa.Column("locked_by", sa.UUID(), nullable=True),
        sa.Column("start_date", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("end_date", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("version", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("created_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "status IN ('initial', 'active', 'migrating', 'disabled', 'terminated', 'provisioning')",
            name=op.f("ck_subscriptions_status"),
        ),
        sa.CheckConstraint("NOT insync OR locked_by IS NULL", name=op.f("ck_subscriptions_lock")),
        sa.ForeignKeyConstraint(
            ["locked_by"], ["processes.process_id"], name=op.f("fk_subscriptions_locked_by"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(["product_id"], ["products.product_id"], name=op.f("fk_subscriptions_product_id")),
        sa.PrimaryKeyConstraint("subscription_id", name=op.f("pk_subscriptions")),
    )
    op.create_index(
        "ix_subscriptions_created_at",
        "subscriptions",
        [sa.literal_column("created_at DESC"), "subscription_id"],
        unique=False,
    )
    op.create_index(
        "ix_subscriptions_customer_id",
        "subscriptions",
        ["customer_id", sa.literal_column("created_at DESC"), "subscription_id"],
        unique=False,
    )
    op.create_index(
        "ix_subscriptions_locked_by",
        "subscriptions",
        ["locked_by"],
        unique=False,
        postgresql_where=sa.text("locked_by IS NOT NULL"),
    )
    op.create_index(
        "ix_subscriptions_out_of_sync",
        "subscriptions",
        [sa.literal_column("created_at DESC"), "subscription_id"],
        unique=False,
        postgresql_where=sa.text("NOT insync"),
    )
    op.create_index(
        "ix_subscriptions_product_id",
        "subscriptions",
        ["product_id", sa.literal_column("created_at DESC"), "subscription_id"],
        unique=False,
    )
    op.create_index(
        "ix_subscriptions_status",
        "subscriptions",
        ["status", sa.literal_column("created_at DESC"), "subscription_id"],
        unique=False,
    )
    op.create_table(
        "processes_subscriptions",
        sa.Column("process_id", sa.UUID(), nullable=False),
        sa.Column("subscription_id", sa.UUID(), nullable=False),
        sa.Column("created_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["process_id"],
            ["processes.process_id"],
            name=op.f("fk_processes_subscriptions_process_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["subscription_id"],
            ["subscriptions.subscription_id"],
            name=op.f("fk_processes_subscriptions_subscription_id"),
        ),
        sa.PrimaryKeyConstraint("process_id", "subscription_id", name=op.f("pk_processes_subscriptions")),
    )
    op.create_index(
        "ix_processes_subscriptions_subscription_id",
        "processes_subscriptions",
        ["subscription_id", "created_at"],
        unique=False,
    )
    op.create_table(
        "subscription_changes",
        sa.Column("change_id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("subscription_id", sa.UUID(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("process_id", sa.UUID(), nullable=True),
        sa.Column("step", sa.Text(), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=True),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("changes", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["subscription_id"],
            ["subscriptions.subscription_id"],
            name=op.f("fk_subscription_changes_subscription_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("change_id", name=op.f("pk_subscription_changes")),
    )
    op.create_index(
        "ix_subscription_changes_subscription_id",
        "subscription_changes",
        ["subscription_id", "change_id"],
        unique=False,
    )
    op.create_table(
        "subscription_instances",
        sa.Column("subscription_instance_id", sa.UUID(), nullable=False),
        sa.Column("subscription_id", sa.UUID(), nullable=False),
        sa.Column("product_block_id", sa.UUID(), nullable=False),
        sa.Column("label", sa.Text(), nullable=True),
        sa.Column("resources", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.ForeignKeyConstraint(
            ["product_block_id"],
            ["product_blocks.product_block_id"],
            name=op.f("fk_subscription_instances_product_block_id"),
        ),
        sa.ForeignKeyConstraint(
            ["subscription_id"],
            ["subscriptions.subscription_id"],
            name=op.f("fk_subscription_instances_subscription_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("subscription_instance_id", name=op.f("pk_subscription_instances")),
    )
    op.create_index(
        "ix_subscription_instances_product_block_id", "subscription_instances", ["product_block_id"], unique=False
    )
    op.create_index(
        "ix_subscription_instances_subscription_id", "subscription_instances", ["subscription_id"], unique=False
    )
    op.create_table(
        "subscription_instance_relations",
        sa.Column("in_use_by_id", sa.UUID(), nullable=False),
        sa.Column("field", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("depends_on_id", sa.UUID(), nullable=False),
        sa.ForeignKeyConstraint(
            ["depends_on_id"],
            ["subscription_instances.subscription_instance_id"],
            name=op.f("fk_subscription_instance_relations_depends_on_id"),
        ),
        sa.ForeignKeyConstraint(
            ["in_use_by_id"],
            ["subscription_instances.subscription_instance_id"],
            name=op.f("fk_subscription_instance_relations_in_use_by_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("in_use_by_id", "field", "position", name=op.f("pk_subscription_instance_relations")),
    )
    op.create_index(
        "ix_subscription_instance_relations_depends_on_id",
        "subscription_instance_relations",
        ["depends_on_id"],
        unique=False,
    )
    op.create_table(
        "subscription_roots",
        sa.Column("subscription_id", sa.UUID(), nullable=False),
        sa.Column("field", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("depends_on_id", sa.UUID(), nullable=False),
        sa.ForeignKeyConstraint(
            ["depends_on_id"],
            ["subscription_instances.subscription_instance_id"],
            name=op.f("fk_subscription_roots_depends_on_id"),
        ),
        sa.ForeignKeyConstraint(
            ["subscription_id"],
            ["subscriptions.subscription_id"],
            name=op.f("fk_subscription_roots_subscription_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("subscription_id", "field", "position", name=op.f("pk_subscription_roots")),
    )
    op.create_index("ix_subscription_roots_depends_on_id", "subscription_roots", ["depends_on_id"], unique=False)
    op.add_column("processes", sa.Column("assignee", sa.Text(), server_default="SYSTEM", nullable=False))
    op.execute(
        "CREATE TRIGGER append_only BEFORE UPDATE ON subscription_changes FOR EACH ROW EXECUTE FUNCTION refuse_update()"
    )


def downgrade() -> None:
    """Undo; indexes go with their tables."""
    for table in (
        "subscription_roots",
        "subscription_instance_relations",
        "subscription_instances",
        "subscription_changes",
        "processes_subscriptions",
        "subscriptions",
        "products_workflows",
        "product_product_blocks",
        "product_block_resource_types",
        "product_block_relations",
        "fixed_inputs",
        "resource_types",
        "products",
        "product_blocks",
    ):
        op.drop_table(table)
    op.drop_constraint("uq_workflows_workflow_id_target", "workflows", type_="unique")
    op.drop_column("processes", "assignee")
