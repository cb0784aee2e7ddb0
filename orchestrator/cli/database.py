"""Commands about the database: ``orchestrator db …``."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from orchestrator.cli.edge import Edge, execute
from orchestrator.cli.looking import registration_of
from orchestrator.cli.options import AsJson
from orchestrator.cli.output import clean
from orchestrator.db import migrations
from orchestrator.db.history import applied_revisions
from orchestrator.db.migrations import Registration, registered, registration_code, write_revision
from orchestrator.db.session import is_connection_error
from orchestrator.errors import ConfigurationError, ConflictError
from orchestrator.registry import known_workflows

app = typer.Typer(help="The database and its migrations.", no_args_is_help=True, rich_markup_mode="rich")

Message = Annotated[str, typer.Option("--message", "-m", metavar="TEXT", help="What the revision is for.")]


@app.command()
def upgrade(as_json: AsJson = False) -> None:
    """Apply all migrations, the engine's and your own, that are not applied yet. Repeating it is harmless."""

    async def body(edge: Edge) -> None:
        async with edge.database() as database:
            try:
                heads = await migrations.upgrade(database.engine, edge.project)
            except SQLAlchemyError as error:
                raise _translated(error) from error
        edge.output.line(f"the database is up to date: {', '.join(heads)}")
        edge.output.document({"heads": heads})

    execute(body, as_json=as_json)


@app.command()
def downgrade(
    revision: Annotated[str, typer.Argument(help="The revision to go back to; 'base' undoes all.")],
    as_json: AsJson = False,
) -> None:
    """Undo migrations, with the data that their tables hold.

    Example: orchestrator db downgrade project@base
    """

    async def body(edge: Edge) -> None:
        async with edge.database() as database:
            try:
                heads = await migrations.downgrade(database.engine, edge.project, revision)
            except SQLAlchemyError as error:
                raise _translated(error) from error
        edge.output.line(f"in force now: {', '.join(heads) or 'nothing'}")
        edge.output.document({"heads": heads})

    execute(body, as_json=as_json)


@app.command()
def revision(message: Message, as_json: AsJson = False) -> None:
    """Write an empty migration into your project's folder (ORCHESTRATOR_MIGRATIONS)."""

    async def body(edge: Edge) -> None:
        path = _write(edge.project, message)
        edge.output.line(f"written: {clean(path)}")
        edge.output.document({"path": path})

    execute(body, as_json=as_json)


@app.command("migrate-workflows")
def migrate_workflows(message: Message = "register workflows", as_json: AsJson = False) -> None:
    """Write the migration that makes the database know the workflows of the code, and no others.

    Review the file, then apply it with: orchestrator db upgrade
    """

    async def body(edge: Edge) -> None:
        edge.learn_workflows()
        async with edge.database() as database:
            async with database.transaction() as session:
                stored = {one.name: one for one in await registered(session)}
            missing = await migrations.pending(database.engine, edge.project)
        if missing:
            # Else a second call would register once more what an unapplied revision registers already.
            raise ConflictError(f"{', '.join(missing)} is not applied yet: run 'orchestrator db upgrade' first")
        coded = {name: registration_of(name) for name in known_workflows()}
        added = [one for name, one in coded.items() if name not in stored]
        removed = [one for name, one in stored.items() if name not in coded]
        changed = [one for name, one in coded.items() if name in stored and stored[name] != one]
        path = _write_difference(edge.project, message, stored, added, removed, changed)
        edge.output.document(
            {
                "path": path,
                "added": [one.name for one in added],
                "removed": [one.name for one in removed],
                "changed": [one.name for one in changed],
            }
        )
        if path is None:
            edge.output.line("nothing to do: code and database know the same workflows")
            return
        for word, some in (("adds", added), ("removes", removed), ("changes", changed)):
            if some:
                edge.output.line(f"{word} {', '.join(clean(one.name) for one in some)}")
        edge.output.line(f"written: {clean(path)}")
        edge.output.line(("apply it with: orchestrator db upgrade", "dim"))

    execute(body, as_json=as_json)


@app.command()
def status(as_json: AsJson = False) -> None:
    """Show which migrations are applied and which are not. Exits with 1 when some are missing."""

    async def body(edge: Edge) -> int:
        async with edge.database() as database:
            async with database.transaction() as session:
                applied = await applied_revisions(session)
            missing = await migrations.pending(database.engine, edge.project)
        edge.output.line(f"applied: {', '.join(applied) or 'nothing'}")
        edge.output.line(f"pending: {', '.join(missing) or 'nothing'}")
        if missing:
            edge.output.line(("apply them with: orchestrator db upgrade", "dim"))
        edge.output.document({"applied": applied, "pending": missing})
        return 1 if missing else 0

    execute(body, as_json=as_json)


def _write(project: Path, message: str, upgrades: str = "", downgrades: str = "", imports: str = "") -> Path:
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # Alembic says there what our own line says
            return write_revision(project, message, upgrades=upgrades, downgrades=downgrades, imports=imports)
    except OSError as error:
        raise ConfigurationError(f"cannot write into {project} (ORCHESTRATOR_MIGRATIONS): {error}") from error


def _write_difference(
    project: Path,
    message: str,
    stored: dict[str, Registration],
    added: list[Registration],
    removed: list[Registration],
    changed: list[Registration],
) -> Path | None:
    if not added and not removed and not changed:
        return None
    # A changed workflow is removed and registered again, in that order: only one row of a name may be in force.
    gone = removed + [stored[one.name] for one in changed]
    upgrades, downgrades, imports = registration_code(added + changed, gone)
    return _write(project, message, upgrades, downgrades, imports)


def _translated(error: SQLAlchemyError) -> Exception:
    """A migration that the database refuses is its author's to mend; an outage is not."""
    if is_connection_error(error):
        return error
    reason = error.orig if isinstance(error, DBAPIError) else error
    return ConfigurationError(f"the database cannot be migrated: {reason}")
