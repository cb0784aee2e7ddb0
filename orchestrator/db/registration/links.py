"""Which product blocks stand in the fields of products and of other blocks, and which resource types blocks hold."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection, delete
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import InstrumentedAttribute

from orchestrator.db.registration.lookup import BLOCK, RESOURCE_TYPE, Named, check_names, find_ids
from orchestrator.db.tables import ProductBlockRelationRow, ProductBlockResourceTypeRow, ProductProductBlockRow
from orchestrator.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Links:
    """A table that says what a product or a product block has.

    Args:
        holder: the column with the id of the product or the block.
        member: the column with the id of what it has.
        kind: what that is.
        parameter: what error texts call a list of names of members.
        missing: says that the holder does not have a member.
    """

    holder: InstrumentedAttribute[UUID]
    member: InstrumentedAttribute[UUID]
    kind: Named
    parameter: str
    missing: str

    def add(self, connection: Connection, holder: UUID, names: Iterable[str]) -> None:
        """Add these to what the holder has; existing ones stay.

        Raises:
            ConfigurationError: one of them is not known.
        """
        members = find_ids(connection, self.kind, check_names(self.parameter, names))
        rows = [{self.holder.key: holder, self.member.key: member} for member in members.values()]
        if rows:
            connection.execute(insert(self.holder.class_).on_conflict_do_nothing(), rows)

    def remove(self, connection: Connection, holder: UUID, name: str, names: Iterable[str]) -> None:
        """Remove these from what the holder has.

        Args:
            name: of the holder, for the error text.

        Raises:
            ConfigurationError: one of them is not known, or the holder does not have it.
        """
        members = find_ids(connection, self.kind, check_names(self.parameter, names))
        unwanted = delete(self.holder.class_).where(self.holder == holder, self.member.in_(members.values()))
        gone = set(connection.scalars(unwanted.returning(self.member)))
        missing = [member for member, identity in members.items() if identity not in gone]
        if missing:
            raise ConfigurationError(self.missing.format(holder=repr(name), member=repr(missing[0])))


IN_PRODUCTS = Links(
    ProductProductBlockRow.product_id,
    ProductProductBlockRow.product_block_id,
    BLOCK,
    "product_blocks",
    "the product {holder} has no block {member}",
)
IN_BLOCKS = Links(
    ProductBlockRelationRow.in_use_by_id,
    ProductBlockRelationRow.depends_on_id,
    BLOCK,
    "depends_on",
    "the product block {holder} does not refer to {member}",
)
TYPES = Links(
    ProductBlockResourceTypeRow.product_block_id,
    ProductBlockResourceTypeRow.resource_type_id,
    RESOURCE_TYPE,
    "resource_types",
    "the product block {holder} has no resource type {member}",
)
