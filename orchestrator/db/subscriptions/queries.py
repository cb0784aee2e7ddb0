"""Read subscriptions, for people: pages of them, and one with all its blocks as they stand in the rows, without any model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, Row, TextClause, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.subscriptions.neighbours import Neighbours, read_neighbours
from orchestrator.db.subscriptions.tree import ShownBlock, build_tree
from orchestrator.db.tables import ProductRow, SubscriptionRow
from orchestrator.db.thread_session import either
from orchestrator.engine.state import read_leniently
from orchestrator.errors import NotFoundError

# ``{subscription}`` is its id. Written as in neighbours.py, for the reasons that are given there.
_BLOCKS_OF = """
    WITH own AS (
        SELECT subscription_instance_id FROM subscription_instances WHERE subscription_id = {subscription}
    ), roots AS (
        SELECT field, position, depends_on_id FROM subscription_roots WHERE subscription_id = {subscription}
    ), relations AS (
        SELECT relation.*
          FROM own
         CROSS JOIN LATERAL (
               SELECT in_use_by_id, field, position, depends_on_id FROM subscription_instance_relations
                WHERE in_use_by_id BETWEEN own.subscription_instance_id AND own.subscription_instance_id
               OFFSET 0) relation
    ), named AS (
        SELECT subscription_instance_id FROM own
         UNION
        SELECT depends_on_id FROM roots
         UNION
        SELECT depends_on_id FROM relations
    ), blocks AS (
        SELECT block.*, kind.name
          FROM named
         CROSS JOIN LATERAL (SELECT * FROM subscription_instances
                              WHERE subscription_instance_id = named.subscription_instance_id LIMIT 1) block
          JOIN product_blocks kind USING (product_block_id)
    )
"""
_TREE = """
           (SELECT coalesce(jsonb_agg(jsonb_build_array(field, position, depends_on_id) ORDER BY field, position), '[]')
              FROM roots) AS roots,
           (SELECT coalesce(jsonb_agg(jsonb_build_array(in_use_by_id, field, position, depends_on_id)
                                      ORDER BY field, position), '[]') FROM relations) AS relations,
           (SELECT coalesce(jsonb_agg(jsonb_build_array(subscription_instance_id, subscription_id, name, label, resources::text)
                                      ORDER BY name, subscription_instance_id), '[]') FROM blocks) AS blocks
"""
_SHOW = text(
    f"""
    {_BLOCKS_OF.format(subscription=":subscription_id")}
    SELECT s.subscription_id, s.description, s.status, s.insync, s.customer_id, p.name AS product, s.note, s.version,
           s.start_date, s.end_date, s.created_at, s.updated_at, s.locked_by,
           p.product_id, p.product_type, p.tag, holder.workflow, holder.status AS holder_status,
           (SELECT coalesce(jsonb_object_agg(name, value), '{{}}') FROM fixed_inputs
             WHERE product_id = s.product_id) AS fixed_inputs,
{_TREE}
      FROM subscriptions s
      JOIN products p USING (product_id)
      LEFT JOIN LATERAL (SELECT workflow, status FROM processes WHERE process_id = s.locked_by LIMIT 1) holder ON true
     WHERE s.subscription_id = :subscription_id
    """  # noqa: S608 - built from constants
).columns(fixed_inputs=JSONB, roots=JSONB, relations=JSONB, blocks=JSONB)
_SHOW_TREES = text(
    f"""
    SELECT wanted.id AS subscription_id, tree.*
      FROM unnest(CAST(:ids AS uuid[])) wanted(id)
     CROSS JOIN LATERAL ({_BLOCKS_OF.format(subscription="wanted.id")} SELECT {_TREE}) tree
    """  # noqa: S608 - built from constants
).columns(roots=JSONB, relations=JSONB, blocks=JSONB)

PRODUCT_ID: Final = (
    "SELECT product_id FROM products WHERE name = {product} OR product_id::text = lower({product})"
    " ORDER BY name = {product} DESC LIMIT 1"
)
"""SQL for the id of a product that is named by its name or its id."""

# A plan made for the values of this page, always: one made for values in general, which PostgreSQL may come to prefer, could
# look for the few subscriptions of a small product by reading all of them from the newest on.
_BEFORE_A_PAGE = text(
    f"""
    SELECT set_config('plan_cache_mode', 'force_custom_plan', true),
           ({PRODUCT_ID.format(product="CAST(:product AS text)")}) AS product_id,
           (SELECT created_at FROM subscriptions WHERE subscription_id = :after) AS created_at
    """  # noqa: S608 - built from constants
)

_MATCHING = """
    SELECT subscription_id, product_id, description, status, insync, customer_id, note, version, start_date, end_date,
           created_at, updated_at, locked_by
      FROM subscriptions
     WHERE {conditions}
     ORDER BY created_at DESC, subscription_id
     LIMIT :limit
