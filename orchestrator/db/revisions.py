"""The revisions that a program has in its files, and those in force in the database, read without Alembic."""

from __future__ import annotations

import ast
import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from orchestrator.errors import ConfigurationError
from orchestrator.settings import load_settings

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from orchestrator.db.session import Driver

_NAMES = frozenset({"revision", "down_revision", "depends_on"})
_MAY_ASSIGN = re.compile(rb"\b(?:revision|down_revision|depends_on)[\s\\]*(?::|=(?!=))")
"""Also finds what only looks like it, in SQL say: such a file takes longer to read, and says the same."""
_FIRST_DEFINITION = re.compile(rb"^(?:(?:async|def|class)\b|@)", re.MULTILINE)
_OF_THE_ENGINE = re.compile(r"\d{4}")
"""What the engine's revisions are called; Alembic makes other names for a project's."""

STOP_FIRST: Final = frozenset({"0032"})
"""Revisions of the engine after which new programs write what older ones cannot read, or read wrongly. Consumers without 0032 do
not find what new ones move to the base of a large state: their steps lack values, or take defaults in place of these."""

_IS_MIGRATED = "SELECT to_regclass('alembic_version') IS NOT NULL"
_APPLIED = "SELECT version_num FROM alembic_version ORDER BY version_num"

_COMPARE = "run 'orchestrator db migrate-domain-models' to see what a migration must change"


@dataclass(frozen=True, slots=True)
class Known:
    """The revisions in the files of the engine and of a project.

    Args:
        edges: each revision with those that it builds or depends on.
        heads: the newest of the engine and of the project.
        is_whole: whether the project's folder exists, and each file says plainly which revision it is.
    """

    edges: Mapping[str, tuple[str, ...]]
    heads: tuple[str, ...]
    is_whole: bool

    def find_unknown(self, applied: Iterable[str]) -> list[str]:
        """Return the revisions of the database that are surely none of these: this program is older than the database.

        Programs run without the project's migrations, too; only who upgrades needs them.
        """
        return [one for one in applied if one not in self.edges and (self.is_whole or _OF_THE_ENGINE.fullmatch(one))]

    def find_pending(self, applied: Iterable[str]) -> list[str]:
        """Return the heads that the database surely lacks: it is older than this program."""
        found = list(applied)
        reached = self.reach(found)
        named = {edge for one in reached for edge in self.edges[one]}
        if not self.edges.keys() >= {*found, *named}:
            return []  # a revision that is not here, or one that a file names by its branch, may have the rest below it
        return [one for one in self.heads if one not in reached]

    def find_lacking(self, heads: Iterable[str], applied: Iterable[str]) -> list[str]:
        """Return the newest revisions in force that another program surely lacks, of whose code these are the heads."""
        theirs = list(heads)
        if not theirs or any(one not in self.edges for one in theirs):
            return []  # it has reported nothing, or is newer than this program
        in_force = list(applied)
        lacking = self.reach(in_force) - self.reach(theirs)
        if all(_OF_THE_ENGINE.fullmatch(one) for one in theirs):
            # It has the engine's migrations only.
            lacking = {one for one in lacking if _OF_THE_ENGINE.fullmatch(one)}
        return sorted(lacking.intersection(in_force)) or sorted(lacking)[-1:]

    def must_stop(self, heads: Iterable[str]) -> list[str]:
        """Return the revisions because of which a program, of whose code these are the heads, must not run beside this one."""
        theirs = [one for one in heads if _OF_THE_ENGINE.fullmatch(one)]
        if any(one not in self.edges for one in theirs):
            return []  # it is newer than this program
        return sorted(STOP_FIRST & (self.edges.keys() - self.reach(theirs)))

    def covers(self, applied: Iterable[str]) -> bool:
        """Return whether all of these, and no others, are surely in force; otherwise Alembic has to be asked."""
        found = list(applied)
        return self.is_whole and all(one in self.edges for one in found) and self.reach(found) == self.edges.keys()

    def reach(self, revisions: Iterable[str]) -> set[str]:
        """Return those of these revisions that are known, with all that they build or depend on."""
        waiting, reached = list(revisions), set[str]()
        while waiting:
            revision = waiting.pop()
            if revision in self.edges and revision not in reached:
                reached.add(revision)
                waiting.extend(self.edges[revision])
        return reached


