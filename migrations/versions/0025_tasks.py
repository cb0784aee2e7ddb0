"""The tasks that ship: resume waiting processes, and validate products and subscriptions.

Revision ID: 0025
Revises: 0024
Create Date: 2026-11-26
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

TASKS = (
    ("task_resume_workflows", "Let processes that are waiting try again now"),
    ("task_validate_products", "Check that code and database agree about workflows and products"),
    ("task_validate_product_type", "Validate all subscriptions of a product type"),
    ("task_validate_subscriptions", "Validate all subscriptions"),
)


def upgrade() -> None:
    """Register them, except where the project has a workflow of this name already."""
    register = sa.text(
        "INSERT INTO workflows (name, target, is_task, description)"
        " SELECT CAST(:name AS text), 'SYSTEM', true, CAST(:description AS text) WHERE NOT EXISTS"
        " (SELECT 1 FROM workflows WHERE name = :name AND deleted_at IS NULL)"
    )
    for name, description in TASKS:
        op.execute(register.bindparams(name=name, description=description))


def downgrade() -> None:
    """Remove them; the rows stay, because processes of the past point at them."""
    remove = sa.text("UPDATE workflows SET deleted_at = now() WHERE name = :name AND deleted_at IS NULL")
    for name, _ in TASKS:
        op.execute(remove.bindparams(name=name))
