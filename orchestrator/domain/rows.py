"""What a model says, as rows would hold it: pure, and the same before and after the database has seen it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn
from uuid import UUID

from orchestrator.db.subscriptions import Columns, Links, StoredBlock, StoredSubscription
from orchestrator.domain.family import family_named
from orchestrator.domain.fields import is_block
from orchestrator.domain.model import Block, DomainModel, Subscription
from orchestrator.domain.texts import describe
from orchestrator.domain.values import refuse_null_characters, written
from orchestrator.errors import ModelError

MAX_DEPTH = 100
"""Of blocks within blocks, over all subscriptions: what is deeper is a mistake, and would end in Python's own limit."""


def block_row(block: Block) -> StoredBlock:
    """One block as its rows hold it.

    Raises:
        ModelError: a value cannot be written as JSON.
    """
    refuse_null_characters(block, {"label": block.label})
    return StoredBlock(
        block.product_block_name, block.owner_subscription_id, block.label, written(block), links_of(block)
    )


def subscription_rows(subscription: Subscription) -> StoredSubscription:
    """A subscription and the blocks of its own as rows hold them.

    Raises:
        ModelError: a value cannot be written as JSON, or blocks are put together in a way that rows cannot hold.
    """
    mine = subscription.subscription_id
    texts = {name: getattr(subscription, name) for name in ("customer_id", "description", "note")}
    refuse_null_characters(subscription, texts)
    blocks = {key: block_row(one) for key, one in reachable(subscription).items() if one.owner_subscription_id == mine}
    columns = Columns(
        subscription.product.product_id,
        subscription.customer_id,
        subscription.description,
        subscription.status.value,
        subscription.start_date,
        subscription.end_date,
        subscription.note,
    )
    lists = list_fields(type(subscription), blocks.values())
    return StoredSubscription(mine, columns, links_of(subscription), blocks, lists)


def list_fields(cls: type[DomainModel], blocks: Iterable[StoredBlock]) -> frozenset[tuple[str | None, str]]:
    """The fields that hold lists of blocks, in a subscription and its blocks: each with the block's name, or ``None``."""
    found: set[tuple[str | None, str]] = {(None, name) for name, field in cls.__shape__.blocks.items() if field.many}
    for block in {one.name for one in blocks}:
        family = family_named(block)
        if family is not None:
            found |= {(block, name) for name, field in family.base.__shape__.blocks.items() if field.many}
    return frozenset(found)


def blocks_in(model: DomainModel) -> dict[tuple[str, int], Block]:
    """The blocks that stand in a model's own fields, by field and position.

    Raises:
        ModelError: something else stands there: a list was changed in place.
    """
    found: dict[tuple[str, int], Block] = {}
    for name, field in type(model).__shape__.blocks.items():
        value = getattr(model, name)
        if field.many:
            if not isinstance(value, list):
                raise ModelError(f"{name} of {describe(model)} must be a list of blocks, not {value!r}")
            for position, one in enumerate(value):
                found[name, position] = one if is_block(type(one)) else _no_block(model, f"{name}.{position}", one)
        elif value is not None:
            found[name, 0] = value if is_block(type(value)) else _no_block(model, name, value)
    return found


def _no_block(model: DomainModel, place: str, value: object) -> NoReturn:
    raise ModelError(f"{place} of {describe(model)} must be a block, not {value!r}")


def links_of(model: DomainModel) -> Links:
    """Which blocks stand in a model's own fields, by their ids."""
    return {place: block.subscription_instance_id for place, block in blocks_in(model).items()}


def reachable(model: DomainModel) -> dict[UUID, Block]:
    """Every block below a model, by its id.

    Raises:
        ModelError: a block stands below itself, or two different ones have the same id.
    """
    found: dict[UUID, Block] = {}
    _reach(model, found, [])
    return found


def _reach(model: DomainModel, found: dict[UUID, Block], above: list[UUID]) -> None:
    for (name, _), block in blocks_in(model).items():
        key = block.subscription_instance_id
        if key in above:
            raise ModelError(
                f"{describe(block)} stands below itself, by way of {type(model).__name__}.{name}: a block"
                " may stand in several places but never below itself"
            )
        known = found.get(key)
        if known is None:
            if len(above) == MAX_DEPTH:
                raise ModelError(f"{describe(block)} stands deeper than {MAX_DEPTH} blocks within blocks")
            found[key] = block
            _reach(block, found, [*above, key])
        elif known is not block and block_row(known) != block_row(block):
            raise ModelError(
                f"{describe(block)} stands in two places with different values: put one and the same object into both"
            )
