"""The table, the product and the workflows of the chaos runs.

Revision ID: chaos1
Revises:
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from orchestrator.db.registration import register_product, register_product_block, register_workflow
from tests.chaos.project import PLAIN, THINGS

revision = "chaos1"
down_revision = None
branch_labels = ("project",)
depends_on = "0003"


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "effects",
        sa.Column("effect_id", sa.BigInteger(), sa.Identity(), primary_key=True),
        sa.Column("process_id", sa.UUID(), nullable=False),
        sa.Column("step", sa.Text(), nullable=False),
    )
    connection = op.get_bind()
    register_product_block(connection, name="Thing", resource_types=["changed"])
    register_product(connection, name="Thing", product_type="Thing", fixed_inputs={}, product_blocks=["Thing"])
    for name in PLAIN:
        register_workflow(connection, name=name, target="SYSTEM", description=name)
    register_workflow(connection, name="create_thing", target="CREATE", description="create", products=THINGS)
    register_workflow(connection, name="modify_thing", target="MODIFY", description="modify", products=THINGS)


def downgrade() -> None:
    """Undone by dropping the database."""
