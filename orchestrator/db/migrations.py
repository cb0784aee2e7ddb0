"""Migrate the database: the engine's migrations and, beside them, those of the user's project.

Both are Alembic. The engine's are one branch (label ``engine``); a project's are another (label ``project``), in a folder of
its own, whose first revision depends on the engine's head.
"""

from __future__ import annotations

import traceback
from argparse import Namespace
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard, TypeVar

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.script.revision import ResolutionError, RevisionError
from alembic.util import CommandError, rev_id
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from orchestrator.db.bounds import NO_LIMIT_FOR_SESSION
from orchestrator.db.registration import link_default_workflows
from orchestrator.db.revisions import describe_unknown, engine_migrations, read_known
from orchestrator.db.session import is_connection_error, is_database_loss
from orchestrator.db.way_back import find_way_back
from orchestrator.errors import ConfigurationError
from orchestrator.text import format_error

# Two programs that start at once must not migrate at once. The number is arbitrary; it only has to be always the same.
_ADVISORY_LOCK = 7_261_944_031

_PASSES = ("40", "55P03")
"""The first characters of SQLSTATEs that mean a conflict with other transactions: deadlocks, serialization failures, locks."""


def alembic_config(project: Path) -> Config:
    """Build Alembic's configuration, without a file."""
    ours = engine_migrations()
    config = Config(cmd_opts=Namespace(quiet=True))
    config.set_main_option("script_location", str(ours).replace("%", "%%"))
    folders = [ours / "versions", *([project] if project.is_dir() else [])]
    config.set_main_option("path_separator", "newline")
    config.set_main_option("version_locations", "\n".join(str(folder).replace("%", "%%") for folder in folders))
    return config


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Upgrade:
    """What an upgrade has done.

    Args:
        applied: the revisions that it has applied, in order, each with what it says it is for.
        heads: the revisions now in force.
    """

    applied: list[tuple[str, str]]
    heads: list[str]


async def upgrade(engine: AsyncEngine, project: Path, default_workflows: Sequence[str] = ()) -> Upgrade:
    """Apply all migrations that are not yet applied, and link the default workflows to all products, in one transaction.

    Args:
        engine: to the database.
        project: the folder of the user's own migrations.
        default_workflows: names; those that no migration has registered yet are skipped.

    Raises:
        ConfigurationError: a migration is wrong, or a default workflow cannot be linked; the text says which and why.
    """

    def apply(connection: Connection, config: Config) -> Upgrade:
        scripts = ScriptDirectory.from_config(config)
        before = _with_ancestors(scripts, MigrationContext.configure(connection).get_current_heads())
        command.upgrade(config, "heads")
        link_default_workflows(connection, default_workflows)
        heads = MigrationContext.configure(connection).get_current_heads()
        now = _with_ancestors(scripts, heads)
        applied = [one for one in reversed(list(scripts.walk_revisions())) if one.revision in now - before]
        return Upgrade([(one.revision, one.doc.splitlines()[0] if one.doc else "") for one in applied], sorted(heads))

    return await _run(engine, project, apply)


async def downgrade(engine: AsyncEngine, project: Path, revision: str) -> list[str]:
    """Undo migrations down to ``revision`` (``base`` for all).

    Raises:
        ConfigurationError: there is no such revision, or the way back forks.
    """

    def apply(connection: Connection, config: Config) -> list[str]:
        heads = MigrationContext.configure(connection).get_current_heads()
        command.downgrade(config, find_way_back(ScriptDirectory.from_config(config), heads, revision))
        return sorted(MigrationContext.configure(connection).get_current_heads())

    return await _run(engine, project, apply)


async def list_pending(engine: AsyncEngine, project: Path, *, alone: bool = True) -> list[str]:
    """Return the heads that the database does not have yet; empty when it is up to date.

    Args:
        alone: wait for the end of an upgrade that is under way.

    Raises:
        ConfigurationError: the migrations cannot be read, or the database has others.
    """

    def compare(connection: Connection, config: Config) -> list[str]:
        scripts = ScriptDirectory.from_config(config)
        applied = _with_ancestors(scripts, MigrationContext.configure(connection).get_current_heads())
        return sorted(set(scripts.get_heads()) - applied)

    return await _run(engine, project, compare, alone=alone)


def write_revision(project: Path, message: str, *, upgrades: str = "", downgrades: str = "", imports: str = "") -> Path:
    """Write an empty or given revision into the project's folder and return its path.

    Raises:
        ConfigurationError: the project's migrations cannot be read, or the last of them is not one but several.
    """
    project.mkdir(parents=True, exist_ok=True)
    with _translate_errors(project, "no migration can be written"):
        scripts = ScriptDirectory.from_config(alembic_config(project))
        heads = _project_heads(scripts, project)
        if len(heads) > 1:
            raise ConfigurationError(
                f"the migrations in {project} have {len(heads)} heads, {' and '.join(heads)}, because they were written side by"
                " side: join them first with 'orchestrator db merge -m \"…\"', then run 'orchestrator db upgrade'"
            )
        written = scripts.generate_revision(
            rev_id(),
            message,
            head=heads[0] if heads else "base",
            splice=False,
            branch_labels=None if heads else "project",
            version_path=str(project.resolve()),
            # It was written against the tables that there are now, so on an empty database they must be made before it runs.
            depends_on="engine@head",
            upgrades=upgrades,
            downgrades=downgrades,
            # What a person writes into an empty one nearly always begins with types of columns.
            imports=imports if upgrades or imports else "import sqlalchemy as sa\n",
        )
    if written is None:
        raise ConfigurationError(f"no revision could be written into {project}")
    return Path(written.path)