def describe_unknown(unknown: Iterable[str], known: Known) -> str:
    """Say that a program is older than the database."""
    return (
        f"the database is at revision {', '.join(unknown)}, which this program does not know (it knows up to"
        f" {', '.join(known.heads)}): its code is older than the database, so deploy the current code"
    )


def describe_age(known: Known, applied: Sequence[str]) -> str | None:
    """Say that a program is older or newer than the database; ``None`` when neither is certain."""
    if unknown := known.find_unknown(applied):
        return describe_unknown(unknown, known)
    pending = known.find_pending(applied)
    return f"the database lacks the revision {', '.join(pending)}: run 'orchestrator db upgrade'" if pending else None


async def explain_age(session: AsyncSession) -> str | None:
    """Say whether this program is older or newer than the database; ``None`` when neither is certain."""
    from orchestrator.db.session import get_driver

    return describe_age(known_at_start(Path(_find_project())), await list_applied(await get_driver(session)))


async def advise(session: AsyncSession) -> str:
    """Return what is to be done when the models of this program do not fit the database.

    To compare the two is the right advice only for a program that has the database's migrations: an older one would find that the
    newest changes are to be undone.
    """
    return await explain_age(session) or _COMPARE


async def list_applied(connection: Driver) -> list[str]:
    """Return the revisions in force; none in a database that was never migrated."""
    if not await connection.fetchval(_IS_MIGRATED):
        return []
    return [str(row["version_num"]) for row in await connection.fetch(_APPLIED)]


@cache
def known_at_start(project: Path) -> Known:
    """Return what the files said when this program first asked: they may be replaced while it runs, and its code is not."""
    return read_known(project)


def read_known(project: Path) -> Known:
    """Read the revisions in the files of the engine and of a project."""
    engine, own = _read_edges(engine_migrations() / "versions"), _read_edges(project)
    edges = {name: found for name, found in {**engine, **own}.items() if found is not None}
    heads = [head for folder in (engine, own) for head in _find_heads(folder)]
    return Known(edges, tuple(heads), project.is_dir() and None not in {**engine, **own}.values())


def engine_migrations() -> Path:
    """Return the folder of the engine's migrations: inside an installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "migrations", package.parent / "migrations"):
        if (folder / "env.py").is_file():
            return folder
    raise ConfigurationError(f"the migrations are missing beside {package}: the installation is not complete")


def _find_project() -> str:
    try:
        return load_settings().migrations
    except ConfigurationError:
        return ""  # not one of the programs: a script with a session of its own


def _find_heads(edges: Mapping[str, tuple[str, ...] | None]) -> list[str]:
    """Return the revisions of one folder on which none of the others builds."""
    below = {one for found in edges.values() for one in found or ()}
    return sorted(name for name, found in edges.items() if found is not None and name not in below)


def _read_edges(folder: Path) -> dict[str, tuple[str, ...] | None]:
    """Return each revision of a folder with those that it builds or depends on; ``None`` for a file that cannot be read."""
    found: dict[str, tuple[str, ...] | None] = {}
    for file in sorted(folder.glob("*.py")):
        try:
            values = dict(_assigned(_parse(file.read_bytes())))
            edges = [values.get(name) or () for name in ("down_revision", "depends_on")]
            found[values["revision"]] = tuple(
                one for edge in edges for one in ([edge] if isinstance(edge, str) else edge)
            )
        except (OSError, ValueError, TypeError, SyntaxError, KeyError):
            found[str(file)] = None
    return found


def _parse(source: bytes) -> ast.Module:
    """Parse what stands before a file's first definition, or all of it when the rest may say more about the revision.

    Each program reads the migrations at its start, and the statements in them are most of their text.

    Raises:
        SyntaxError: it is no Python.
    """
    definition = _FIRST_DEFINITION.search(source)
    if definition is not None and not _MAY_ASSIGN.search(source, definition.start()):
        with contextlib.suppress(SyntaxError):  # what looks like a definition stands in a text
            return ast.parse(source[: definition.start()])
    return ast.parse(source)


def _assigned(module: ast.Module) -> Iterator[tuple[str, Any]]:
    """Yield what a module assigns to the names by which Alembic knows a revision.

    Raises:
        ValueError: a value is no literal.
    """
    for node in module.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Name) and target.id in _NAMES:
                    yield target.id, ast.literal_eval(node.value)
