"""Inject domain models into steps and forms, and save those that a step returns in the step's transaction."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from graphlib import CycleError, TopologicalSorter
from types import NoneType
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.domain import ProductBlockModel, SubscriptionModel, load_stored
from orchestrator.domain.model import describe
from orchestrator.domain.rows import build_block_row
from orchestrator.domain.saving import Save, prepare_save
from orchestrator.engine.arguments import Arguments, is_async
from orchestrator.engine.state import is_flat
from orchestrator.errors import InvalidResultError, ModelError
from orchestrator.types import JSON, State, Stored
from orchestrator.user_code import run_in_thread, unwrap

Loaded = dict[str, Stored | list[Stored]]
"""Models by the names of the parameters that request them."""

_PLAIN = (str, bytes, int, float, NoneType)
_LISTS = (list, tuple, set, frozenset)

_NOT_JSON = "the step returned something that cannot be stored as JSON: it contains itself or is too deep"


async def load_arguments(session: AsyncSession, arguments: Arguments, state: State) -> Loaded:
    """Load the models that a function requests; parameters that mean the same one get one object, so that no change is lost.

    Raises:
        MissingArgumentError: the state holds no reference to a model.
        NotFoundError, ModelError: a model does not exist, or is of another class than the function requests.
    """
    known: dict[UUID, Stored] = {}

    async def load(classes: tuple[type[Stored], ...], reference: UUID) -> Stored:
        found = known.get(reference)
        if found is None or not isinstance(found, classes):
            # Of another class than what was loaded before: loading raises the error that says so.
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


@dataclass(frozen=True, slots=True)
class ReturnedModels:
    """What a step returned, with the models in it taken out.

    Args:
        value: a copy with an empty reference in place of each model.
        references: each with its model; they are filled in when the models are saved.
    """

    value: object
    references: Sequence[tuple[dict[str, JSON], SubscriptionModel | ProductBlockModel]]


def take_models(returned: object) -> ReturnedModels | None:
    """Take the models out of what a step returned; ``None`` when there are none.

    Raises:
        InvalidResultError: a model is inside an object, where no reference can take its place, or in something that contains
            itself.
    """
    if returned is None or is_flat(returned):
        return None
    taken = _Taken()
    try:
        value = taken.copy(returned, None)
    except RecursionError as error:
        if taken.references:
            raise InvalidResultError(_NOT_JSON) from error
        return None  # without models, whatever stores the value refuses it
    return ReturnedModels(value, taken.references) if taken.references else None


class _Taken:
    """The models in what a step returned.

    No function in a function: one that calls itself would keep what each step returned until the garbage collector comes.
    """

    def __init__(self) -> None:
        self.references: list[tuple[dict[str, JSON], SubscriptionModel | ProductBlockModel]] = []
        self._copies: dict[tuple[int, str | None], tuple[object, object]] = {}

    def copy(self, one: object, inside: str | None) -> object:
        """Return a copy with references in the places of models.

        Args:
            inside: the class of an object in which it was found.
        """
        if isinstance(one, _PLAIN):
            return one
        # Whether something is a model takes as long as all the rest, and most of what steps return are dicts.
        if type(one) is not dict and isinstance(one, SubscriptionModel | ProductBlockModel):
            if inside is not None:
                raise InvalidResultError(
                    f"the step returned an object of {inside} with a model in it, {type(one).__name__}, which would not be saved:"
                    " return the model in a dict or a list"
                )
            self.references.append(({}, one))
            return self.references[-1][0]
        known = self._copies.get((id(one), inside))
        if known is not None:
            return known[1]
        made = one
        if type(one) is dict or isinstance(one, Mapping):
            made = {key: self.copy(each, inside) for key, each in one.items()}
        elif isinstance(one, _LISTS):
            made = [self.copy(each, inside) for each in one]
        # With the original, so that its id stays taken; of an object before what it holds, which may refer to it.
        self._copies[id(one), inside] = one, made
        if made is not one:
            return made
        if isinstance(one, BaseModel):
            for each in one.__dict__.values():
                self.copy(each, type(one).__name__)
        elif is_dataclass(one) and not isinstance(one, type):
            for part in fields(one):
                self.copy(getattr(one, part.name, None), type(one).__name__)
        return made


async def save_models(session: AsyncSession, returned: ReturnedModels) -> object:
    """Save the models that a step returned, and return what it returned with references in their places.

    Raises:
        ModelError: a model is not valid as it is, or a block was changed whose subscription was not saved.
        ConcurrentChangeError: a subscription was changed since it was loaded.
        InvalidResultError: a model contains itself, or is too deep.
    """
    copies: dict[UUID, dict[int, SubscriptionModel]] = {}
    for _, one in returned.references:
        if isinstance(one, SubscriptionModel):
            copies.setdefault(one.subscription_id, {})[id(one)] = one
    try:
        saved = {key: _prepare_changed(key, one.values()) for key, one in copies.items()}
        for save in _sort(saved):
            given = {
                block for block, owner in save.former_owners().items() if owner in saved and saved[owner].removes(block)
            }
            model = save.subscription
            if isinstance(model, SubscriptionModel) and type(model).save is not SubscriptionModel.save:
                await _save_as_author_does(model, session)
            else:
                await save.store(session, given=given)
    except RecursionError as error:
        raise InvalidResultError(_NOT_JSON) from error
    for reference, one in returned.references:
        if isinstance(one, SubscriptionModel):
            reference.update(saved[one.subscription_id].subscription.reference())
        elif one.as_stored == build_block_row(one):
            reference.update(one.reference())
        else:
            raise ModelError(
                f"the step returned the block {one.product_block_name} {one.subscription_instance_id}, which was made or"
                f" changed but not saved: return its subscription {one.owner_subscription_id} as well, with the block in it"
            )
    return returned.value


def check_saved(loaded: Loaded, returned: ReturnedModels | None, saved: Collection[UUID]) -> None:
    """Check that no model that a step was given was changed and then forgotten.

    Args:
        saved: the subscriptions that the step has saved itself.

    Raises:
        InvalidResultError: a model was changed, and neither returned nor saved.
    """
    kept = {*saved, *(_subscription_of(one) for _, one in (() if returned is None else returned.references))}
    for name, found in loaded.items():
        for one in found if isinstance(found, list) else [found]:
            if not isinstance(one, SubscriptionModel | ProductBlockModel) or _subscription_of(one) in kept:
                continue
            if _is_changed(one):
                owner = "" if isinstance(one, SubscriptionModel) else " within its subscription"
                raise InvalidResultError(
                    f"the step changed {describe(one)}, its argument {name!r}, and did not save it: return the model{owner}"
                    f" under a key of the result ({{{name!r}: {name}}}; model_dump() saves nothing), or await its save(session)"
                )


def _subscription_of(one: SubscriptionModel | ProductBlockModel) -> UUID:
    return one.subscription_id if isinstance(one, SubscriptionModel) else one.owner_subscription_id


def _is_changed(one: SubscriptionModel | ProductBlockModel) -> bool:
    try:
        if isinstance(one, SubscriptionModel):
            return prepare_save(one).difference is not None
        return one.as_stored != build_block_row(one)
    except (ModelError, RecursionError):  # what was stored is valid, so something was changed
        return True


def refer_to_models(returned: ReturnedModels) -> object:
    """Return what a form ended with, with references in place of the models in it. Nothing is saved.

    Raises:
        ModelError: a model was made or changed.
    """
    for reference, one in returned.references:
        if isinstance(one, SubscriptionModel):
            save = prepare_save(one)
            save.check_shared()
            changed = save.difference is not None
        else:
            changed = one.as_stored != build_block_row(one)
        if changed:
            raise ModelError(f"{describe(one)} was made or changed")
        reference.update(one.reference())
    return returned.value


async def _save_as_author_does(model: SubscriptionModel, session: AsyncSession) -> None:
    """Call an author's own method, which may change the model first."""
    if is_async(type(model).save):
        await model.save(session)
    else:
        what = f"save() of {type(model).__name__}"
        unwrap(await run_in_thread(partial(model.save, session.sync_session), what), what)


