"""Convert subscriptions to another lifecycle or product: the same blocks, as other classes."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from datetime import UTC, datetime
from uuid import UUID

from orchestrator.db.subscriptions import FoundBlock, StoredBlock, StoredProduct
from orchestrator.domain.defaults import build_empty_blocks
from orchestrator.domain.fixed_inputs import read_fixed_inputs
from orchestrator.domain.loading import Builder
from orchestrator.domain.model import Block, BlockField, ProductModel, Subscription
from orchestrator.domain.rows import Tree, build_block_row, walk_blocks
from orchestrator.domain.serialization import PLAIN
from orchestrator.errors import ModelError
from orchestrator.types import SubscriptionLifecycle


def choose_dates(status: SubscriptionLifecycle, other: Subscription | None = None) -> dict[str, object]:
    """Return the dates of a subscription that gets a status now; ``other`` is the subscription before that."""
    start, end = (None, None) if other is None else (other.start_date, other.end_date)
    now = datetime.now(UTC)
    if status is SubscriptionLifecycle.ACTIVE and start is None:
        start = now
    was_terminated = other is not None and other.status is SubscriptionLifecycle.TERMINATED
    if was_terminated is not (status is SubscriptionLifecycle.TERMINATED):
        # Any other end date was set on purpose, and stays.
        end = None if was_terminated else now
    return {"start_date": start, "end_date": end}


def convert_lifecycle(other: Subscription, status: SubscriptionLifecycle) -> Subscription:
    """Return the same subscription with another status.

    Raises:
        ModelError: its values or blocks do not fit the class for the status.
    """
    model: type[Subscription] = type(other).__family__.class_for(status)
    own = {name: getattr(other, name) for name in (*Subscription.model_fields, *model.__shape__.values)}
    own |= {"status": status, **choose_dates(status, other)}
    tree = walk_blocks(other)
    what = f"the subscription {other.subscription_id} cannot become {status.value} as {model.__name__}"
    made = _Converter(tree, other.subscription_id, status).build(model, own, tree.links, what)
    made.mark_as_stored(other.as_stored, other.version)
    return made


def convert_product(
    other: Subscription, model: type[Subscription], product: StoredProduct, new_root: Mapping[str, object]
) -> Subscription:
    """Return the same subscription moved to another product.

    Raises:
        ModelError: its blocks do not fit the product's model.
    """
    own = {name: getattr(other, name) for name in Subscription.model_fields}
    own |= {
        "product": ProductModel.model_validate(product.product),
        **read_fixed_inputs(model, product),
        **new_root,
    }
    tree = walk_blocks(other)
    links = _choose_links(other, tree, model, new_root)
    own |= build_empty_blocks(model, other.subscription_id, other.status, {*new_root, *(name for name, _ in links)})
    what = f"the subscription {other.subscription_id} cannot become {product.product['name']!r} as {model.__name__}"
    made = _Converter(tree, other.subscription_id, other.status).build(model, own, links, what)
    made.mark_as_stored(other.as_stored, other.version)
    return made


class _Converter(Builder):
    """Rebuilds the blocks of one subscription as the classes of another status or product.

    Blocks of other subscriptions stay the same objects, where they fit.

    Args:
        subscription_id: to which the rebuilt blocks belong.
        status: that the subscription is to have.
    """

    def __init__(self, tree: Tree, subscription_id: UUID, status: str) -> None:
        rows = {
            # Without values: those of the objects are taken.
            key: StoredBlock(one.product_block_name, one.owner_subscription_id, one.label, {}, tree.links_below[key])
            for key, one in tree.blocks.items()
        }
        super().__init__({key: FoundBlock(row, status) for key, row in rows.items()})
        self._blocks = tree.blocks
        self._subscription_id = subscription_id

    def _place_block(self, block_id: UUID, field: BlockField, path: str) -> Block | None:
        one = self._blocks[block_id]
        if self._is_shared(one) and isinstance(one, field.classes):
            return one
        return super()._place_block(block_id, field, path)

    def _read_values(self, block_id: UUID, cls: type[Block], path: str) -> Mapping[str, object]:  # noqa: ARG002
        # As they are, not by way of JSON: what does not come back from there is refused when it is saved.
        one = self._blocks[block_id]
        return {
            name: value if type(value := one.__dict__[name]) in PLAIN else deepcopy(value)
            for name in type(one).__shape__.values
        }

    def _find_stored(self, block: Block) -> StoredBlock | None:
        old = self._blocks[block.subscription_instance_id]
        if self._is_shared(old) and old.as_stored == build_block_row(old):
            # It is unchanged; another class may only write the same in another way.
            return build_block_row(block)
        return old.as_stored

    def _is_shared(self, block: Block) -> bool:
        return block.owner_subscription_id != self._subscription_id


def _choose_links(
    other: Subscription, tree: Tree, model: type[Subscription], taken: Mapping[str, object]
) -> dict[tuple[str, int], UUID]:
    """Choose the fields of the new model for the blocks of a subscription: by field name, else by product block.

    Raises:
        ModelError: there is a field for a block, but not for all of its kind: only the author can say which ones stay.
    """
    free = {place: tree.blocks[key] for place, key in tree.links.items()}
    kept: dict[tuple[str, int], UUID] = {}
    fields = {name: field for name, field in model.__shape__.blocks.items() if name not in taken}
    kinds = {name: {one.product_block_name for one in field.classes} for name, field in fields.items()}
    for by_field in (True, False):
        for name, field in fields.items():
            if any(name == one for one, _ in kept):
                continue
            found = [
                place
                for place, block in free.items()
                if block.product_block_name in kinds[name]
                and (place[0] == name if by_field else place[0] not in model.__shape__.blocks)
            ]
            for position, place in enumerate(found if field.many else found[:1]):
                kept[name, position] = free.pop(place).subscription_instance_id
    for (name, _), block in free.items():
        places = [one for one, names in kinds.items() if block.product_block_name in names]
        if places and block.subscription_instance_id not in kept.values():
            raise ModelError(
                f"the subscription {other.subscription_id} has the block {block.product_block_name}"
                f" {block.subscription_instance_id} in {name!r}, for which {model.__name__} has no place left: choose"
                f" the blocks for {' and '.join(map(repr, places))} with new_root={{{places[0]!r}: ...}}; others are removed"
            )
    return kept
