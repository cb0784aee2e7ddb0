"""What a model says, as rows would hold it: pure, and the same before and after the database has seen it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING
from uuid import UUID

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError, from_json, to_json

from orchestrator.db.subscriptions import Columns, Links, StoredBlock, StoredSubscription
from orchestrator.domain.family import DomainModel, family_named
from orchestrator.domain.fields import is_block
from orchestrator.errors import ModelError
from orchestrator.types import JSON

if TYPE_CHECKING:
    from orchestrator.domain.block import ProductBlockModel
    from orchestrator.domain.subscription import SubscriptionModel


MAX_DEPTH = 100
"""Of blocks within blocks, over all subscriptions: what is deeper is a mistake, and would end in Python's own limit."""


def block_row(block: ProductBlockModel) -> StoredBlock:
    """One block as its rows hold it.

    Raises:
        ModelError: a value cannot be written as JSON.
    """
    _refuse_null_characters(block, {"label": block.label})
    return StoredBlock(
        block.product_block_name, block.owner_subscription_id, block.label, _values(block), links_of(block)
    )


def subscription_rows(subscription: SubscriptionModel) -> StoredSubscription:
    """A subscription and the blocks of its own as rows hold them.

    Raises:
        ModelError: a value cannot be written as JSON, or blocks are put together in a way that rows cannot hold.
    """
    mine = subscription.subscription_id
    texts = {name: getattr(subscription, name) for name in ("customer_id", "description", "note")}
    _refuse_null_characters(subscription, texts)
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


def blocks_in(model: DomainModel) -> dict[tuple[str, int], ProductBlockModel]:
    """The blocks that stand in a model's own fields, by field and position."""
    found: dict[tuple[str, int], ProductBlockModel] = {}
    for name, field in type(model).__shape__.blocks.items():
        value = getattr(model, name)
        if field.many:
            found |= {(name, position): one for position, one in enumerate(value)}
        elif value is not None:
            found[name, 0] = value
    return found


def links_of(model: DomainModel) -> Links:
    """Which blocks stand in a model's own fields, by their ids."""
    return {place: block.subscription_instance_id for place, block in blocks_in(model).items()}


def reachable(model: DomainModel) -> dict[UUID, ProductBlockModel]:
    """Every block below a model, by its id.

    Raises:
        ModelError: a block stands below itself, or two different ones have the same id.
    """
    found: dict[UUID, ProductBlockModel] = {}
    _reach(model, found, [])
    return found


def _reach(model: DomainModel, found: dict[UUID, ProductBlockModel], above: list[UUID]) -> None:
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


def check(model: DomainModel) -> None:
    """Validate a model as it is now: lists and other values may have been changed in place, where nobody noticed.

    Raises:
        ModelError: a value does not fit its field.
    """
    cls = type(model)
    given = {name: getattr(model, name) for name in cls.model_fields}
    try:
        checked = cls.model_validate(given)
    except ValidationError as error:
        wrong = "; ".join(problems(error))
        raise ModelError(f"{describe(model)} cannot be saved as {cls.__name__}: {wrong}") from error
    for name in cls.__shape__.values:
        model.__dict__[name] = checked.__dict__[name]


def check_comes_back(block: ProductBlockModel, row: StoredBlock) -> None:
    """Make sure that what is to be stored of a block can be loaded again, rather than find out when nobody can mend it.

    Raises:
        ModelError: it cannot.
    """
    cls = type(block)
    given = {name: getattr(block, name) for name in cls.model_fields if name not in cls.__shape__.values}
    try:
        cls.model_validate({**given, **with_none(cls, row.values)})
    except ValidationError as error:
        wrong = "; ".join(problems(error))
        raise ModelError(
            f"{describe(block)} cannot be saved: what JSON makes of it does not fit {cls.__name__} any more: {wrong}"
        ) from error


def with_none(cls: type[DomainModel], stored: Mapping[str, JSON]) -> dict[str, JSON]:
    """Stored values, with ``None`` where that is what its absence means."""
    shape = cls.__shape__
    absent = [name for name in shape.nullable if name not in stored and cls.model_fields[name].is_required()]
    return {**stored, **dict.fromkeys(absent)}


def problems(error: ValidationError, path: str = "", told: Collection[str] = ()) -> list[str]:
    """What pydantic says, one line per field, each with its path; not about fields of which something was told already."""
    return [
        f"{'.'.join([*filter(None, [path]), *map(str, one['loc'])]) or 'all of it'}: {one['msg']}"
        for one in error.errors(include_url=False, include_context=False, include_input=False)
        if not (one["loc"] and one["loc"][0] in told)
    ]


def describe(model: DomainModel) -> str:
    """A model, as error texts name it."""
    key = getattr(model, type(model).reference_key)
    return f"the block {type(model).__family__.name} {key}" if is_block(type(model)) else f"the subscription {key}"


def _values(block: ProductBlockModel) -> dict[str, JSON]:
    cls, shape = type(block), type(block).__shape__
    try:
        text = block.__pydantic_serializer__.to_json(block, include=set(shape.values), warnings=False)
        values: dict[str, JSON] = from_json(text, allow_inf_nan=False)
    except (PydanticSerializationError, ValueError) as error:
        raise ModelError(f"{describe(block)} holds something that JSON cannot hold: {error}") from error
    if b"\\u0000" in text:
        _refuse_null_characters(block, values)
    for name in shape.values:
        value = getattr(block, name)
        if isinstance(value, set | frozenset):
            # Sets have no order, rows do: without one of our own each save would find them different.
            values[name] = sorted(values[name], key=to_json)  # type: ignore[arg-type]
        elif value is None and cls.model_fields[name].get_default() is None:
            del values[name]
    return values


def _refuse_null_characters(model: DomainModel, values: Mapping[str, JSON]) -> None:
    wrong = [name for name, value in values.items() if _has_null_character(value)]
    if wrong:
        raise ModelError(f"{wrong[0]} of {describe(model)} has a null character, which the database cannot hold")


def _has_null_character(value: JSON) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(_has_null_character(key) or _has_null_character(item) for key, item in value.items())
    return isinstance(value, list) and any(_has_null_character(item) for item in value)
