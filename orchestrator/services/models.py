"""Domain models on their way into steps and forms, and back: loaded fresh before, saved in the same commit after."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.domain import ProductBlockModel, SubscriptionModel, load_stored
from orchestrator.domain.rows import block_row
from orchestrator.engine.arguments import Arguments
from orchestrator.errors import InvalidResultError, ModelError
from orchestrator.types import State, Stored

_SEVERAL = (list, tuple, set, frozenset)

Loaded = dict[str, Stored | list[Stored]]
"""Models by the names of the parameters that asked for them."""


async def load_arguments(session: AsyncSession, arguments: Arguments, state: State) -> Loaded:
    """Load what a function asks for; one model that several parameters mean is loaded once.

    Raises:
        MissingArgumentError: the state holds no reference to it.
        NotFoundError, ModelError: there is none, or it is something else than the function asks for.
    """
    known: dict[tuple[UUID, tuple[type[Stored], ...]], Stored] = {}

    async def load(classes: tuple[type[Stored], ...], reference: UUID) -> Stored:
        key = (reference, classes)
        if key not in known:
            known[key] = await load_stored(session, classes, reference)
        return known[key]

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
    """Whether something that a step returned holds models."""
    # Without recursion: what contains itself, or is too deep, is refused later and in words, because it is no JSON.
    seen: set[int] = set()
    found = [returned]
    while found:
        one = found.pop()
        if isinstance(one, Stored):
            return True
        if isinstance(one, (Mapping, *_SEVERAL)) and id(one) not in seen:
            seen.add(id(one))
            found.extend(one.values() if isinstance(one, Mapping) else one)
    return False


async def save_models(session: AsyncSession, returned: object) -> object:
    """Save the models in what a step returned, and put references in their places.

    Raises:
        ModelError: a model is not valid as it is, or a block was changed whose subscription was not saved.
        ConcurrentChangeError: somebody else has changed the subscription since it was loaded.
        InvalidResultError: what was returned contains itself, or is too deep.
    """
    blocks: list[ProductBlockModel] = []
    try:
        replaced = await _saved(session, returned, blocks)
    except RecursionError as error:
        raise InvalidResultError(
            "the step returned something that is not JSON: it contains itself or is too deep"
        ) from error
    for block in blocks:
        _require_saved(block)
    return replaced


async def _saved(session: AsyncSession, returned: object, blocks: list[ProductBlockModel]) -> object:
    if isinstance(returned, SubscriptionModel):
        await returned.save(session)
        return returned.reference()
    if isinstance(returned, ProductBlockModel):
        blocks.append(returned)
        return returned.reference()
    if isinstance(returned, Mapping):
        return {key: await _saved(session, one, blocks) for key, one in returned.items()}
    if isinstance(returned, _SEVERAL):
        return [await _saved(session, one, blocks) for one in returned]
    return returned


def _require_saved(block: ProductBlockModel) -> None:
    """A block is saved with its subscription only: what a step has changed and not returned must not be lost in silence."""
    if block.as_stored == block_row(block):
        return
    raise ModelError(
        f"the step returned the block {block.product_block_name} {block.subscription_instance_id}, which was made or changed but"
        f" not saved: return its subscription {block.owner_subscription_id} as well, with the block in it"
    )
