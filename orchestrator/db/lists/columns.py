"""The columns of a list: what may be filtered and sorted by, and the SQL for it. Other names are refused, with the right ones.

A filter's value has alternatives, separated by ``|``; ``!`` before it takes the rest; case does not matter. Where values are few,
``-`` separates them as well: statuses, and names of workflows and products, which are meant as a whole, too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from orchestrator.db.lists.request import Filter, SortKey, snake_case
from orchestrator.db.lists.statement import Lookups, Statement
from orchestrator.db.lists.words import Term, Text, read_text
from orchestrator.errors import InvalidQueryError

Condition = Callable[[Statement, Sequence[object]], str]
"""Adds its parameters to a statement and returns the SQL of a condition; given the answers to the lookups."""

MAX_ALTERNATIVES = 200
"""Alternatives of one filter."""

_FLAGS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_HEX = re.compile(r"[0-9a-f-]{1,36}")
_UUID_DIGITS = 32
_COMPARED = re.compile(r"(>=|<=|>|<)?(.*)", re.DOTALL)
_SUFFIXES = {"_gt": ">", "_gte": ">=", "_lt": "<", "_lte": "<="}


class Column(Protocol):
    """A column by which a list can be filtered."""

    def matching(self, texts: Sequence[Text], lookups: Lookups) -> Condition:
        """Return the condition that the column is one of these."""


def any_of(*conditions: Condition) -> Condition:
    """Return the condition that one of these holds."""
    return lambda statement, found: "(" + " OR ".join(f"({one(statement, found)})" for one in conditions) + ")"


def all_of(*conditions: Condition) -> Condition:
    """Return the condition that each of these holds."""
    return lambda statement, found: " AND ".join(["true", *(f"({one(statement, found)})" for one in conditions)])


def negate(condition: Condition) -> Condition:
    """Return the condition that another one does not hold; a missing value fits no condition."""
    return lambda statement, found: f"({condition(statement, found)}) IS NOT TRUE"


def never(_: Statement, __: Sequence[object]) -> str:
    """Return the condition that no row fits."""
    return "false"


@dataclass(frozen=True, slots=True)
class Choice:
    """A column with few possible values, such as a status."""

    sql: str
    choices: tuple[str, ...]

    def matching(self, texts: Sequence[Text], lookups: Lookups) -> Condition:
        """Return the condition that the column is one of these."""
        del lookups
        chosen = [choice for choice in self.choices if any(text.fits(choice) for text in texts)]
        return lambda statement, _: f"{self.sql} = ANY({statement.add(chosen, 'text[]')})"


@dataclass(frozen=True, slots=True)
class Flag:
    """A column that is true or false."""

    sql: str

    def matching(self, texts: Sequence[Text], lookups: Lookups) -> Condition:
        """Return the condition that the column is one of these."""
        del lookups
        values = {value for word, value in _FLAGS.items() if any(text.fits(word) for text in texts)}
        if len(values) != 1:
            return (lambda *_: "true") if values else never
        return lambda *_: self.sql if values == {True} else f"NOT {self.sql}"


@dataclass(frozen=True, slots=True)
class Id:
    """An id, or the characters with which it begins.

    Args:
        sql: a condition in which ``{first}`` and ``{last}`` are the bounds of the id.
    """

    sql: str

    def matching(self, texts: Sequence[Text], lookups: Lookups) -> Condition:
        """Return the condition that the id begins with one of these."""
        del lookups
        bounds = [bound for text in texts if (bound := id_bounds(text.written)) is not None]

        def condition(statement: Statement, _: Sequence[object]) -> str:
            parts = [
                self.sql.format(first=statement.add(first, "uuid"), last=statement.add(last, "uuid"))
                for first, last in bounds
            ]
            return f"({' OR '.join(parts)})" if parts else "false"

        return condition


@dataclass(frozen=True, slots=True)
class Named:
    """A column that refers to a small table, such as the name of a product. Its ids are looked up first.

    Args:
        ids: SQL for the ids, in which ``{names}`` is an array of patterns in lower case.
        sql: a condition in which ``{ids}`` is an array of ids.
    """

    ids: str
    sql: str

    def matching(self, texts: Sequence[Text], lookups: Lookups) -> Condition:
        """Return the condition that the column's name is one of these."""
        patterns = lookups.add([pattern(text) for text in texts], "text[]")
        number = lookups.select(self.ids.format(names=patterns))
        return lambda statement, found: (
            self.sql.format(ids=statement.add(found[number], "uuid[]")) if found[number] else "false"
        )


