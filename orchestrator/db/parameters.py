"""Tables of parameters: what one statement takes for many rows at once, or for a single one.

For a single row PostgreSQL soon keeps one plan, and executes it without looking up anything in arrays. Of arrays it estimates the
length anew with each execution, finds short ones cheaper than its general plan assumes, and so plans each statement anew, which
takes longer than the statement.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import asyncpg

    from orchestrator.db.session import Driver

Table = Callable[[str, Mapping[str, str], int], str]
"""Returns the SQL of a table, given its name, its columns with their types, and the number of its first parameter."""


def many(name: str, columns: Mapping[str, str], first: int) -> str:
    """Return the SQL for a table of these columns, each an array in a parameter; the first one is ``$first``."""
    arrays = ", ".join(f"${number}::{kind}[]" for number, kind in enumerate(columns.values(), first))
    return f"unnest({arrays}) AS {name}({', '.join(columns)})"


def single(name: str, columns: Mapping[str, str], first: int) -> str:
    """Return the SQL for a table of one row, each value of which is a parameter; the first one is ``$first``."""
    values = ", ".join(f"${number}::{kind}" for number, kind in enumerate(columns.values(), first))
    return f"(VALUES ({values})) AS {name}({', '.join(columns)})"


class Statement(NamedTuple):
    """A statement in two forms, for rows of parameters, in one or several tables of them."""

    for_many: str
    for_one: str

    @classmethod
    def of(cls, build: Callable[[Table], str]) -> Statement:
        """Return the statement that ``build`` returns for each kind of table."""
        return cls(build(many), build(single))

    async def fetch(
        self,
        connection: Driver,
        *tables: Sequence[Sequence[object]],
        before: Sequence[object] = (),
        after: Sequence[object] = (),
    ) -> list[asyncpg.Record]:
        """Execute it.

        Args:
            tables: the rows of each table; none is empty.
            before, after: the parameters that are no rows.
        """
        if all(len(rows) == 1 for rows in tables):
            return await connection.fetch(self.for_one, *before, *(value for (row,) in tables for value in row), *after)
        columns = (column for rows in tables for column in zip(*rows, strict=True))
        return await connection.fetch(self.for_many, *before, *columns, *after)