def _prepare_changed(key: UUID, copies: Iterable[SubscriptionModel]) -> Save:
    """Prepare the copy of a subscription that was changed, if any was."""
    saves = [prepare_save(one) for one in copies]
    changed = [save for save in saves if save.difference is not None]
    if len(changed) > 1:
        raise ModelError(
            f"the step returned two copies of the subscription {key}, both of them changed: change one object"
        )
    return (changed or saves)[0]


def _sort(saves: Mapping[UUID, Save]) -> Iterator[Save]:
    """Yield saves in an order that the database can take.

    Each block is stored before those who use it, and given up, or moved to another subscription, before its owner removes it.

    Apart from that it is always the same order, so that two steps which save the same subscriptions wait for each other rather
    than end in a deadlock.

    Raises:
        ModelError: subscriptions use new or changed blocks of each other, or of one that gives up a block which they remove,
            so that none can be the first.
    """
    if len(saves) == 1:
        yield from saves.values()
        return
    # What is stored as it is needs no order: two subscriptions may well use blocks of each other.
    before = {
        key: {block.owner_subscription_id for block in save.find_unsaved()} & saves.keys()
        for key, save in saves.items()
    }
    for key, save in saves.items():
        if save.difference is not None and save.difference.removed:
            before[key] |= {
                other for other, one in saves.items() if other != key and one.gives_up(save.difference.removed)
            }
        for owner in saves.keys() & save.former_owners().values():
            before[owner].add(key)
    order = TopologicalSorter(before)
    try:
        order.prepare()
    except CycleError as error:
        raise ModelError(
            f"the subscriptions {' and '.join(str(key) for key in error.args[1][1:])} use new or changed blocks of each other, or"
            " remove what another still uses, in a circle: save one of them first, without the other's blocks"
        ) from error
    while order.is_active():
        ready = order.get_ready()
        for key in sorted(ready):
            yield saves[key]
        order.done(*ready)