@dataclass(frozen=True, slots=True)
class Plain:
    """A short text that is meant as a whole, in a column that a list's index has."""

    sql: str

    def matching(self, texts: Sequence[Text], lookups: Lookups) -> Condition:
        """Return the condition that the text is one of these."""
        del lookups
        patterns = [pattern(text) for text in texts]
        return lambda statement, _: f"lower({self.sql}) LIKE ANY({statement.add(patterns, 'text[]')})"


@dataclass(frozen=True, slots=True)
class Words:
    """A text in the row.

    Args:
        sql: the text.
        vector: the indexed words, of this text and others.
        exact: whether the whole text is meant, and not words in it.
    """

    sql: str
    vector: str
    exact: bool = False

    def matching(self, texts: Sequence[Text], lookups: Lookups) -> Condition:
        """Return the condition that the text is, or has, one of these."""
        del lookups

        def condition(statement: Statement, _: Sequence[object]) -> str:
            # The index finds the rows; what stands in another text of them is sorted out.
            indexed = has_words(statement, texts, [self.vector], self.sql)
            if self.exact:
                own = f"lower({self.sql}) LIKE ANY({statement.add([pattern(text) for text in texts], 'text[]')})"
            else:
                own = has_words(statement, texts, [f"search_words({self.sql})"], self.sql)
            return f"({indexed} AND {own})"

        return condition


@dataclass(frozen=True, slots=True)
class Time:
    """A moment, compared by ``>``, ``>=``, ``<`` or ``<=``.

    Args:
        sql: a condition in which ``{compare}`` is the comparison.
    """

    sql: str

    def compared(self, operator: str, moment: datetime) -> Condition:
        """Return the condition that the moment lies before or after another one."""
        return lambda statement, _: self.sql.format(compare=f"{operator} {statement.add(moment, 'timestamptz')}")

    def matching(self, texts: Sequence[Text], lookups: Lookups) -> Condition:
        """Return the condition that the moment is one of these."""
        del lookups
        return any_of(*(self._matching(text) for text in texts))

    def _matching(self, text: Text) -> Condition:
        found = _COMPARED.fullmatch(text.written)
        moment = read_moment(found[2]) if found is not None else None
        if found is None or moment is None:
            return never
        return self.compared(found[1] or "=", moment)


@dataclass(frozen=True, slots=True)
class Columns:
    """What a list can be filtered and sorted by.

    Args:
        filters: the columns by their names.
        sorts: the SQL that is sorted by, by the names of columns.
        nullable: those of ``sorts`` that may have no value.
        aliases: other names, under which clients know them.
        key: the column that no two rows share: the last one of every order.
    """

    filters: Mapping[str, Column]
    sorts: Mapping[str, str]
    nullable: frozenset[str]
    aliases: Mapping[str, str]
    key: str

    def filter_by(self, one: Filter, lookups: Lookups) -> Condition:
        """Return the condition of a filter.

        Raises:
            InvalidQueryError: there is no such column, or the value is none of its values.
        """
        name, operator = one.name, ""
        for suffix, found in _SUFFIXES.items():
            if name.endswith(suffix) and isinstance(self._find(name.removesuffix(suffix)), Time):
                name, operator = name.removesuffix(suffix), found
        column = self._find(name)
        if column is None:
            raise InvalidQueryError(f"there is no filter {one.name[:50]!r}", sorted(self.filters))
        value = one.value
        negated = value.startswith("!")
        texts = [read_text(part) for part in _alternatives(column, operator + value.removeprefix("!"))]
        _check(name, column, texts)
        condition = column.matching(texts, lookups)
        return negate(condition) if negated else condition

    def has_filter(self, name: str) -> bool:
        """Return whether the list can be filtered by a name."""
        return any(
            isinstance(self._find(name.removesuffix(suffix)), Time) for suffix in _SUFFIXES if name.endswith(suffix)
        ) or (self._find(name) is not None)

    def check(self, one: Filter) -> None:
        """Check the value of a filter.

        Raises:
            InvalidQueryError: the column cannot have it.
        """
        self.filter_by(one, Lookups())

    def has_sort(self, name: str) -> bool:
        """Return whether the list can be sorted by a name."""
        return self.aliases.get(name, name) in self.sorts

    def list_filters(self) -> list[str]:
        """Return the names that the list can be filtered by, aliases among them."""
        return [*self.filters, *(one for one, column in self.aliases.items() if column in self.filters)]

    def list_sorts(self) -> list[str]:
        """Return the names that the list can be sorted by, aliases among them."""
        return [*self.sorts, *(one for one, column in self.aliases.items() if column in self.sorts)]

    def search_in(self, term: Term, lookups: Lookups) -> Condition | None:
        """Return the condition of a term about one column; ``None`` when the list has no such column."""
        column = self._find(snake_case(term.column or ""))
        return None if column is None else column.matching(term.texts, lookups)

    def order(self, keys: Sequence[SortKey], default: SortKey) -> str:
        """Return the SQL to sort by: always an order without ties, in which an index is read forwards or backwards.

        Raises:
            InvalidQueryError: the list cannot be sorted by that.
        """
        parts: dict[str, bool] = {}
        for key in keys or (default,):
            sql = self.sorts.get(self.aliases.get(key.name, key.name))
            if sql is None:
                raise InvalidQueryError(f"the list cannot be sorted by {key.name[:50]!r}", sorted(self.sorts))
            parts.setdefault(sql, key.descending)
        parts.setdefault(self.key, not list(parts.values())[-1])
        return ", ".join(f"{sql} {self._direction(sql, descending=down)}" for sql, down in parts.items())

    def _direction(self, sql: str, *, descending: bool) -> str:
        nulls = (" NULLS LAST" if descending else " NULLS FIRST") if sql in self.nullable else ""
        return ("DESC" if descending else "ASC") + nulls

    def _find(self, name: str) -> Column | None:
        return self.filters.get(self.aliases.get(name, name))


