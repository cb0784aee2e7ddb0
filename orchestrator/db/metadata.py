"""Read products, blocks, resource types and workflows with what belongs to them, and change what operators may change of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import TextualSelect, insert, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.registration.products import ACTIVE, END_OF_LIFE, NOT_IN_CODE
from orchestrator.db.tables import MetadataChangeRow
from orchestrator.errors import ConflictError, InvalidQueryError, NotFoundError

PRODUCT_STATUSES: Final = (ACTIVE, END_OF_LIFE)
"""The statuses that an operator may give to a product; a migration gives the third, to one that the code does not have."""

_PRODUCTS: Final = """
SELECT p.product_id, p.name, p.description, p.product_type, p.tag, p.status, p.created_at, p.end_date,
       (SELECT coalesce(jsonb_agg(jsonb_build_object('name', name, 'value', value) ORDER BY name), '[]')
          FROM fixed_inputs f WHERE f.product_id = p.product_id) AS fixed_inputs,
       (SELECT coalesce(jsonb_agg(jsonb_build_object('product_block_id', b.product_block_id, 'name', b.name,
                                                     'description', b.description, 'tag', b.tag, 'status', b.status)
                                  ORDER BY b.name), '[]')
          FROM product_product_blocks l JOIN product_blocks b USING (product_block_id)
         WHERE l.product_id = p.product_id) AS product_blocks,
       (SELECT coalesce(jsonb_agg(jsonb_build_object('workflow_id', w.workflow_id, 'name', w.name, 'target', w.target,
                                                     'is_task', w.is_task, 'description', w.description)
                                  ORDER BY w.name), '[]')
          FROM products_workflows l JOIN workflows w USING (workflow_id)
         WHERE l.product_id = p.product_id AND w.deleted_at IS NULL) AS workflows
  FROM products p
 WHERE {condition}
"""
_BLOCKS: Final = """
SELECT b.product_block_id, b.name, b.description, b.tag, b.status, b.created_at, b.end_date,
       (SELECT coalesce(jsonb_agg(jsonb_build_object('resource_type_id', r.resource_type_id, 'resource_type', r.resource_type,
                                                     'description', r.description) ORDER BY r.resource_type), '[]')
          FROM product_block_resource_types l JOIN resource_types r USING (resource_type_id)
         WHERE l.product_block_id = b.product_block_id) AS resource_types,
       (SELECT coalesce(jsonb_agg(jsonb_build_object('product_block_id', o.product_block_id, 'name', o.name)
                                  ORDER BY o.name), '[]')
          FROM product_block_relations l JOIN product_blocks o ON o.product_block_id = l.depends_on_id
         WHERE l.in_use_by_id = b.product_block_id) AS depends_on,
       (SELECT coalesce(jsonb_agg(jsonb_build_object('product_block_id', o.product_block_id, 'name', o.name)
                                  ORDER BY o.name), '[]')
          FROM product_block_relations l JOIN product_blocks o ON o.product_block_id = l.in_use_by_id
         WHERE l.depends_on_id = b.product_block_id) AS in_use_by
  FROM product_blocks b
 WHERE {condition}
"""
_TYPES: Final = """
SELECT r.resource_type_id, r.resource_type, r.description,
       (SELECT coalesce(jsonb_agg(jsonb_build_object('product_block_id', b.product_block_id, 'name', b.name)
                                  ORDER BY b.name), '[]')
          FROM product_block_resource_types l JOIN product_blocks b USING (product_block_id)
         WHERE l.resource_type_id = r.resource_type_id) AS product_blocks
  FROM resource_types r
 WHERE {condition}
"""
_WORKFLOWS: Final = """
SELECT w.workflow_id, w.name, w.description, w.target, w.is_task, w.created_at,
       (SELECT coalesce(jsonb_agg(jsonb_build_object('product_id', p.product_id, 'name', p.name, 'product_type', p.product_type,
                                                     'tag', p.tag, 'status', p.status) ORDER BY p.name), '[]')
          FROM products_workflows l JOIN products p USING (product_id)
         WHERE l.workflow_id = w.workflow_id) AS products
  FROM workflows w
 WHERE w.deleted_at IS NULL AND {condition}
"""


_WITH_AUTHOR: Final = """
SELECT f.*, c.author AS changed_by, c.at AS changed_at
  FROM ({query}) f
  LEFT JOIN LATERAL (SELECT author, at FROM metadata_changes c
                      WHERE c.row_id = f.{key} ORDER BY change_id DESC LIMIT 1) c ON true
 ORDER BY f.{name}
