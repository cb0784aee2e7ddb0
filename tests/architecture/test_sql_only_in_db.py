"""SQL is written in ``orchestrator/db`` and nowhere else in the engine; everybody else calls its functions."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.architecture.repository import modules, tree

ALLOWED = {"sqlalchemy.ext.asyncio.AsyncSession", "sqlalchemy.orm.Session", "sqlalchemy.exc"}
"""What others may import from SQLAlchemy: the types of the sessions that they pass on, and errors that they handle."""

ROWS = "orchestrator.db.tables"
"""The tables' classes belong to the modules that read and write them."""

DRIVER = {"fetch", "fetchrow", "fetchval", "executemany", "exec_driver_sql", "scalar", "scalars", "get_one"}
"""Methods of sessions, connections and pools that send statements."""

SQL = re.compile(
    r"\s*(?:(?:SELECT|INSERT|UPDATE|DELETE|WITH|MERGE|TRUNCATE|ALTER|CREATE|DROP|LOCK)\s"
    r"|(?i:select\b.*\bfrom\b|insert\s+into\b|update\s+\w+\s+set\b|delete\s+from\b|with\s+\w+\s+as\s*\())",
    re.DOTALL,
)


def _imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _is_in(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def _docstrings(module: ast.Module) -> set[int]:
    """Return the ids of the nodes that are docstrings, or stand alone as those of attributes do."""
    return {id(node.value) for node in ast.walk(module) if isinstance(node, ast.Expr)}


def find_sql(module: ast.Module) -> list[str]:
    """Return what a module that is not in ``orchestrator/db`` should not have, each with its line."""
    prose = _docstrings(module)
    found = []
    for node in ast.walk(module):
        for name in _imported(node):
            is_query = _is_in(name, "sqlalchemy") and not any(_is_in(name, allowed) for allowed in ALLOWED)
            if is_query or _is_in(name, ROWS):
                found.append(f"line {getattr(node, 'lineno', 0)}: imports {name}")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in DRIVER:
            found.append(f"line {node.lineno}: calls {node.func.attr}()")
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in prose
            and SQL.match(node.value)
        ):
            found.append(f"line {node.lineno}: {' '.join(node.value.split())[:60]}")
    return found


@pytest.mark.parametrize(
    "planted",
    [
        "from sqlalchemy import select",
        "from sqlalchemy import func, text",
        "import sqlalchemy",
        "import sqlalchemy as sa",
        "from sqlalchemy.sql.expression import update",
        "from sqlalchemy.dialects.postgresql import insert",
        "from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine",
        "from orchestrator.db.tables import ProcessRow",
        "from orchestrator.db.tables.engine import ProcessRow",
        "STALE = 'SELECT status FROM processes WHERE process_id = $1'",
        "async def f(pool): await pool.execute('DELETE FROM consumers')",
        "beat = '''\nINSERT INTO consumers (name) VALUES ($1)\n'''",
        "query = f'UPDATE {table} SET status = $1'",
        "query = 'with found as (select 1) select * from found'",
        "query = 'select status from processes'",
        "query = 'UPDATE processes ' 'SET status = $1'",
        "async def f(session): return await session.scalar(QUERY)",
        "async def f(pool): return await pool.fetchval(QUERY)",
    ],
)
def test_planted_sql_is_found(planted: str) -> None:
    assert find_sql(ast.parse(planted))


@pytest.mark.parametrize(
    "harmless",
    [
        "from sqlalchemy.ext.asyncio import AsyncSession",
        "from sqlalchemy.exc import DBAPIError, SQLAlchemyError",
        "from orchestrator.db.processes.rows import load_process",
        "def f(): 'SELECT is what this docstring begins with.'",
        "text = 'Update the workflow, then run it again'",
        "text = 'with a coordinator: as in dev'",
        "text = 'the word SELECT in the middle'",
    ],
)
def test_what_is_not_sql_is_not_found(harmless: str) -> None:
    assert find_sql(ast.parse(harmless)) == []


def test_sql_is_only_in_db() -> None:
    outside = [name for name in modules("orchestrator", "consumers") if not name.startswith("orchestrator/db/")]

    assert {name: found for name in outside if (found := find_sql(tree(name)))} == {}
