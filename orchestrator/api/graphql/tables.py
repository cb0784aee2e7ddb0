"""Filter, search, sort and cut lists that are read as a whole: products, blocks, workflows, customers. Pure.

There are hundreds of rows, so their values mean the same as in the lists that SQL makes, without SQL.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from orchestrator.db.lists.page import Page
from orchestrator.db.lists.request import Filter, ListRequest, snake_case
from orchestrator.db.lists.words import Term, Text, read_text
from orchestrator.errors import InvalidQueryError

Row = Mapping[str, Any]

_FLAGS: Final = {True: ("true", "yes", "1"), False: ("false", "no", "0")}


@dataclass(frozen=True, slots=True)
class Table:
    """What a list that is read as a whole can be filtered, searched and sorted by.

    Args:
        columns: the values of a row that people see, by names.
        searched: the columns that a word without a column is looked for in.
        default: the column that rows are sorted by when nothing else is asked for.
    """

    columns: Mapping[str, Callable[[Row], object]]
    searched: Sequence[str]
    default: str

    def has_filter(self, name: str) -> bool:
        """Return whether it can be filtered by this."""
        return name in self.columns

    def has_sort(self, name: str) -> bool:
        """Return whether it can be sorted by this."""
        return name in self.columns

    def list_filters(self) -> list[str]:
        """Return the names of its filters."""
        return list(self.columns)

    def list_sorts(self) -> list[str]:
        """Return the names that it can be sorted by."""
        return list(self.columns)

    def check(self, one: Filter) -> None:
        """Check the value of a filter.

        Raises:
            InvalidQueryError: it has none.
        """
        if not one.value.removeprefix("!").strip("| "):
            raise InvalidQueryError(f"the filter {one.name!r} has no value")

    def select(self, rows: Sequence[Row], request: ListRequest) -> Page[Row]:
        """Return the rows that a request asks for."""
        fitting = [
            row
            for row in rows
            if all(self._passes(row, one) for one in request.filters)
            and all(self._matches(row, one) for one in request.terms)
        ]
        keys = [(one.name, one.descending) for one in request.sort] or [(self.default, False)]
        for name, descending in reversed(keys):
            fitting.sort(key=lambda row, name=name: _sort_key(self.columns[name](row)), reverse=descending)  # type: ignore[misc]
        first = request.window.first
        return Page(fitting[first : first + request.window.count], first, len(fitting))

    def _passes(self, row: Row, one: Filter) -> bool:
        value = self.columns[one.name](row)
        written = one.value.removeprefix("!")
        parts = [part for whole in written.split("|") for part in _alternatives(one.name, whole) if part.strip()]
        fits = any(_fits(read_text(part), value) for part in parts)
        return fits != one.value.startswith("!")

    def _matches(self, row: Row, term: Term) -> bool:
        column = None if term.column is None else self.columns.get(snake_case(term.column))
        if column is not None:
            value = column(row)
            fits = any(_fits(one, value) or _has(one, _write(value)) for one in term.texts)
        else:
            plain = term if term.column is None else term.without_column()
            text = " \n ".join(_write(self.columns[name](row)) for name in self.searched)
            fits = any(_has(one, text) for one in plain.texts)
        return fits != term.negated


def _alternatives(name: str, whole: str) -> list[str]:
    """Return what a value may mean: as a whole, or its parts between hyphens, which ids and times have of their own."""
    return [whole] if name.endswith(("_id", "_at")) or "date" in name else [whole, *whole.split("-")]


def _fits(text: Text, value: object) -> bool:
    if isinstance(value, bool):
        return any(text.fits(word) for word in _FLAGS[value])
    if isinstance(value, list | tuple):
        return any(_fits(text, one) for one in value)
    return text.fits(_write(value))


def _has(text: Text, written: str) -> bool:
    """Return whether a value has these words in a row; punctuation alone is looked for as it stands."""
    if not text.parts:
        return text.written.lower() in written.lower()
    words = _lower(read_text(written, quoted=True).parts)
    wanted = _lower(text.parts)
    return any(_begins(words[place : place + len(wanted)], wanted, text) for place in range(len(words)))


def _begins(words: Sequence[str], wanted: Sequence[str], text: Text) -> bool:
    if len(words) < len(wanted) or words[:-1] != wanted[:-1]:
        return False
    return words[-1].startswith(wanted[-1]) if text.is_prefix else words[-1] == wanted[-1]


def _lower(several: Sequence[str]) -> list[str]:
    return [one.lower() for one in several]


def _write(value: object) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(_write, value))
    return "" if value is None else value.isoformat() if isinstance(value, datetime) else str(value)


def _sort_key(value: object) -> tuple[bool, Any]:
    if value is None:
        return (False, "")
    return (True, value.isoformat() if isinstance(value, datetime) else str(value).lower())


def _named(key: str, name: str = "name") -> Callable[[Row], object]:
    return lambda row: [one[name] for one in row[key]]


def _columns(*names: str, **others: Callable[[Row], object]) -> dict[str, Callable[[Row], object]]:
    return {name: lambda row, name=name: row[name] for name in names} | others


PRODUCTS: Final = Table(
    _columns(
        "product_id",
        "name",
        "description",
        "product_type",
        "tag",
        "status",
        "created_at",
        "end_date",
        product_blocks=_named("product_blocks"),
        fixed_inputs=lambda row: [one["value"] for one in row["fixed_inputs"]],
    ),
    ("name", "description", "product_type", "tag", "status", "product_blocks", "product_id"),
    "name",
)
BLOCKS: Final = Table(
    _columns(
        "product_block_id",
        "name",
        "description",
        "tag",
        "status",
        "created_at",
        "end_date",
        resource_types=_named("resource_types", "resource_type"),
        depends_on=_named("depends_on"),
    ),
    ("name", "description", "tag", "status", "resource_types", "product_block_id"),
    "name",
)
TYPES: Final = Table(
    _columns("resource_type_id", "resource_type", "description", product_blocks=_named("product_blocks")),
    ("resource_type", "description", "product_blocks", "resource_type_id"),
    "resource_type",
)
WORKFLOWS: Final = Table(
    _columns(
        "workflow_id",
        "name",
        "description",
        "target",
        "is_task",
        "created_at",
        products=_named("products"),
        tag=_named("products", "tag"),
    ),
    ("name", "description", "target", "products", "tag", "workflow_id"),
    "name",
)
CUSTOMERS: Final = Table(
    _columns("customer_id", "fullname", "shortcode"), ("fullname", "shortcode", "customer_id"), "fullname"
)