def write_merge(project: Path, message: str) -> Path:
    """Write the revision that joins the heads of the project's migrations, and return its path.

    Raises:
        ConfigurationError: the project's migrations cannot be read, or have one head only.
    """
    with _translate_errors(project, "no migration can be written"):
        scripts = ScriptDirectory.from_config(alembic_config(project))
        heads = _project_heads(scripts, project)
        if len(heads) < 2:  # noqa: PLR2004 - one is joined with another
            raise ConfigurationError(
                f"there is nothing to join: the migrations in {project} have {'one head, ' + heads[0] if heads else 'no head'}"
            )
        written = scripts.generate_revision(rev_id(), message, head=heads, version_path=str(project.resolve()))
    if written is None:
        raise ConfigurationError(f"no revision could be written into {project}")
    return Path(written.path)


def _project_heads(scripts: ScriptDirectory, project: Path) -> list[str]:
    """Return the heads of the project's own revisions."""
    own = [one for one in scripts.walk_revisions() if Path(one.path).parent == project.resolve()]
    return sorted(one.revision for one in own if one.is_head)


def _with_ancestors(scripts: ScriptDirectory, heads: Iterable[str]) -> set[str]:
    """Return revisions with all that they build or depend on: Alembic stores only the newest of them."""
    found: set[str] = set()
    waiting = list(heads)
    while waiting:
        script = scripts.get_revision(waiting.pop())
        if script.revision not in found:
            found.add(script.revision)
            for names in (script.down_revision, script.dependencies):
                waiting.extend([names] if isinstance(names, str) else names or ())
    return found


async def _run(
    engine: AsyncEngine, project: Path, action: Callable[[Connection, Config], T], *, alone: bool = True
) -> T:
    config = alembic_config(project)

    def run(connection: Connection) -> T:
        connection.execute(text(f"SELECT {NO_LIMIT_FOR_SESSION}"))
        if alone:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
        config.attributes["connection"] = connection
        _require_known(connection, project)
        return action(connection, config)

    with _translate_errors(project, "the database cannot be migrated"):
        async with engine.begin() as connection:
            return await connection.run_sync(run)


def _require_known(connection: Connection, project: Path) -> None:
    """Check that the database has no revision that is missing here: what is older than the database must not migrate it.

    Raises:
        ConfigurationError: it has one.
    """
    known = read_known(project)
    unknown = known.find_unknown(MigrationContext.configure(connection).get_current_heads())
    if unknown:
        raise ConfigurationError(f"{describe_unknown(unknown, known)}. Otherwise: {_ask_for_folder()}")


@contextmanager
def _translate_errors(project: Path, what: str) -> Iterator[None]:
    """Translate what migrations raise, and what is wrong with how they are written.

    Raises:
        ConfigurationError: with the migration and its line.
    """
    try:
        yield
    except (CommandError, RevisionError, SQLAlchemyError, ConfigurationError) as error:
        if is_connection_error(error):
            raise
        raise ConfigurationError(f"{what}: {_locate(error, project)}{_explain(error, project)}") from error
    except (Exception, SystemExit) as error:
        # What a project's migration raises, or its file while it is read, is for its author to fix.
        place = _locate(error, project, ours=False)
        if not place or is_database_loss(error):
            raise
        raise ConfigurationError(f"{what}: {place}{_explain(error, project)}") from error


def _explain(error: BaseException, project: Path) -> str:
    """Return what went wrong in one line: of an error of the database its text, without the statement."""
    if _is_unreadable(error, {project.resolve()}):
        return f"{type(error).__name__}: {error.msg}"
    if not isinstance(error, DBAPIError) or error.orig is None:
        known = isinstance(error, CommandError | RevisionError | SQLAlchemyError | ConfigurationError)
        return " ".join((str(error) if known else format_error(error)).split()) + _suggest(error, project)
    said = " ".join(str(error.orig.__cause__ or error.orig).split())
    state = str(getattr(error.orig, "sqlstate", None))
    return f"{said}; nothing has changed: run it again" if state.startswith(_PASSES) else said


def _suggest(error: BaseException, project: Path) -> str:
    """Return the usual cause of what Alembic finds wrong in the order of migrations, and where it searched."""
    if str(error).startswith("Branch name 'project'"):
        return (
            ": both are first migrations, written side by side; let one build on the other, with down_revision = its name and"
            " branch_labels = None"
        )
    if not isinstance(error.__cause__, ResolutionError):
        return ""
    folder = project.resolve()
    return (
        f" in {folder}{'' if folder.is_dir() else ', a folder that does not exist,'} or among the engine's own:"
        f" {_ask_for_folder()} And is the name right?"
    )


def _ask_for_folder() -> str:
    return "is ORCHESTRATOR_MIGRATIONS the folder of this project's migrations, and ORCHESTRATOR_DATABASE_URL its database?"


def _locate(error: BaseException, project: Path, *, ours: bool = True) -> str:
    """Return the migration that has raised an error and its line, for the error's text; nothing when none has.

    Args:
        ours: whether it may also be one of the engine's.
    """
    folders = {project.resolve(), *([engine_migrations() / "versions"] if ours else [])}
    if _is_unreadable(error, folders):
        return f"{Path(str(error.filename)).name}, line {error.lineno}: "
    frames = traceback.extract_tb(error.__traceback__)
    files = [frame for frame in frames if Path(frame.filename).resolve().parent in folders]
    return f"{Path(files[-1].filename).name}, line {files[-1].lineno}: " if files else ""


def _is_unreadable(error: BaseException, folders: Collection[Path]) -> TypeGuard[SyntaxError]:
    """Return whether the error is that a file in one of the folders is not valid Python."""
    return (
        isinstance(error, SyntaxError)
        and error.filename is not None
        and Path(error.filename).resolve().parent in folders
    )
