"""One page of a list, and how many rows there are in all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from orchestrator.db.lists.request import Window
from orchestrator.db.lists.statement import Statement
from orchestrator.db.session import Driver

T = TypeVar("T")

COUNTED = 100_000
"""Rows that are counted at most, when a list is filtered."""

FEW = 5_000
"""Rows that are counted at most, when a list is searched; of as many at most, all are sorted."""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A page of a list.

    Args:
        first: the number of the first row, from 0 on.
        total: of all rows that fit; ``None`` when there are more than are counted.
    """

    rows: Sequence[T]
    first: int
    total: int | None

    def content_range(self, unit: str) -> str:
        """Return the header ``Content-Range``: ``processes 0-9/1234``."""
        total = "*" if self.total is None else str(self.total)
        span = f"{self.first}-{self.first + len(self.rows) - 1}" if self.rows else "*"
        return f"{unit} {span}/{total}"


def known_total(window: Window, shown: int) -> int | None:
    """Return how many rows there are, if the page itself shows it: the last page does."""
    if shown < window.count and (shown or not window.first):
        return window.first + shown
    return None


async def count(connection: Driver, source: str, statement: Statement, most: int) -> int | None:
    """Return how many rows a source has, ``None`` when more than ``most``; ``statement`` has the source's parameters."""
    sql = f"SELECT count(*) FROM (SELECT FROM {source} LIMIT {statement.add(most + 1, 'int')}) f"  # noqa: S608
    found: int = (await statement.fetch(connection, sql))[0][0]
    return found if found <= most else None
