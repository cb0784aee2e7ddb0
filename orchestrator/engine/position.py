"""The position of a reader in the log of all processes: a set of transactions, which is the id in event streams.

A rising number for each entry would not suffice: transactions commit in another order than they take their numbers, and a
reader would miss an entry that appears below the highest number it has seen. A position is what PostgreSQL calls a snapshot:
the transactions below a limit, without those that were still open. What commits later is not in it, whatever its number.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID

MAX_TEXT = 8192
"""The longest text of a position, in characters; a server with a thousand open transactions needs fewer."""

_TEXT = re.compile(r"[0-9]{1,19}(?:\.[0-9]{1,19})*", re.ASCII)
_MAX_TXID = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Position:
    """The transactions whose entries have been read: those below ``below`` that are not in ``open``."""

    below: int
    open: tuple[int, ...] = ()

    @classmethod
    def of_snapshot(cls, text: str) -> Position:
        """Read PostgreSQL's text of a snapshot: ``xmin:xmax:open,open``."""
        _, below, still_open = text.split(":")
        return cls(int(below), tuple(sorted(int(one) for one in still_open.split(",") if one)))

    @classmethod
    def parse(cls, text: str) -> Position:
        """Parse the output of ``str()``.

        Raises:
            ValueError: the text is something else.
        """
        if len(text) > MAX_TEXT or _TEXT.fullmatch(text) is None:
            raise ValueError("not a position")
        below, *distances = (int(one) for one in text.split("."))
        if below > _MAX_TXID or any(not 0 < one <= below for one in distances) or sorted(set(distances)) != distances:
            raise ValueError("not a position")
        return cls(below, tuple(below - one for one in reversed(distances)))

    def __str__(self) -> str:
        """Return digits and full stops: the limit, and the distance of each open transaction from it."""
        return ".".join(map(str, (self.below, *(self.below - one for one in reversed(self.open)))))

    def covers(self, txid: int) -> bool:
        """Return whether the entries of a transaction have been read."""
        return txid < self.below and txid not in self.open

    def advance(self, upto: int, target: Position) -> Position:
        """Return the position after also reading the transactions up to ``upto`` that are in ``target``, a later position."""
        below = max(self.below, min(upto + 1, target.below))
        left = {one for one in self.open if one > upto or not target.covers(one)}
        return Position(below, tuple(sorted(left | {one for one in target.open if one <= upto})))


@dataclass(frozen=True, slots=True)
class Place:
    """The sequence of an entry in the log of its process, and the transaction that stored it."""

    process_id: UUID
    sequence: int
    txid: int


T = TypeVar("T")


def arrange(found: Sequence[tuple[Place, T]]) -> list[tuple[T, int]]:
    """Sort entries by transaction, but keep the order of each process's log.

    A transaction may take its number, wait for a process's lock and then store a later entry than the one with a higher number
    that held the lock.

    Returns:
        Each entry with the highest number up to which no transaction has entries behind it.
    """
    by_transaction = sorted(found, key=lambda one: (one[0].txid, one[0].process_id, one[0].sequence))
    of_process: dict[UUID, list[tuple[Place, T]]] = {}
    for one in by_transaction:
        of_process.setdefault(one[0].process_id, []).append(one)
    in_log = {key: iter(sorted(these, key=lambda one: one[0].sequence)) for key, these in of_process.items()}
    ordered = [next(in_log[place.process_id]) for place, _ in by_transaction]
    arranged: list[tuple[T, int]] = []
    lowest = _MAX_TXID + 1
    for place, value in reversed(ordered):
        arranged.append((value, lowest - 1))
        lowest = min(lowest, place.txid)
    return arranged[::-1]
