"""Write migrations into the project's folder."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from orchestrator.cli.context import CliContext
from orchestrator.cli.output import clean
from orchestrator.db import migrations
from orchestrator.db.registration.autogenerate import Call, render_revision
from orchestrator.db.session import Database
from orchestrator.errors import ConfigurationError, ConflictError


def require_modules(context: CliContext) -> None:
    """Check that there is code to compare with: without any, the migration would remove everything from the database.

    Raises:
        ConfigurationError: there is none.
    """
    if not context.settings.workflows:
        raise ConfigurationError(
            "ORCHESTRATOR_WORKFLOWS is not set, so this command does not see your code and would remove all that it has: set it"
            " to the modules with your workflows and products, such as ORCHESTRATOR_WORKFLOWS=network,network.products"
        )


async def require_applied(context: CliContext, database: Database) -> None:
    """Check that all revisions are applied; otherwise a second migration would repeat what one of them does.

    Raises:
        ConflictError: it lacks some.
    """
    missing = await migrations.list_pending(database.engine, context.project)
    if missing:
        raise ConflictError(f"{', '.join(missing)} is not applied yet: run 'orchestrator db upgrade' first")


def write_calls(
    project: Path,
    message: str,
    upgrade: Sequence[Call],
    downgrade: Sequence[Call],
    remarks: Iterable[str] = (),
    named: Collection[str] = (),
) -> Path | None:
    """Write the revision that makes these calls; nothing when there are none.

    Args:
        remarks: comments in the upgrade.
        named: helpers that these call.

    Raises:
        ConfigurationError: the project's folder cannot be written.
    """
    if not upgrade and not downgrade:
        return None
    return write(project, message, *render_revision(upgrade, downgrade, remarks, named))


def write(project: Path, message: str, upgrades: str = "", downgrades: str = "", imports: str = "") -> Path:
    """Write a revision.

    Raises:
        ConfigurationError: the project's folder cannot be written.
    """
    with _quietly(project):
        return migrations.write_revision(project, message, upgrades=upgrades, downgrades=downgrades, imports=imports)


def write_merge(project: Path, message: str) -> Path:
    """Write the revision that joins the heads of the project's migrations.

    Raises:
        ConfigurationError: there is only one head, or the project's folder cannot be written.
    """
    with _quietly(project):
        return migrations.write_merge(project, message)


@contextlib.contextmanager
def _quietly(project: Path) -> Iterator[None]:
    """Silence Alembic's own output, which would repeat ours.

    Raises:
        ConfigurationError: the project's folder cannot be written.
    """
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    except OSError as error:
        raise ConfigurationError(f"cannot write into {project} (ORCHESTRATOR_MIGRATIONS): {error}") from error


def report_written(context: CliContext, path: Path) -> None:
    """Print where the revision is, and what to do with it."""
    context.output.line(f"written: {clean(path)}")
    context.output.line(("review it, then apply it with: orchestrator db upgrade", "dim"))
