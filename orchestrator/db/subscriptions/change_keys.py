"""The keys of a subscription's changes, as they are stored, and the paths that people see instead of them.

A key names a block by its id, so that moving the block, or renaming a field above it, leaves all its keys as they are:

=====================  ====================================================================
``status``             a value of the subscription itself
``<block>.vlan``       a value of a block
``/node``              the block in a field of the subscription; the value is the block's id
``/nodes/0``           the same in a list
``<block>/ports/0``    the block in a field of another block
=====================  ====================================================================

A path says where that stands: ``node.ports.0.vlan``. It is made when it is shown, from where the blocks stood at the moment of
the change.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from uuid import UUID

from orchestrator.types import JSON

Changes = Mapping[str, Sequence[JSON]]
"""Key → old and new value."""

_KEY = re.compile(r"(?P<block>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})?(?P<kind>[./])(?P<rest>.+)")
_NOWHERE = "blocks."
"""Begins the path of a block that stands in no field of its own subscription, but only below another subscription's block."""


def make_value_key(block: UUID | str, name: str) -> str:
    """Return the key of a value of a block."""
    return f"{block}.{name}"


def make_link_key(holder: UUID | str | None, field: str, position: int | None = None) -> str:
    """Return the key of the block in a field.

    Args:
        holder: the block that has the field; ``None`` for the subscription itself.
        position: of the block in a list; ``None`` when the field holds a single block.
    """
    place = field if position is None else f"{field}/{position}"
    return f"{'' if holder is None else holder}/{place}"


class Places:
    """Where the blocks of a subscription stand, at one moment of its history."""

    def __init__(self) -> None:
        self._links: dict[str, dict[str, None]] = {}
        self._paths: dict[str, str] = {}

    def apply(self, changes: Changes) -> None:
        """Apply a change to the places."""
        self._paths.clear()
        for key, (old, new) in sorted(changes.items()):
            found = _KEY.fullmatch(key)
            if found is None or found["kind"] != "/":
                continue
            if old is not None:
                self._links.get(str(old), {}).pop(key, None)
            if new is not None:
                self._links.setdefault(str(new), {})[key] = None

    def show(self, changes: Changes) -> dict[str, tuple[JSON, JSON]]:
        """Return a change by path instead of key, and apply it.

        The path is that of the block after the change, or before it when the block is gone. What stood at a path and what
        stands there now are one entry. A key that is no key is shown as it is: programs of an earlier version stored paths.
        """
        parsed = {key: _KEY.fullmatch(key) for key in changes}
        blocks = [found["block"] for found in parsed.values() if found is not None and found["block"]]
        before = {block: self._path(block) for block in blocks}
        self.apply(changes)
        shown: dict[str, tuple[JSON, JSON]] = {}
        for key, (old, new) in changes.items():
            path = key
            if (found := parsed[key]) is not None:
                path = found["rest"].replace("/", ".")
                if block := found["block"]:
                    place = self._path(block)
                    path = f"{before[block] if place == f'{_NOWHERE}{block}' else place}.{path}"
                elif found["kind"] == ".":
                    path = key
            shown[path] = _merge(shown[path], (old, new)) if path in shown else (old, new)
        return shown

    def _path(self, block: str) -> str:
        """Return the path of a block; of several, one that begins in a field of the subscription, the oldest of these."""
        if block not in self._paths:
            # For histories that let a block stand below itself, which no program writes: the search ends there.
            self._paths[block] = nowhere = f"{_NOWHERE}{block}"
            found = [self._path_of(key) for key in self._links.get(block, ())]
            self._paths[block] = next(
                (one for one in found if not one.startswith(_NOWHERE)), found[0] if found else nowhere
            )
        return self._paths[block]

    def _path_of(self, key: str) -> str:
        holder, _, place = key.partition("/")
        place = place.replace("/", ".")
        return f"{self._path(holder)}.{place}" if holder else place


def _merge(one: tuple[JSON, JSON], other: tuple[JSON, JSON]) -> tuple[JSON, JSON]:
    """Return the change at a path at which one block has taken the place of another."""
    gone, come = (one, other) if one[1] is None else (other, one)
    return gone[0], come[1]
