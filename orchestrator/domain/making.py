"""Models of subscriptions, made of what the database has or of other models of the same subscription."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

from orchestrator.db.subscriptions import FoundSubscription, Links, StoredProduct
from orchestrator.domain.assembly import STORED_OTHERWISE, Assembly, Remaking, raise_problems
from orchestrator.domain.empty import empty_blocks
from orchestrator.domain.model import DomainModel, ProductModel, Subscription
from orchestrator.domain.product import fixed_inputs
from orchestrator.domain.registry import model_of
from orchestrator.domain.rows import blocks_in, links_of, list_fields, reachable
from orchestrator.errors import ModelError
from orchestrator.types import SubscriptionLifecycle


def active_product(found: StoredProduct) -> ProductModel:
    """A product that may be subscribed to.

    Raises:
        ModelError: it is not active.
    """
    product = ProductModel.model_validate(found.product)
    if product.status != "active":
        raise ModelError(f"the product {product.name!r} is {product.status!r}, not active: nothing new can be of it")
    return product


def dates(status: SubscriptionLifecycle, other: Subscription | None = None) -> dict[str, object]:
    """The dates of a subscription that gets a status now; ``other`` is what it was until now."""
    start, end = (None, None) if other is None else (other.start_date, other.end_date)
    now = datetime.now(UTC)
    if status is SubscriptionLifecycle.ACTIVE and start is None:
        start = now
    was_terminated = other is not None and other.status is SubscriptionLifecycle.TERMINATED
    if was_terminated is not (status is SubscriptionLifecycle.TERMINATED):
        # Any other end date is somebody's plan, and stays.
        end = None if was_terminated else now
    return {"start_date": start, "end_date": end}


def loaded(found: FoundSubscription, wanted: tuple[type[DomainModel], ...]) -> Subscription:
    """What was read, as the class that product and status ask for.

    Raises:
        ModelError: that is none of the wanted classes, or what is stored does not fit it.
    """
    columns, product = found.stored.columns, ProductModel.model_validate(found.product.product)
    what = f"the subscription {found.stored.subscription_id} ({product.name}, {columns.status})"
    model = model_of(product.name, columns.status)
    if not issubclass(model, wanted):
        names = " or ".join(one.__name__ for one in wanted)
        raise ModelError(f"{what} is {model.__name__}, because it is {columns.status}; {names} was asked for")
    own = {
        "product": product,
        "customer_id": columns.customer_id,
        "subscription_id": found.stored.subscription_id,
        "description": columns.description,
        "status": columns.status,
        "insync": found.insync,
        "start_date": columns.start_date,
        "end_date": columns.end_date,
        "note": columns.note,
        "version": found.version,
        **fixed_inputs(model, found.product),
    }
    what = f"{what} does not fit {model.__name__}"
    made = _assembled(model, own, found.stored.links, Assembly(found.blocks), what, STORED_OTHERWISE)
    made.mark_as_stored(replace(found.stored, lists=list_fields(model, found.stored.blocks.values())), found.version)
    return made


def in_lifecycle(other: Subscription, status: SubscriptionLifecycle) -> Subscription:
    """The same subscription with another status.

    Raises:
        ModelError: what it holds does not fit the class for the status.
    """
    model = type(other).__family__.class_for(status)
    own = {
        **_own_values(other),
        **{name: getattr(other, name) for name in model.__shape__.values},
        "status": status,
        **dates(status, other),
    }
    what = f"the subscription {other.subscription_id} cannot become {status.value} as {model.__name__}"
    made = _assembled(model, own, links_of(other), _remade(other, status), what)
    made.mark_as_stored(other.as_stored, other.version)
    return made


def of_product(
    other: Subscription, model: type[DomainModel], product: StoredProduct, new_root: Mapping[str, object]
) -> Subscription:
    """The same subscription moved to another product.

    Raises:
        ModelError: what it holds does not fit the product's model.
    """
    own = {
        **_own_values(other),
        "product": ProductModel.model_validate(product.product),
        **fixed_inputs(model, product),
        **new_root,
    }
    links = _kept(other, model, new_root)
    what = f"the subscription {other.subscription_id} cannot become {product.product['name']!r} as {model.__name__}"
    fresh = empty_blocks(model, other.subscription_id, other.status, {*new_root, *(name for name, _ in links)})
    made = _assembled(model, {**own, **fresh}, links, _remade(other, other.status), what)
    made.mark_as_stored(other.as_stored, other.version)
    return made


def _own_values(other: Subscription) -> dict[str, object]:
    names = (
        "product",
        "customer_id",
        "subscription_id",
        "description",
        "status",
        "insync",
        "start_date",
        "end_date",
        "note",
        "version",
    )
    return {name: getattr(other, name) for name in names}


def _remade(other: Subscription, status: SubscriptionLifecycle) -> Assembly:
    return Remaking(reachable(other), other.subscription_id, status)


def _kept(other: Subscription, model: type[DomainModel], taken: Mapping[str, object]) -> Links:
    """Which blocks of a subscription stand in which fields of its new model: by field, else by product block.

    Raises:
        ModelError: there is a field for a block, but not for all of its kind: nobody but the author knows which shall stay.
    """
    free = dict(blocks_in(other))
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
        if block.subscription_instance_id in kept.values():
            continue
        places = [one for one, names in kinds.items() if block.product_block_name in names]
        if places:
            raise ModelError(
                f"the subscription {other.subscription_id} has the block {block.product_block_name}"
                f" {block.subscription_instance_id} in {name!r}, for which {model.__name__} has no place left: say which"
                f" blocks stand in {' and '.join(map(repr, places))} by new_root={{{places[0]!r}: ...}}; others go"
            )
    return kept


def _assembled(
    model: type[DomainModel],
    own: Mapping[str, object],
    links: Links,
    assembly: Assembly,
    what: str,
    advice: str = "",
) -> Subscription:
    values, failed = assembly.fields(model, links, "")
    made = assembly.make(model, {**values, **own}, failed, "")
    raise_problems(assembly, what, advice)
    return made  # type: ignore[return-value]
