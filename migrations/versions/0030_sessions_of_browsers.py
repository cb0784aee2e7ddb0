"""Who is signed in to the pages of ``/ui``.

Revision ID: 0030
Revises: 0029
Create Date: 2026-11-26

A row is deleted at sign-out, and once it has expired at the next sign-in of anybody.
"""

from __future__ import annotations

from alembic import op

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table."""
    op.execute("""
        CREATE TABLE browser_sessions (
            digest bytea CONSTRAINT pk_browser_sessions PRIMARY KEY,
            user_name text NOT NULL,
            roles text[] NOT NULL,
            claims jsonb NOT NULL,
            key_id text CONSTRAINT fk_browser_sessions_key_id REFERENCES api_keys ON DELETE CASCADE,
            created_at timestamptz NOT NULL DEFAULT now(),
            expires_at timestamptz NOT NULL
        )
    """)
    op.execute("CREATE INDEX ix_browser_sessions_expires_at ON browser_sessions (expires_at)")
    op.execute("CREATE INDEX ix_browser_sessions_key_id ON browser_sessions (key_id)")


def downgrade() -> None:
    """Drop it."""
    op.execute("DROP TABLE browser_sessions")
