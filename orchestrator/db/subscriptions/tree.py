"""Build the tree of a subscription's blocks from their rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from orchestrator.types import JSON


@dataclass(frozen=True, slots=True)
class ShownBlock:
    """A block as its rows have it, in one place of a tree.

    Args:
        field, position: where it stands; ``field`` is empty for a block of the subscription that stands nowhere.
        owner_subscription_id: the subscription it belongs to.
        blocks: what stands in its fields; nothing for blocks of other subscriptions.
        is_repeated: it stands elsewhere before, and what stands in its fields is shown there only.
    """

    field: str
    position: int
    name: str
    subscription_instance_id: UUID
    owner_subscription_id: UUID
    label: str | None
    resources: Mapping[str, JSON]
    blocks: tuple[ShownBlock, ...] = ()
    is_repeated: bool = False


def build_tree(
    subscription_id: UUID,
    blocks: Sequence[Sequence[Any]],
    relations: Sequence[Sequence[Any]],
    roots: Sequence[Sequence[Any]],
) -> tuple[ShownBlock, ...]:
    """Return the blocks in a subscription's own fields, each with those in its fields, then blocks that stand nowhere.

    Args:
        blocks: id, owner, name, label and values of each block.
        relations: block, field, position and the block that stands there.
        roots: field, position and block.
    """
    rows = {row[0]: row for row in blocks}
    inside: dict[str, list[Sequence[Any]]] = {}
    for block, *place in relations:
        inside.setdefault(block, []).append(place)
    placed: set[str] = set()

    def show(field: str, position: int, block_id: str) -> ShownBlock:
        # In its first place only: where blocks stand in two places each, a tree of all places doubles with each level.
        is_repeated = block_id in placed
        placed.add(block_id)
        _, owner, name, label, resources = rows[block_id]
        below = () if is_repeated else tuple(show(*place) for place in inside.get(block_id, ()))
        is_cut = is_repeated and block_id in inside
        return ShownBlock(field, position, name, UUID(block_id), UUID(owner), label, resources, below, is_cut)

    found = [show(*place) for place in roots]
    found += [show("", 0, row[0]) for row in blocks if row[1] == str(subscription_id) and row[0] not in placed]
    return tuple(found)
