"""Count what subscriptions have: how many there are of each kind, and which fields are filled in.

So many rows as there are kinds of things, however many subscriptions there are; different values apart.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

_TOTALS = text(
    """
    SELECT true AS of_product, p.name, s.status, count(*) AS count
      FROM subscriptions s JOIN products p USING (product_id) GROUP BY p.name, s.status
    UNION ALL
    SELECT false, b.name, s.status, count(*)
      FROM subscription_instances i JOIN product_blocks b USING (product_block_id) JOIN subscriptions s USING (subscription_id)
     GROUP BY b.name, s.status
    """
)
_VALUES = text(
    """
    SELECT b.name, s.status, v.key, count(*) AS count
      FROM subscription_instances i JOIN product_blocks b USING (product_block_id) JOIN subscriptions s USING (subscription_id)
           CROSS JOIN LATERAL jsonb_each(i.resources) v
     WHERE jsonb_typeof(v.value) <> 'null'
     GROUP BY b.name, s.status, v.key
    """
)
_DIFFERENT_VALUES = text(
    """
    SELECT b.name, s.status, v.key, v.value::text, count(*)
      FROM subscription_instances i JOIN product_blocks b USING (product_block_id) JOIN subscriptions s USING (subscription_id)
           CROSS JOIN LATERAL jsonb_each(i.resources) v
     WHERE jsonb_typeof(v.value) <> 'null'
     GROUP BY b.name, s.status, v.key, v.value
    """
)
_FIELDS = text(
    """
    SELECT of_product, name, status, field, blocks, length, count(*) AS count
      FROM (SELECT true AS of_product, p.name, s.status, r.field, array_agg(DISTINCT b.name) AS blocks, count(*) AS length
              FROM subscription_roots r JOIN subscriptions s USING (subscription_id) JOIN products p USING (product_id)
                   JOIN subscription_instances i ON i.subscription_instance_id = r.depends_on_id
                   JOIN product_blocks b USING (product_block_id)
             GROUP BY r.subscription_id, r.field, p.name, s.status
            UNION ALL
            SELECT false, h.name, s.status, r.field, array_agg(DISTINCT b.name), count(*)
              FROM subscription_instance_relations r
                   JOIN subscription_instances u ON u.subscription_instance_id = r.in_use_by_id
                   JOIN product_blocks h ON h.product_block_id = u.product_block_id
                   JOIN subscriptions s ON s.subscription_id = u.subscription_id
                   JOIN subscription_instances i ON i.subscription_instance_id = r.depends_on_id
                   JOIN product_blocks b ON b.product_block_id = i.product_block_id
             GROUP BY r.in_use_by_id, r.field, h.name, s.status) filled
     GROUP BY of_product, name, status, field, blocks, length
    """
)


@dataclass(frozen=True, slots=True)
class Kind:
    """What subscriptions are of, a product, or blocks: a product block."""

    name: str
    is_product: bool = False


@dataclass(frozen=True, slots=True)
class FilledField:
    """A field with blocks, of so many subscriptions or blocks of one kind, in subscriptions of one status.

    Args:
        blocks: the names of the product blocks in it.
        length: how many blocks each has there.
    """

    holder: Kind
    status: str
    field: str
    blocks: frozenset[str]
    length: int
    count: int


@dataclass(frozen=True, slots=True)
class StoredValue:
    """A value that so many blocks of one kind have, in subscriptions of one status.

    Args:
        name: of the resource type.
        written: as JSON.
    """

    block: str
    status: str
    name: str
    written: str
    count: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What subscriptions have.

    Args:
        totals: kind → status → how many subscriptions or blocks there are.
        values: product block → resource type → status → how many blocks have a value of it; ``null`` is none.
    """

    totals: Mapping[Kind, Mapping[str, int]] = field(default_factory=dict)
    values: Mapping[str, Mapping[str, Mapping[str, int]]] = field(default_factory=dict)
    fields: Sequence[FilledField] = ()

    def count(self, kind: Kind) -> int:
        """Return how many there are of a kind, of whatever status."""
        return sum(self.totals.get(kind, {}).values())

    def count_values(self, block: str, resource_type: str) -> int:
        """Return how many blocks of a name have a value of a resource type."""
        return sum(self.values.get(block, {}).get(resource_type, {}).values())

    def blocks_in(self, holder: Kind) -> frozenset[str]:
        """Return the product blocks that stand in fields of a kind."""
        return frozenset(block for one in self.fields if one.holder == holder for block in one.blocks)


async def count_usage(session: AsyncSession) -> Usage:
    """Count what all subscriptions have, with three statements."""
    totals: dict[Kind, dict[str, int]] = {}
    for of_product, name, status, count in await session.execute(_TOTALS):
        totals.setdefault(Kind(name, of_product), {})[status] = count
    values: dict[str, dict[str, dict[str, int]]] = {}
    for name, status, resource_type, count in await session.execute(_VALUES):
        values.setdefault(name, {}).setdefault(resource_type, {})[status] = count
    fields = [
        FilledField(Kind(name, of_product), status, place, frozenset(blocks), length, count)
        for of_product, name, status, place, blocks, length, count in await session.execute(_FIELDS)
    ]
    return Usage(totals, values, fields)


async def read_values(session: AsyncSession) -> AsyncIterator[StoredValue]:
    """Yield each different value that blocks have. There may be as many as there are blocks, so they are not held in memory."""
    async for row in await session.stream(_DIFFERENT_VALUES):
        yield StoredValue(*row)