"""


@dataclass(frozen=True, slots=True)
class SubscriptionSummary:
    """A subscription without its blocks.

    Args:
        product: the product's name.
        locked_by: the process that holds it.
    """

    subscription_id: UUID
    description: str
    status: str
    insync: bool
    customer_id: str
    product: str
    note: str | None
    version: int
    start_date: datetime | None
    end_date: datetime | None
    created_at: datetime
    updated_at: datetime
    locked_by: UUID | None


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that holds a subscription."""

    process_id: UUID
    workflow: str
    status: str


@dataclass(frozen=True, slots=True)
class SubscriptionTree:
    """One subscription with its blocks as they stand in its fields."""

    summary: SubscriptionSummary
    blocks: tuple[ShownBlock, ...]


@dataclass(frozen=True, slots=True)
class ShownSubscription:
    """One subscription with everything it is, and its neighbours."""

    summary: SubscriptionSummary
    product_id: UUID
    product_type: str
    product_tag: str
    fixed_inputs: Mapping[str, str]
    holder: Holder | None
    blocks: tuple[ShownBlock, ...]
    neighbours: Neighbours


@either
async def list_subscriptions(
    session: AsyncSession,
    *,
    statuses: Iterable[str] = (),
    product: str | None = None,
    customer: str | None = None,
    insync: bool | None = None,
    limit: int,
    after: UUID | None = None,
) -> list[SubscriptionSummary]:
    """Return a page of the subscriptions that fit, the newest first.

    A page by one of the filters, or by none, is read from its index and costs the same however many subscriptions there are.
    With several filters the index of one is read until the page is full. Two statements: one looks up what is named.

    Args:
        statuses: any of these; all when empty.
        product: its name or id.
        after: the last subscription of the page before.

    Raises:
        NotFoundError: there is no such product, or no subscription ``after``.
    """
    found = (await session.execute(_BEFORE_A_PAGE, {"product": product, "after": after})).one()
    values: dict[str, object] = {"limit": limit}
    conditions = []
    if product is not None:
        if found.product_id is None:
            raise NotFoundError(f"there is no product {product!r}")
        conditions.append("product_id = :product")
        values["product"] = found.product_id
    if after is not None:
        if found.created_at is None:
            raise NotFoundError(f"there is no subscription {after}, after which the page would begin")
        # The first half is the place in the index where the page begins.
        conditions.append("created_at <= :created_at AND (created_at < :created_at OR subscription_id > :after)")
        values |= {"after": after, "created_at": found.created_at}
    if customer is not None:
        conditions.append("customer_id = :customer")
        values["customer"] = customer
    if insync is not None:
        conditions.append("insync" if insync else "NOT insync")
    wanted = {f"status_{number}": status for number, status in enumerate(dict.fromkeys(statuses))}
    rows = await session.execute(_page(conditions, wanted), values | wanted)
    return [_summary(row) for row in rows]


