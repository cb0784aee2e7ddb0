"""Subscriptions and their blocks as plain values: what rows hold, and what models are compared by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from orchestrator.types import JSON

Links = Mapping[tuple[str, int], UUID]
"""Which block stands in which field at which position; in a field for a single block that is 0."""


@dataclass(frozen=True, slots=True)
class StoredBlock:
    """One block as its rows hold it. ``values`` leaves out what is ``None`` and would be without being stored."""

    name: str
    owner: UUID
    label: str | None
    values: Mapping[str, JSON]
    links: Links


@dataclass(frozen=True, slots=True)
class Columns:
    """The values in a subscription's own row."""

    product_id: UUID
    customer_id: str
    description: str
    status: str
    start_date: datetime | None
    end_date: datetime | None
    note: str | None


@dataclass(frozen=True, slots=True)
class StoredSubscription:
    """A subscription as rows hold it, with the blocks that belong to it.

    Args:
        lists: the fields that hold lists of blocks, each with the name of its block, ``None`` for the subscription. In rows
            a list of one block looks like a single block; models know, and add it.
    """

    subscription_id: UUID
    columns: Columns
    links: Links
    blocks: Mapping[UUID, StoredBlock]
    lists: frozenset[tuple[str | None, str]] = frozenset()


@dataclass(frozen=True, slots=True)
class StoredProduct:
    """A product and its fixed inputs."""

    product: Mapping[str, JSON]
    fixed_inputs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class FoundBlock:
    """A block that was reached from the one to load; ``owner_status`` is that of the subscription it belongs to."""

    stored: StoredBlock
    owner_status: str


@dataclass(frozen=True, slots=True)
class FoundSubscription:
    """Everything that one subscription's model is made of, of one moment. ``blocks`` has those of other owners, too."""

    stored: StoredSubscription
    version: int
    insync: bool
    product: StoredProduct
    blocks: Mapping[UUID, FoundBlock]


@dataclass(frozen=True, slots=True)
class Difference:
    """What must be written so that the rows say what a model says.

    Args:
        version: the one that the model was loaded with; ``None`` for a new subscription.
        changes: for the audit trail: the old and the new value by key; see ``change_keys``.
        made, changed: blocks to insert and to update.
        moved: blocks of other subscriptions that become blocks of this one.
        removed: blocks that no longer belong to the subscription's tree.
        linked: parent (``None`` for the subscription itself), field, position and block of relations that are new or different.
        unlinked: parent, field and position of those that are gone.
        foreign: which of the linked blocks belong to other subscriptions.
        given_up: blocks, of whatever subscription, that were in a field and are in none any more.
    """

    subscription_id: UUID
    version: int | None
    insync: bool
    columns: Columns
    changes: Mapping[str, tuple[JSON, JSON]]
    made: Mapping[UUID, StoredBlock] = field(default_factory=dict)
    changed: Mapping[UUID, StoredBlock] = field(default_factory=dict)
    moved: Mapping[UUID, StoredBlock] = field(default_factory=dict)
    removed: Sequence[UUID] = ()
    linked: Sequence[tuple[UUID | None, str, int, UUID]] = ()
    unlinked: Sequence[tuple[UUID | None, str, int]] = ()
    foreign: frozenset[UUID] = frozenset()
    given_up: frozenset[UUID] = frozenset()

    @property
    def touches_blocks(self) -> bool:
        """Whether more than the subscription's own row must be written."""
        return bool(self.made or self.changed or self.moved or self.removed or self.linked or self.unlinked)
