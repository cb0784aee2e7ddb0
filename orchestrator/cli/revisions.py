"""Writing migrations: the revision that a command writes into the project's folder."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable
from pathlib import Path

from orchestrator.cli.edge import Edge
from orchestrator.cli.output import clean
from orchestrator.db import migrations
from orchestrator.db.registration.difference import Call, revision_code
from orchestrator.db.session import Database
from orchestrator.errors import ConfigurationError, ConflictError


async def require_applied(edge: Edge, database: Database) -> None:
    """Make sure that the database has all revisions, or a second call would write once more what one of them does already.

    Raises:
        ConflictError: it lacks some.
    """
    missing = await migrations.pending(database.engine, edge.project)
    if missing:
        raise ConflictError(f"{', '.join(missing)} is not applied yet: run 'orchestrator db upgrade' first")


def write_calls(project: Path, message: str, upgrade: Iterable[Call], downgrade: Iterable[Call]) -> Path | None:
    """Write the revision that makes these calls; nothing when there are none.

    Raises:
        ConfigurationError: the project's folder cannot be written.
    """
    calls, back = list(upgrade), list(downgrade)
    if not calls and not back:
        return None
    upgrades, downgrades, imports = revision_code(calls, back)
    return write(project, message, upgrades, downgrades, imports)


def write(project: Path, message: str, upgrades: str = "", downgrades: str = "", imports: str = "") -> Path:
    """Write a revision.

    Raises:
        ConfigurationError: the project's folder cannot be written.
    """
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # Alembic says there what our own line says
            return migrations.write_revision(
                project, message, upgrades=upgrades, downgrades=downgrades, imports=imports
            )
    except OSError as error:
        raise ConfigurationError(f"cannot write into {project} (ORCHESTRATOR_MIGRATIONS): {error}") from error


def tell_written(edge: Edge, path: Path) -> None:
    """Say where the revision is, and what to do with it."""
    edge.output.line(f"written: {clean(path)}")
    edge.output.line(("review it, then apply it with: orchestrator db upgrade", "dim"))
