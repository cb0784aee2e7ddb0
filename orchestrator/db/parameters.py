"""Tables of parameters: what one statement takes for many rows at once, or for a single one.

For a single row PostgreSQL soon keeps one plan, and executes it without looking up anything in arrays. Of arrays it estimates the
length anew with each execution, finds short ones cheaper than its general plan assumes, and so plans each statement anew, which
takes longer than the statement. So the length of one array of each table is hidden from it.

Its general plan is made for tables as they are at that time, and kept when they grow, until their statistics are renewed. For ten
rows it would read a small table as a whole; for one it goes by the key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count

Table = Callable[[str, Mapping[str, str], int], str]
"""Returns the SQL of a table, given its name, its columns with their types, and the number of its first parameter."""

FEW = 4
"""Rows of further tables with which a single row has a statement of its own: log entries, of which a step has one to three. Each
is a statement that every session prepares."""


def unnest(name: str, columns: Mapping[str, str], first: int) -> str:
    """Return the SQL for a table of these columns, each an array in a parameter; the first one is ``$first``."""
    hidden, *others = (f"${number}::{kind}[]" for number, kind in enumerate(columns.values(), first))
    # A subquery is not computed before the statement is planned. All arrays are as long as this one, of which the planner then
    # assumes ten elements each time.
    arrays = ", ".join((f"(SELECT {hidden})", *others))
    return f"unnest({arrays}) AS {name}({', '.join(columns)})"


def unnest_by_key(name: str, columns: Mapping[str, str], first: int) -> str:
    """Return the same, for rows each of which is looked up by a key."""
    # No limit, but of one that it does not know the planner assumes a tenth of the rows: one.
    return f"(SELECT * FROM {unnest(name, columns, first)} LIMIT (SELECT NULL::bigint)) AS {name}"  # noqa: S608 - of constants


def values(rows: int) -> Table:
    """Return what makes the SQL for a table of so many rows, each value of which is a parameter."""

    def table(name: str, columns: Mapping[str, str], first: int) -> str:
        numbers = count(first)
        made = (", ".join(f"${next(numbers)}::{kind}" for kind in columns.values()) for _ in range(rows))
        return f"(VALUES ({'), ('.join(made)})) AS {name}({', '.join(columns)})"

    return table


class Column:
    """The values of a column, as an array for the client library: none of them is an array itself.

    The library goes over an array twice: first it asks of each value whether that is an array, which takes longer than encoding
    it, and then it encodes them. The first time there is nothing to ask. If it did otherwise, no statement about several rows
    would be accepted by the server.
    """

    __slots__ = ("_has_looked", "_values")

    def __init__(self, values: tuple[object, ...]) -> None:
        self._values = values
        self._has_looked = True

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[object]:
        self._has_looked = not self._has_looked
        return iter(self._values if self._has_looked else ())


class Statement:
    """A statement about rows in tables of parameters.

    Args:
        build: returns its SQL, given its tables. Those after the first have rows that belong to one of the first, and the last
            of them the last parameters.
    """

    def __init__(self, build: Callable[..., str]) -> None:
        self._build = build
        self._forms: dict[tuple[int, ...], str] = {}

    def write(self, *tables: Sequence[Sequence[object]]) -> tuple[str, list[object]]:
        """Return the SQL for the rows of each table, none of which is empty, and the parameters of all tables."""
        rows = tuple(map(len, tables))
        if rows[0] == 1 and max(rows) <= FEW:
            given = [value for table in tables for row in table for value in row]
        else:
            given = [Column(column) for table in tables for column in zip(*table, strict=True)]
            rows = (0,) * len(tables)
        if rows not in self._forms:
            arrays = (unnest_by_key if number == 0 else unnest for number in range(len(rows)))
            self._forms[rows] = self._build(
                *(values(one) if one else array for one, array in zip(rows, arrays, strict=True))
            )
        return self._forms[rows], given
