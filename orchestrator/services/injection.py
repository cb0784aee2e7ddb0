"""Domain models on their way into steps and forms, and back: loaded fresh before, saved in the same commit after."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields, is_dataclass
from graphlib import CycleError, TopologicalSorter
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.domain import ProductBlockModel, SubscriptionModel, load_stored
from orchestrator.domain.rows import block_row, reachable
from orchestrator.domain.saving import judged
from orchestrator.engine.arguments import Arguments
from orchestrator.errors import InvalidResultError, ModelError
from orchestrator.types import State, Stored

_SEVERAL = (list, tuple, set, frozenset)

Loaded = dict[str, Stored | list[Stored]]
"""Models by the names of the parameters that asked for them."""


async def load_arguments(session: AsyncSession, arguments: Arguments, state: State) -> Loaded:
    """Load what a function asks for; one model that several parameters mean is one object, so that no change gets lost.

    Raises:
        MissingArgumentError: the state holds no reference to it.
        NotFoundError, ModelError: there is none, or it is something else than the function asks for.
    """
    known: dict[UUID, Stored] = {}

    async def load(classes: tuple[type[Stored], ...], reference: UUID) -> Stored:
        found = known.get(reference)
        if found is None or not isinstance(found, classes):
            # Of another class than what was loaded before: loading says so in words.
            found = known[reference] = await load_stored(session, classes, reference)
        return found

    references = arguments.references(state)
    loaded: Loaded = {}
    for parameter in arguments.stored:
        reference = references.get(parameter.name)
        if isinstance(reference, list):
            loaded[parameter.name] = [await load(parameter.classes, one) for one in reference]
        elif reference is not None:
            loaded[parameter.name] = await load(parameter.classes, reference)
    return loaded


def has_models(returned: object) -> bool:
    """Whether something that a step returned holds models.

    Raises:
        InvalidResultError: one stands inside an object, where nobody could put a reference in its place.
    """
    # Without recursion: what contains itself, or is too deep, is refused later and in words, because it is no JSON.
    seen: set[int] = set()
    waiting: list[tuple[object, str | None]] = [(returned, None)]
    found = False
    while waiting:
        one, inside = waiting.pop()
        if isinstance(one, Stored):
            if inside is not None:
                raise InvalidResultError(
                    f"the step returned a {inside} with a {type(one).__name__} in it, which would not be saved: return the"
                    " model in a dict or a list"
                )
            found = True
            continue
        holds, name = _held(one, inside)
        if holds and id(one) not in seen:
            seen.add(id(one))
            waiting.extend((each, name) for each in holds)
    return found


def _held(one: object, inside: str | None) -> tuple[Collection[object], str | None]:
    """What stands in something, and in an object of which class that is."""
    if isinstance(one, Mapping):
        return one.values(), inside
    if isinstance(one, _SEVERAL):
        return one, inside
    if isinstance(one, BaseModel):
        return one.__dict__.values(), type(one).__name__
    if is_dataclass(one) and not isinstance(one, type):
        return [getattr(one, field.name, None) for field in fields(one)], type(one).__name__
    return (), inside


async def save_models(session: AsyncSession, returned: object) -> object:
    """Save the models in what a step returned, and put references in their places.

    Raises:
        ModelError: a model is not valid as it is, or a block was changed whose subscription was not saved.
        ConcurrentChangeError: somebody else has changed the subscription since it was loaded.
        InvalidResultError: what was returned contains itself, or is too deep.
    """
    subscriptions: dict[UUID, SubscriptionModel] = {}
    blocks: list[ProductBlockModel] = []
    try:
        _collect(returned, subscriptions, blocks)
        for subscription in _owners_first(subscriptions):
            await subscription.save(session)
        replaced = _replaced(returned, subscriptions)
    except RecursionError as error:
        raise InvalidResultError(
            "the step returned something that is not JSON: it contains itself or is too deep"
        ) from error
    for block in blocks:
        _require_saved(block)
    return replaced


def _collect(returned: object, subscriptions: dict[UUID, SubscriptionModel], blocks: list[ProductBlockModel]) -> None:
    if isinstance(returned, SubscriptionModel):
        known = subscriptions.setdefault(returned.subscription_id, returned)
        if known is not returned:
            subscriptions[returned.subscription_id] = _the_changed_one(known, returned)
    elif isinstance(returned, ProductBlockModel):
        blocks.append(returned)
    elif isinstance(returned, (Mapping, *_SEVERAL)):
        for one in returned.values() if isinstance(returned, Mapping) else returned:
            _collect(one, subscriptions, blocks)


def _the_changed_one(one: SubscriptionModel, other: SubscriptionModel) -> SubscriptionModel:
    """Of two copies of a subscription, the one to save."""
    if not _is_changed(other):
        return one
    if not _is_changed(one):
        return other
    raise ModelError(
        f"the step returned two copies of the subscription {one.subscription_id}, both of them changed: change one object"
    )


def _is_changed(subscription: SubscriptionModel) -> bool:
    found, _ = judged(subscription)
    return found is not None


def _owners_first(subscriptions: Mapping[UUID, SubscriptionModel]) -> Iterator[SubscriptionModel]:
    """An order in which each block is stored before those who use it.

    Else it is always the same order, so that two steps which save the same subscriptions wait for each other rather than end
    in a deadlock.

    Raises:
        ModelError: they use new or changed blocks of each other, so that neither can be the first.
    """
    if len(subscriptions) == 1:
        yield from subscriptions.values()
        return
    # What is stored as it is needs no order: two subscriptions may well use blocks of each other.
    owners = {
        key: {
            block.owner_subscription_id
            for block in reachable(one).values()
            if block.owner_subscription_id != key and block.as_stored != block_row(block)
        }
        & subscriptions.keys()
        for key, one in subscriptions.items()
    }
    order = TopologicalSorter(owners)
    try:
        order.prepare()
    except CycleError as error:
        raise ModelError(
            f"the subscriptions {' and '.join(str(key) for key in error.args[1][1:])} use new or changed blocks of each other in"
            " a circle: save one of them first, without the other's blocks"
        ) from error
    while order.is_active():
        ready = order.get_ready()
        for key in sorted(ready):
            yield subscriptions[key]
        order.done(*ready)


def _replaced(returned: object, saved: Mapping[UUID, SubscriptionModel]) -> object:
    if isinstance(returned, SubscriptionModel):
        return saved[returned.subscription_id].reference()
    if isinstance(returned, ProductBlockModel):
        return returned.reference()
    if isinstance(returned, Mapping):
        return {key: _replaced(one, saved) for key, one in returned.items()}
    if isinstance(returned, _SEVERAL):
        return [_replaced(one, saved) for one in returned]
    return returned


def _require_saved(block: ProductBlockModel) -> None:
    """A block is saved with its subscription only: what a step has changed and not returned must not be lost in silence."""
    if block.as_stored == block_row(block):
        return
    raise ModelError(
        f"the step returned the block {block.product_block_name} {block.subscription_instance_id}, which was made or changed but"
        f" not saved: return its subscription {block.owner_subscription_id} as well, with the block in it"
    )
