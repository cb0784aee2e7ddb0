"""Store the large part of a state apart from what steps change, so that a step writes and fetches only its changes.

PostgreSQL writes a column's value as a whole, whatever part of it has changed. So a state has two columns: ``state`` has what
has changed lately, ``base`` the rest, or ``NULL`` while it is small. A key in ``state`` overrides the same key in ``base``. A
statement that does not change ``base`` does not write it: PostgreSQL keeps the reference to its storage. A consumer remembers
the bases that it has read, each by the log entry with which it was written, and does not fetch them again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple
from uuid import UUID

from orchestrator.engine.state import read_object
from orchestrator.types import State

LIMIT = 4096
"""Bytes of changes above which they are merged into the base; a quarter of the base, if that is more."""

MOST_REMEMBERED = 32 * 1024 * 1024
"""The most characters of bases that a consumer remembers."""

WHOLE = "(CASE WHEN p.base IS NULL THEN p.state ELSE p.base || p.state END)"
"""SQL: the state of ``processes AS p``."""


def parts(known: str, asked: str = "true") -> str:
    """Return the SQL of the columns of ``processes AS p`` that :func:`read_parts` needs, without a base that its reader knows.

    Args:
        known: SQL of the ``base_sequence`` that the reader knows.
        asked: SQL of whether the state is needed.
    """
    return (
        f"CASE WHEN {asked} THEN p.state::text END AS state, p.base_sequence,"
        f" CASE WHEN {asked} AND p.base_sequence IS DISTINCT FROM {known} THEN p.base::text END AS base"
    )


def merge(delta: str, removed: str, sequence: str) -> str:
    """Return the SQL that changes the state of ``processes AS p`` in an UPDATE.

    Args:
        delta, removed: SQL of a JSON object as text, and of the keys to remove as ``text[]``, which may be ``NULL``.
        sequence: SQL of the newest log entry.
    """
    # PostgreSQL knows the size of a value without reading it; for a base it is the stored, compressed size.
    most = f"GREATEST({LIMIT}, COALESCE(pg_column_size(p.base), 0) / 4)"
    settles = (
        f"(octet_length({delta}) > {most} OR pg_column_size(p.state) > {most}"
        f" OR CASE WHEN p.base IS NOT NULL AND {removed} IS NOT NULL THEN p.base ?| {removed} END)"
    )
    changed = f"p.state || {delta}::jsonb"
    less = f"CASE WHEN {removed} IS NULL THEN {{0}} ELSE ({{0}}) - {removed} END"
    return (
        f"state = CASE WHEN {settles} THEN '{{}}'::jsonb ELSE {less.format(changed)} END,"
        f" base = CASE WHEN {settles} THEN {less.format(f'COALESCE(p.base || {changed}, {changed})')} ELSE p.base END,"
        f" base_sequence = CASE WHEN {settles} THEN {sequence} ELSE p.base_sequence END"
    )


class Base(NamedTuple):
    """The base of a process.

    Args:
        sequence: the log entry with which it was written.
        written: as PostgreSQL writes it.
    """

    sequence: int
    written: str


class Bases:
    """A cache of bases, limited by characters; the least recently used one is dropped first."""

    def __init__(self, most: int = MOST_REMEMBERED) -> None:
        self._most = most
        self._size = 0
        self._bases: OrderedDict[UUID, Base] = OrderedDict()

    def find(self, process_id: UUID) -> Base | None:
        """Return the base of a process, if it is known."""
        found = self._bases.get(process_id)
        if found is not None:
            self._bases.move_to_end(process_id)
        return found

    def keep(self, process_id: UUID, base: Base | None) -> None:
        """Remember the base of a process in place of an earlier one."""
        earlier = self._bases.pop(process_id, None)
        self._size -= 0 if earlier is None else len(earlier.written)
        if base is None:
            return
        self._bases[process_id] = base
        self._size += len(base.written)
        while self._size > self._most:
            _, oldest = self._bases.popitem(last=False)
            self._size -= len(oldest.written)


def read_parts(row: Any, known: Base | None) -> tuple[State, Mapping[str, str], Base | None]:
    """Return the state in a row with :func:`parts`, why keys of it cannot be read, and its base."""
    state, unreadable = read_object(row["state"])
    sequence = row["base_sequence"]
    if sequence is None:
        return state, unreadable, None
    base = known if row["base"] is None else Base(sequence, row["base"])
    assert base is not None, "only a base that is known is left out"  # noqa: S101 - a programming error, not a user's
    settled, of_base = read_object(base.written)
    changed = state.keys() | unreadable.keys()
    unreadable = {**{key: why for key, why in of_base.items() if key not in changed}, **unreadable}
    whole = {**{key: value for key, value in settled.items() if key not in changed}, **state}
    # In PostgreSQL's order of the keys of the whole state.
    return dict(sorted(whole.items(), key=lambda one: (len(one[0].encode()), one[0].encode()))), unreadable, base
