"""A single row goes into a statement as values, several as arrays."""

from __future__ import annotations

import pytest

from orchestrator.db.parameters import FEW, Column, Statement, Table

PROCESS = {"id": "int", "name": "text"}
ENTRY = {"id": "int"}

SEVERAL = (
    "(SELECT * FROM unnest((SELECT $2::int[]), $3::text[]) AS p(id, name) LIMIT (SELECT NULL::bigint)) AS p,"
    " unnest((SELECT $4::int[])) AS e(id)"
)


def _build(processes: Table, entries: Table) -> str:
    return f"{processes('p', PROCESS, 2)}, {entries('e', ENTRY, 2 + len(PROCESS))}"


@pytest.mark.parametrize(
    ("processes", "entries", "sql", "parameters"),
    [
        pytest.param(
            [(1, "a")],
            [(1,)],
            "(VALUES ($2::int, $3::text)) AS p(id, name), (VALUES ($4::int)) AS e(id)",
            [1, "a", 1],
            id="one of each",
        ),
        pytest.param(
            [(1, "a")],
            [(1,), (1,)],
            "(VALUES ($2::int, $3::text)) AS p(id, name), (VALUES ($4::int), ($5::int)) AS e(id)",
            [1, "a", 1, 1],
            id="two that belong to one",
        ),
        pytest.param(
            [(1, "a"), (2, None)],
            [(1,), (2,)],
            SEVERAL,
            [(1, 2), ("a", None), (1, 2)],
            id="several",
        ),
        pytest.param(
            [(1, "a")],
            [(1,)] * (FEW + 1),
            SEVERAL,
            [(1,), ("a",), (1,) * (FEW + 1)],
            id="many that belong to one",
        ),
    ],
)
def test_what_a_statement_is_for(
    processes: list[tuple[object, ...]], entries: list[tuple[object, ...]], sql: str, parameters: list[object]
) -> None:
    found, given = Statement(_build).write(processes, entries)
    assert found == sql
    assert [read_twice(one) for one in given] == parameters


def read_twice(given: object) -> object:
    """What the client library makes of a parameter: it looks for arrays within an array before it reads the values."""
    if not isinstance(given, Column):
        return given
    for _ in range(2):  # a statement that is prepared anew is encoded once more
        assert not list(given)
        values = tuple(given)
        assert len(values) == len(given)
    return values