"""


class Kind:
    """One table of metadata.

    Args:
        words: what a row is called in errors.
        query: SQL with a place for a condition.
        row: the name of the table in the query.
        table, key, name: of the table, its id and its name.
        json: columns that are JSON.
    """

    def __init__(self, words: str, query: str, row: str, table: str, key: str, name: str, json: Sequence[str]) -> None:
        self.words = words
        self.key = key
        found = f"{row}.{key}::text = :wanted OR {row}.{name} = :wanted"
        query = _WITH_AUTHOR.format(query=query, key=key, name=name)
        self.all = self._statement(query.format(condition="true"), json)
        self.one = self._statement(query.format(condition=f"({found})"), json)
        gone = " AND w.deleted_at IS NULL" if table == "workflows" else ""
        lock = f"SELECT {row}.* FROM {table} {row} WHERE ({found}){gone} FOR UPDATE"  # noqa: S608 - built from constants
        self.lock = text(lock)
        self.describe = text(f"UPDATE {table} SET description = :description WHERE {key} = :row_id")  # noqa: S608 - as above

    @staticmethod
    def _statement(sql: str, json: Sequence[str]) -> TextualSelect:
        return text(sql).columns(**dict.fromkeys(json, JSONB))


PRODUCTS: Final = Kind(
    "product", _PRODUCTS, "p", "products", "product_id", "name", ("fixed_inputs", "product_blocks", "workflows")
)
BLOCKS: Final = Kind(
    "product block",
    _BLOCKS,
    "b",
    "product_blocks",
    "product_block_id",
    "name",
    ("resource_types", "depends_on", "in_use_by"),
)
TYPES: Final = Kind(
    "resource type", _TYPES, "r", "resource_types", "resource_type_id", "resource_type", ("product_blocks",)
)
WORKFLOWS: Final = Kind("workflow", _WORKFLOWS, "w", "workflows", "workflow_id", "name", ("products",))


async def list_metadata(session: AsyncSession, kind: Kind) -> list[dict[str, Any]]:
    """Return all rows of a kind by their names; there are hundreds at most."""
    return [dict(row) for row in (await session.execute(kind.all)).mappings()]


async def read_metadata(session: AsyncSession, kind: Kind, wanted: str) -> dict[str, Any]:
    """Return one row by its id or its name.

    Raises:
        NotFoundError.
    """
    row = (await session.execute(kind.one, {"wanted": wanted})).mappings().first()
    if row is None:
        raise NotFoundError(f"there is no {kind.words} {wanted[:200]!r}")
    return dict(row)


async def change_metadata(
    session: AsyncSession,
    kind: Kind,
    wanted: str,
    author: str,
    *,
    description: str | None = None,
    status: str | None = None,
) -> None:
    """Change the description of a row, named by its id or its name, or the status of a product, and store who has.

    Migrations set descriptions once, and do not compare them later. A product that is out of use is not offered for new
    subscriptions; those that exist keep it.

    Raises:
        NotFoundError.
        InvalidQueryError: there is no such status.
        ConflictError: the code does not have the product.
    """
    found = (await session.execute(kind.lock, {"wanted": wanted})).mappings().first()
    if found is None:
        raise NotFoundError(f"there is no {kind.words} {wanted[:200]!r}")
    row = dict(found)
    row_id = row[kind.key]
    if description is not None:
        await session.execute(kind.describe, {"description": description, "row_id": row_id})
    if status is not None:
        _check_status(row, status)
        await session.execute(_SET_STATUS, {"product_id": row_id, "status": status, "active": ACTIVE})
    asked = {"description": description, "status": status}
    changes = {column: [row[column], new] for column, new in asked.items() if new not in {None, row.get(column)}}
    if changes:
        await session.execute(
            insert(MetadataChangeRow).values(kind=kind.words, row_id=row_id, author=author, changes=changes)
        )


def _check_status(product: Mapping[str, Any], status: str) -> None:
    if status not in PRODUCT_STATUSES:
        raise InvalidQueryError(f"a product cannot be given the status {status[:50]!r}", PRODUCT_STATUSES)
    if product["status"] == NOT_IN_CODE:
        raise ConflictError(
            f"the product {product['name']!r} is {NOT_IN_CODE!r}: it is activated when the code has it again"
            " (orchestrator db migrate-domain-models)"
        )


_SET_STATUS: Final = text(
    "UPDATE products SET status = :status,"
    " end_date = CASE WHEN :status = :active THEN NULL ELSE coalesce(end_date, now()) END WHERE product_id = :product_id"
)
