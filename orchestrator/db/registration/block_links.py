"""Which product blocks stand in the fields of products and of other blocks: two tables of one kind."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection, delete
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import InstrumentedAttribute

from orchestrator.db.registration.lookup import BLOCK, check_names, find_ids
from orchestrator.db.tables import ProductBlockRelationRow, ProductProductBlockRow
from orchestrator.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class BlockLinks:
    """A table that says which blocks stand in fields of something.

    Args:
        holder: the column with the id of what has the field.
        block: the column with the id of the block in it.
        parameter: what error texts call a list of names of blocks.
        missing: says that the holder does not have a block.
    """

    holder: InstrumentedAttribute[UUID]
    block: InstrumentedAttribute[UUID]
    parameter: str
    missing: str

    def add(self, connection: Connection, holder: UUID, names: Iterable[str]) -> None:
        """Let the holder have these blocks; those that it has already stay.

        Raises:
            ConfigurationError: one of the blocks is not known.
        """
        blocks = find_ids(connection, BLOCK, check_names(self.parameter, names))
        rows = [{self.holder.key: holder, self.block.key: block} for block in blocks.values()]
        if rows:
            connection.execute(insert(self.holder.class_).on_conflict_do_nothing(), rows)

    def remove(self, connection: Connection, holder: UUID, name: str, names: Iterable[str]) -> None:
        """Let the holder no longer have these blocks.

        Args:
            name: of the holder, for the error text.

        Raises:
            ConfigurationError: one of the blocks is not known, or the holder does not have it.
        """
        blocks = find_ids(connection, BLOCK, check_names(self.parameter, names))
        unwanted = delete(self.holder.class_).where(self.holder == holder, self.block.in_(blocks.values()))
        gone = set(connection.scalars(unwanted.returning(self.block)))
        missing = [block for block, identity in blocks.items() if identity not in gone]
        if missing:
            raise ConfigurationError(self.missing.format(holder=repr(name), block=repr(missing[0])))


IN_PRODUCTS = BlockLinks(
    ProductProductBlockRow.product_id,
    ProductProductBlockRow.product_block_id,
    "product_blocks",
    "the product {holder} has no block {block}",
)
IN_BLOCKS = BlockLinks(
    ProductBlockRelationRow.in_use_by_id,
    ProductBlockRelationRow.depends_on_id,
    "depends_on",
    "the product block {holder} does not refer to {block}",
)