def has_words(statement: Statement, texts: Sequence[Text], vectors: Sequence[str], plain: str) -> str:
    """Return the SQL that a row has one of these in one of its vectors; punctuation alone is looked for in the plain text."""
    parts = [
        f"strpos(lower({plain}), {statement.add(text.written.lower(), 'text')}) > 0" for text in texts if not text.parts
    ]
    # One query of all words, not one for each: PostgreSQL then reads the index once.
    if words := [f"({text.tsquery})" for text in texts if text.parts]:
        query = f"to_tsquery('pg_catalog.simple', {statement.add(' | '.join(words), 'text')})"
        parts += [f"{vector} @@ {query}" for vector in vectors]
    return f"({' OR '.join(parts)})"


def has_id(column: str, number: int) -> Condition:
    """Return the condition that a column is one of the ids in an answer to the lookups."""
    return lambda statement, found: (
        f"{column} = ANY({statement.add(found[number], 'uuid[]')})" if found[number] else "false"
    )


def pattern(text: Text) -> str:
    """Return the pattern of ``LIKE`` for a whole text in lower case, or its beginning."""
    escaped = re.sub(r"([\\%_])", r"\\\1", text.written.lower())
    return f"{escaped}%" if text.is_prefix else escaped


def id_bounds(written: str) -> tuple[str, str] | None:
    """Return the first and the last id that begins with these characters; ``None`` when none can."""
    digits = written.strip().lower()
    if _HEX.fullmatch(digits) is None:
        return None
    digits = digits.replace("-", "")
    if not digits or len(digits) > _UUID_DIGITS:
        return None
    return digits.ljust(_UUID_DIGITS, "0"), digits.ljust(_UUID_DIGITS, "f")


def read_moment(written: str) -> datetime | None:
    """Return a time with its offset; ``None`` when it is none, or has no offset."""
    try:
        moment = datetime.fromisoformat(written.strip())
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None


def _alternatives(column: Column, value: str) -> list[str]:
    found: dict[str, None] = {}
    for part in value.split("|"):
        if isinstance(column, Choice | Flag):
            found |= dict.fromkeys(part.split("-"))
        elif isinstance(column, Named):
            found |= dict.fromkeys([part, *part.split("-")])
        else:
            found[part] = None
    alternatives = [one for one in found if one.strip()]
    if len(alternatives) > MAX_ALTERNATIVES:
        raise InvalidQueryError(
            f"a filter has {len(alternatives)} alternatives; at most {MAX_ALTERNATIVES} are accepted"
        )
    return alternatives


def _check(name: str, column: Column, texts: Sequence[Text]) -> None:
    """Raise if a value cannot be one of the column's.

    Raises:
        InvalidQueryError.
    """
    if not texts:
        raise InvalidQueryError(f"the filter {name!r} has no value")
    if isinstance(column, Choice) and not any(text.fits(choice) for choice in column.choices for text in texts):
        raise InvalidQueryError(f"the filter {name!r} has none of its values", column.choices)
    for text in texts:
        if isinstance(column, Flag) and not any(text.fits(word) for word in _FLAGS):
            raise InvalidQueryError(f"the filter {name!r} must be true or false")
        if isinstance(column, Id) and id_bounds(text.written) is None:
            raise InvalidQueryError(f"the filter {name!r} must be an id, or how one begins")
        if isinstance(column, Time):
            found = _COMPARED.fullmatch(text.written)
            if found is None or read_moment(found[2]) is None:
                raise InvalidQueryError(
                    f"the filter {name!r} must be a time with its offset, such as >=2026-01-31T12:00:00Z; a + in an address"
                    " is written %2B"
                )
