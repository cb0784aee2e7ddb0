"""Build the rows of a model. Pure, and the same before and after the model was stored."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from orchestrator.db.subscriptions import Columns, Links, StoredBlock, StoredSubscription
from orchestrator.domain.definition import find_family
from orchestrator.domain.model import Block, DomainModel, Subscription, describe
from orchestrator.domain.serialization import as_instant, check_texts, serialize
from orchestrator.errors import ModelError

MAX_DEPTH = 100
"""Of blocks within blocks, over all subscriptions: more is a mistake, and would exceed Python's recursion limit."""

MAX_CUSTOMER_ID = 500
"""Characters of a customer's id: it stands in an index, which takes some 2,700 bytes of an entry."""


@dataclass(frozen=True, slots=True)
class Tree:
    """Every block below a model, found by one walk.

    Args:
        links: the blocks in the fields of the model itself.
        links_below: those in the fields of each block, by its id.
    """

    links: Links
    blocks: dict[UUID, Block]
    links_below: dict[UUID, Links]


def walk_blocks(model: DomainModel) -> Tree:
    """Find every block below a model.

    Raises:
        ModelError: a field holds something else, a block contains itself, or two different ones have the same id.
    """
    blocks: dict[UUID, Block] = {}
    below: dict[UUID, Links] = {}

    def walk(one: DomainModel, above: tuple[UUID, ...]) -> Links:
        held = _find_blocks(one)
        for (name, _), block in held.items():
            key = block.subscription_instance_id
            if key in above:
                raise ModelError(
                    f"{describe(block)} contains itself, by way of {type(one).__name__}.{name}: a block may be in several"
                    " fields, but not in a field below itself"
                )
            known = blocks.get(key)
            if known is None:
                if len(above) == MAX_DEPTH:
                    raise ModelError(
                        f"{describe(block)} is nested deeper than {MAX_DEPTH} blocks: keep the tree flatter"
                    )
                blocks[key] = block
                below[key] = walk(block, (*above, key))
            elif known is not block and build_block_row(known) != build_block_row(block):
                raise ModelError(
                    f"{describe(block)} is in two fields with different values: put the same object into both"
                )
        return {place: block.subscription_instance_id for place, block in held.items()}

    return Tree(walk(model, ()), blocks, below)


def _find_blocks(model: DomainModel) -> dict[tuple[str, int], Block]:
    """Return the blocks in a model's own fields, by field and position."""
    found: dict[tuple[str, int], Block] = {}
    for name, field in type(model).__shape__.blocks.items():
        value = getattr(model, name)
        if field.many and not isinstance(value, list):
            raise ModelError(f"{name} of {describe(model)} must be a list of blocks, not {value!r}")
        if value is None:
            continue
        for position, one in enumerate(value if field.many else [value]):
            if not isinstance(one, Block):
                place = f"{name}.{position}" if field.many else name
                raise ModelError(f"{place} of {describe(model)} must be a block, not {one!r}")
            found[name, position] = one
    return found


def build_block_row(block: Block, links: Links | None = None) -> StoredBlock:
    """Build the row of one block.

    Args:
        links: the blocks in its fields; default read from the block.

    Raises:
        ModelError: a value cannot be written as JSON.
    """
    check_texts(block, {"label": block.label})
    if links is None:
        links = {place: one.subscription_instance_id for place, one in _find_blocks(block).items()}
    return StoredBlock(block.product_block_name, block.owner_subscription_id, block.label, serialize(block), links)


def build_rows(subscription: Subscription, tree: Tree) -> StoredSubscription:
    """Build the rows of a subscription and of the blocks that belong to it.

    Raises:
        ModelError: a value cannot be written as JSON.
    """
    mine = subscription.subscription_id
    texts = {name: getattr(subscription, name) for name in ("customer_id", "description", "note")}
    check_texts(subscription, texts)
    if len(subscription.customer_id) > MAX_CUSTOMER_ID:
        raise ModelError(
            f"customer_id of {describe(subscription)} has {len(subscription.customer_id)} characters, more than {MAX_CUSTOMER_ID}"
        )
    columns = Columns(
        subscription.product.product_id,
        **texts,
        status=subscription.status.value,
        start_date=as_instant(subscription.start_date),
        end_date=as_instant(subscription.end_date),
    )
    blocks = {
        key: build_block_row(block, tree.links_below[key])
        for key, block in tree.blocks.items()
        if block.owner_subscription_id == mine
    }
    return StoredSubscription(mine, columns, tree.links, blocks, find_list_fields(type(subscription), blocks.values()))


def find_list_fields(cls: type[DomainModel], blocks: Iterable[StoredBlock]) -> frozenset[tuple[str | None, str]]:
    """Return the fields that hold lists of blocks: each with the name of its block, ``None`` for the subscription."""
    found: set[tuple[str | None, str]] = {(None, name) for name, field in cls.__shape__.blocks.items() if field.many}
    for block in {one.name for one in blocks}:
        family = find_family(block)
        if family is not None:
            found |= {(block, name) for name, field in family.base.__shape__.blocks.items() if field.many}
    return frozenset(found)
