"""Create data head.

Revision ID: c580416cfd12
Revises:
Create Date: 2023-10-24
"""

# revision identifiers, used by Alembic.
revision = "c580416cfd12"
down_revision = None
branch_labels = ("data",)
depends_on = "0002"


def upgrade() -> None:
    """Apply."""


def downgrade() -> None:
    """Undo."""
