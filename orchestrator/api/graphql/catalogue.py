"""The types of blocks and their values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import strawberry

from orchestrator.api.graphql.reader import Reader, Row
from orchestrator.db import metadata

Info = strawberry.Info[Reader, None]


@strawberry.type(description="A value that blocks have.")
class ResourceType:
    """A value that blocks have."""

    _row: strawberry.Private[Row]
    resource_type_id: str
    resource_type: str
    description: str | None

    @classmethod
    def of(cls, row: Row) -> ResourceType:
        """Return a resource type."""
        return cls(
            _row=row,
            resource_type_id=str(row["resource_type_id"]),
            resource_type=row["resource_type"],
            description=row["description"],
        )

    @strawberry.field(description="The blocks that have it.")
    async def product_blocks(self, info: Info) -> list[ProductBlock]:
        """Return the blocks that have it."""
        whole = await _read_whole(info, metadata.TYPES, self.resource_type_id, self._row)
        return await list_blocks(info, whole["product_blocks"])


@strawberry.type(description="A block that products are made of.")
class ProductBlock:
    """A block that products are made of."""

    _row: strawberry.Private[Row]
    product_block_id: str
    name: str
    tag: str | None
    description: str | None
    status: str
    created_at: datetime | None
    end_date: datetime | None

    @classmethod
    def of(cls, row: Row) -> ProductBlock:
        """Return a block."""
        return cls(
            _row=row,
            product_block_id=str(row["product_block_id"]),
            **{name: row[name] for name in ("name", "tag", "description", "status", "created_at", "end_date")},
        )

    @strawberry.field(description="Its values.")
    def resource_types(self) -> list[ResourceType]:
        """Return its values."""
        return [ResourceType.of(one) for one in self._row["resource_types"]]

    @strawberry.field(description="The blocks that may stand in its fields.")
    async def depends_on(self, info: Info) -> list[ProductBlock]:
        """Return the blocks that may stand in its fields."""
        return await list_blocks(info, self._row["depends_on"])


async def list_blocks(info: Info, references: Sequence[Mapping[str, Any]]) -> list[ProductBlock]:
    """Return the blocks that a row refers to."""
    known = await info.context.list_metadata(metadata.BLOCKS)
    ids = [UUID(one["product_block_id"]) for one in references]
    return [ProductBlock.of(known[one]) for one in ids if one in known]


async def _read_whole(info: Info, kind: metadata.Kind, row_id: str, row: Row) -> Row:
    """Return a row with what belongs to it; in another row stands only a reference."""
    known = await info.context.list_metadata(kind)
    return known.get(UUID(row_id), {"product_blocks": [], **row})
