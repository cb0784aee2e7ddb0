"""The migrations' files and the revisions in force, read without Alembic, which running programs need not import."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.errors import ConfigurationError

_NAMES = frozenset({"revision", "down_revision", "depends_on"})

_IS_MIGRATED = text("SELECT to_regclass('alembic_version') IS NOT NULL")
_APPLIED = text("SELECT version_num FROM alembic_version")


def engine_migrations() -> Path:
    """Return the folder of the engine's migrations: inside an installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "migrations", package.parent / "migrations"):
        if (folder / "env.py").is_file():
            return folder
    raise ConfigurationError(f"the migrations are missing beside {package}: the installation is not complete")


async def list_applied(session: AsyncSession) -> list[str]:
    """Return the revisions in force; none in a database that was never migrated."""
    if not await session.scalar(_IS_MIGRATED):
        return []
    return sorted(str(one) for one in await session.scalars(_APPLIED))


def is_up_to_date(project: Path, applied: Iterable[str]) -> bool:
    """Return whether all revisions of the engine and of a project are surely in force.

    False also means that the files do not say it plainly: then Alembic has to be asked.
    """
    known = _read_edges((engine_migrations() / "versions", project))
    waiting, reached = list(applied), set[str]()
    while waiting:
        revision = waiting.pop()
        if revision not in known:
            return False
        if revision not in reached:
            reached.add(revision)
            waiting.extend(known[revision])
    return reached == known.keys()


def _read_edges(folders: Iterable[Path]) -> Mapping[str, tuple[str, ...]]:
    """Return each revision with those that it builds or depends on. A file that cannot be read is a revision of its own."""
    found: dict[str, tuple[str, ...]] = {}
    for file in (file for folder in folders for file in sorted(folder.glob("*.py"))):
        try:
            values = dict(_assigned(ast.parse(file.read_bytes())))
            edges = [values.get(name) or () for name in ("down_revision", "depends_on")]
            found[values["revision"]] = tuple(
                one for edge in edges for one in ([edge] if isinstance(edge, str) else edge)
            )
        except (OSError, ValueError, TypeError, SyntaxError, KeyError):
            found[str(file)] = ()
    return found


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
