"""Read everything that one model is made of, in one statement and so of one moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from pydantic_core import from_json
from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.session import get_connection
from orchestrator.db.subscriptions.rows import (
    Columns,
    FoundBlock,
    FoundSubscription,
    Links,
    StoredBlock,
    StoredProduct,
    StoredSubscription,
)
from orchestrator.engine.state import read_object, read_value, split
from orchestrator.errors import ModelError, NotFoundError

_PRODUCT = """
    json_build_object('product_id', p.product_id, 'name', p.name, 'description', p.description,
                      'product_type', p.product_type, 'tag', p.tag, 'status', p.status) AS product,
    (SELECT json_object_agg(f.name, f.value) FROM fixed_inputs f WHERE f.product_id = p.product_id) AS fixed_inputs
"""

# Correlated, so that however the tables have grown each block costs its few index look-ups and nothing more.
_WALK = """
WITH RECURSIVE reached (id) AS (
    {start}
  UNION
    SELECT r.depends_on_id
      FROM reached JOIN subscription_instance_relations r ON r.in_use_by_id = reached.id
)
"""
_BLOCKS = """
    (SELECT json_agg((
        SELECT json_build_array(i.subscription_instance_id, b.name, i.subscription_id, o.status, i.label, i.resources, (
            SELECT json_agg(json_build_array(r.field, r.position, r.depends_on_id))
              FROM subscription_instance_relations r WHERE r.in_use_by_id = i.subscription_instance_id))
          FROM subscription_instances i JOIN product_blocks b USING (product_block_id)
               JOIN subscriptions o USING (subscription_id)
         WHERE i.subscription_instance_id = reached.id)) FROM reached) AS blocks
"""

_LOAD = f"""
{_WALK.format(start="SELECT depends_on_id FROM subscription_roots WHERE subscription_id = $1")}
SELECT s.customer_id, s.description, s.status, s.insync, s.start_date, s.end_date, s.note, s.version, p.product_id,
       (SELECT json_agg(json_build_array(r.field, r.position, r.depends_on_id))
          FROM subscription_roots r WHERE r.subscription_id = s.subscription_id)::text AS links,
       to_json(x.*)::text AS rest
  FROM subscriptions s JOIN products p USING (product_id), LATERAL (SELECT {_PRODUCT}, {_BLOCKS}) AS x
 WHERE s.subscription_id = $1
"""  # noqa: S608 - built from constants

_LOAD_BLOCK = f"{_WALK.format(start='SELECT $1::uuid')} SELECT to_json(x.*)::text AS rest FROM (SELECT {_BLOCKS}) AS x"  # noqa: S608 - built from constants

_LOAD_PRODUCT = f"""
SELECT to_json(x.*)::text AS rest FROM products p, LATERAL (SELECT {_PRODUCT}) AS x WHERE p.product_id = $1
"""  # noqa: S608 - built from constants


async def load(session: AsyncSession, subscription_id: UUID | str) -> FoundSubscription:
    """Read a subscription with its product and every block that can be reached from it, in one statement.

    Raises:
        NotFoundError: there is none.
        ModelError: a value in its rows cannot be read.
    """
    subscription_id = _uuid(subscription_id, "subscription")
    row = await _row(session, _LOAD, subscription_id)
    if row is None:
        raise NotFoundError(f"there is no subscription {subscription_id}")
    rest = _read(row.rest, f"the subscription {subscription_id}")
    blocks = _found_blocks(rest)
    columns = Columns(
        row.product_id, row.customer_id, row.description, row.status, row.start_date, row.end_date, row.note
    )
    own = {block_id: block.stored for block_id, block in blocks.items() if block.stored.owner == subscription_id}
    stored = StoredSubscription(subscription_id, columns, _links(from_json(row.links or "null")), own)
    return FoundSubscription(stored, row.version, row.insync, _product(rest), blocks)


async def load_block(session: AsyncSession, block_id: UUID | str) -> tuple[UUID, Mapping[UUID, FoundBlock]]:
    """Read a block and every block that can be reached from it, in one statement.

    Returns:
        The block's id, and the blocks by their ids.

    Raises:
        NotFoundError: there is none.
        ModelError: a value in the rows cannot be read.
    """
    block_id = _uuid(block_id, "block")
    row = await _row(session, _LOAD_BLOCK, block_id)
    blocks = {} if row is None else _found_blocks(_read(row.rest, f"the block {block_id}"))
    if block_id not in blocks:
        raise NotFoundError(f"there is no block {block_id} of a subscription")
    return block_id, blocks


async def load_product(session: AsyncSession, product_id: UUID | str) -> StoredProduct:
    """Read a product with its fixed inputs.

    Raises:
        NotFoundError: there is none.
    """
    row = await _row(session, _LOAD_PRODUCT, _uuid(product_id, "product"))
    if row is None:
        raise NotFoundError(f"there is no product {product_id}")
    return _product(from_json(row.rest))


def _uuid(value: UUID | str, what: str) -> UUID:
    try:
        return value if isinstance(value, UUID) else UUID(value)
    except (ValueError, TypeError, AttributeError) as error:
        raise NotFoundError(f"there is no {what} {value!r}: that is no UUID") from error


async def _row(session: AsyncSession, statement: str, *parameters: object) -> Row[Any] | None:
    # As the driver speaks it: types come from the casts in the statement, and a plan is kept per connection.
    connection = await get_connection(session)
    return (await connection.exec_driver_sql(statement, parameters)).one_or_none()


def _read(rest: str, what: str) -> Any:
    try:
        return read_value(rest)
    except ValueError as error:
        raise ModelError(
            f"{what} cannot be read: {_find_unreadable(rest) or error}; correct it in a migration, with"
            " fill_values(…, overwrite=True)"
        ) from error


def _find_unreadable(rest: str) -> str | None:
    """Return which value of which block cannot be read, and why."""
    blocks = next(member for member in split(rest) if member.startswith('"blocks"')).partition(":")[2]
    for block in split(blocks):
        block_id, name, *_, values, _ = split(block)
        for key, reason in read_object(values)[1].items():
            return f"the value of {key!r} of the block {read_value(name)} {read_value(block_id)}: {reason}"
    return None


def _product(rest: Mapping[str, Any]) -> StoredProduct:
    return StoredProduct(rest["product"], rest["fixed_inputs"] or {})


def _found_blocks(rest: Mapping[str, Any]) -> dict[UUID, FoundBlock]:
    found = {}
    for one in rest["blocks"] or ():
        if one is not None:
            block_id, name, owner, status, label, values, links = one
            found[UUID(block_id)] = FoundBlock(StoredBlock(name, UUID(owner), label, values, _links(links)), status)
    return found


def _links(rows: Sequence[tuple[str, int, str]] | None) -> Links:
    return {(field, position): UUID(block_id) for field, position, block_id in sorted(rows or ())}