async def show(session: AsyncSession, subscription_id: UUID) -> ShownSubscription:
    """Return one subscription with its tree of blocks, who holds it, and its neighbours.

    The subscription and its blocks are read by one statement, so they are of one moment.

    Raises:
        NotFoundError: there is none.
    """
    row = await _read(session, subscription_id)
    return ShownSubscription(
        summary=_summary(row),
        product_id=row.product_id,
        product_type=row.product_type,
        product_tag=row.tag,
        fixed_inputs=row.fixed_inputs,
        holder=None if row.locked_by is None else Holder(row.locked_by, row.workflow, row.holder_status),
        blocks=_build_tree(subscription_id, row),
        neighbours=await read_neighbours(session, subscription_id),
    )


async def read_tree(session: AsyncSession, subscription_id: UUID) -> SubscriptionTree:
    """Return one subscription with its tree of blocks, read by one statement.

    Raises:
        NotFoundError: there is none.
    """
    row = await _read(session, subscription_id)
    return SubscriptionTree(_summary(row), _build_tree(subscription_id, row))


async def read_trees(session: AsyncSession, subscription_ids: Sequence[UUID]) -> dict[UUID, tuple[ShownBlock, ...]]:
    """Return the trees of blocks of several subscriptions, read by one statement."""
    rows = await session.execute(_SHOW_TREES, {"ids": list(subscription_ids)})
    return {row.subscription_id: _build_tree(row.subscription_id, row) for row in rows}


async def list_choices(
    session: AsyncSession, *, product_types: Sequence[str], statuses: Sequence[str], only_in_sync: bool, limit: int
) -> tuple[list[tuple[UUID, str]], frozenset[UUID]]:
    """Find the subscriptions of products of these types (or of all) in these statuses.

    Returns:
        The newest with their descriptions, and, if there are more than ``limit``, the ids of all.
    """
    conditions: list[ColumnElement[bool]] = [SubscriptionRow.status.in_(statuses)]
    if product_types:
        products = select(ProductRow.product_id).where(ProductRow.product_type.in_(product_types))
        conditions.append(SubscriptionRow.product_id.in_(products))
    if only_in_sync:
        conditions.append(SubscriptionRow.insync.is_(True))
    newest = select(SubscriptionRow.subscription_id, SubscriptionRow.description).where(*conditions)
    newest = newest.order_by(SubscriptionRow.created_at.desc(), SubscriptionRow.subscription_id).limit(limit + 1)
    rows = [(row.subscription_id, row.description) for row in await session.execute(newest)]
    if len(rows) <= limit:
        return rows, frozenset()
    return rows[:limit], frozenset(await session.scalars(select(SubscriptionRow.subscription_id).where(*conditions)))


async def _read(session: AsyncSession, subscription_id: UUID) -> Row[Any]:
    row = (await session.execute(_SHOW, {"subscription_id": subscription_id})).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no subscription {subscription_id}")
    return row


def _build_tree(subscription_id: UUID, row: Row[Any]) -> tuple[ShownBlock, ...]:
    # Each block's values by themselves: of those that cannot be read, only they are missing.
    blocks = [(*columns, read_leniently(resources)) for *columns, resources in row.blocks]
    return build_tree(subscription_id, blocks, row.relations, row.roots)


def _page(conditions: Sequence[str], statuses: Iterable[str]) -> TextClause:
    """Return the statement of one page.

    Each status is a page of its own from the index, of which the newest are taken: an index does not have the rows of
    several statuses in order.
    """
    parts = [[*conditions, f"status = :{name}"] for name in statuses] or [[*conditions]]
    found = " UNION ALL ".join(f"({_MATCHING.format(conditions=' AND '.join(part) or 'true')})" for part in parts)
    return text(
        f"""
        SELECT s.*, p.name AS product
          FROM (SELECT * FROM ({found}) found ORDER BY created_at DESC, subscription_id LIMIT :limit) s
          JOIN products p USING (product_id)
         ORDER BY s.created_at DESC, s.subscription_id
        """  # noqa: S608 - built from constants
    )


def _summary(row: Any) -> SubscriptionSummary:
    return SubscriptionSummary(*(getattr(row, name) for name in SubscriptionSummary.__dataclass_fields__))
