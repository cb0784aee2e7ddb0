"""Build models from rows: the right class for each block, and everything that does not fit in one error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db import subscriptions as db
from orchestrator.db.revisions import advise, explain_age
from orchestrator.db.subscriptions import FoundBlock, Links, StoredBlock
from orchestrator.domain.definition import find_family, find_model
from orchestrator.domain.diff import settle_numbers
from orchestrator.domain.fixed_inputs import read_fixed_inputs
from orchestrator.domain.model import Block, BlockField, DomainModel, Model, ProductModel, Subscription
from orchestrator.domain.rows import MAX_DEPTH, build_block_row, find_list_fields
from orchestrator.domain.serialization import join_path, list_problems, read, restore_none
from orchestrator.errors import DefinitionError, ModelError
from orchestrator.types import Stored


class Builder:
    """Builds models out of blocks as rows hold them, and gathers what is wrong, each with its path.

    Args:
        rows: the blocks by id, with the status of the subscription that each belongs to.
    """

    def __init__(self, rows: Mapping[UUID, FoundBlock]) -> None:
        self._rows = rows
        self._problems: list[str] = []
        self._built: dict[tuple[UUID, type[Block]], Block | None] = {}
        self._above: list[UUID] = []

    def build(self, cls: type[Model], own: Mapping[str, object], links: Links, what: str) -> Model:
        """Build a model with the blocks below it.

        Args:
            own: values that go before the blocks of ``links``.
            what: begins the error text.

        Raises:
            ModelError: with everything that is wrong.
        """
        values, failed = self._build_fields(cls, links, "")
        model = self._build_model(cls, {**values, **own}, failed, "")
        self.check(what)
        assert model is not None  # noqa: S101 - a model that cannot be built is a problem
        return model

    def build_root(self, block_id: UUID) -> Block | None:
        """Build a block that is in no field, as the class for its owner's status; ``None`` when something is wrong."""
        row = self._rows[block_id]
        family = find_family(row.stored.name)
        if family is None:
            self._problems.append(f"no class is defined for the product block {row.stored.name!r}")
            return None
        return self._build_block(block_id, family.class_for(row.owner_status), "")

    def build_as(self, block_id: UUID, cls: type[Block], path: str) -> Block | None:
        """Build a block as a class of its family; ``None`` when something is wrong."""
        return self._build_block(block_id, cls, path)

    def settle(self, rows: Mapping[UUID, StoredBlock]) -> Mapping[UUID, StoredBlock]:
        """Return the rows of blocks with numbers of the type that the blocks which were built have."""
        built = {block_id: block.as_stored for (block_id, _), block in self._built.items() if block is not None}
        return {
            key: row
            if (found := built.get(key)) is None
            else replace(row, values=settle_numbers(row.values, found.values))
            for key, row in rows.items()
        }

    def check(self, what: str) -> None:
        """Check that everything could be built.

        Raises:
            ModelError: with everything that is wrong.
        """
        if self._problems:
            first, *more = self._problems
            raise ModelError("; ".join([f"{what}: {first}", *more]))

    def _build_fields(self, cls: type[DomainModel], links: Links, path: str) -> tuple[dict[str, object], set[str]]:
        """Build the blocks in a model's fields; return them by field, and the fields in which something is wrong."""
        places: dict[str, list[UUID]] = {}
        for (name, _), block_id in sorted(links.items()):
            places.setdefault(name, []).append(block_id)
        values: dict[str, object] = {
            name: [] if field.many else None
            for name, field in cls.__shape__.blocks.items()
            if name not in places and (field.many or field.optional)
        }
        failed: set[str] = set()
        for name, ids in places.items():
            field = cls.__shape__.blocks.get(name)
            place = join_path(path, name)
            if field is None or (len(ids) > 1 and not field.many):
                what = "has no such field of blocks" if field is None else "holds one block there"
                self._problems.append(f"{place}: {len(ids)} blocks are stored, but {cls.__name__} {what}")
                failed.add(name)
                continue
            blocks = [
                self._place_block(block_id, field, f"{place}.{position}" if field.many else place)
                for position, block_id in enumerate(ids)
            ]
            if None in blocks:
                failed.add(name)
            values[name] = blocks if field.many else blocks[0]
        return values, failed

    def _build_model(self, cls: type[Model], values: dict[str, object], failed: set[str], path: str) -> Model | None:
        try:
            made = read(cls, values)
        except ValidationError as error:
            # A block may be of a stricter class than the one that the field names: its own lifecycle's.
            who = f" (in {cls.__name__})" if path else ""
            self._problems += [f"{one}{who}" for one in list_problems(error, path, known=failed)]
            return None
        return None if failed else made

    def _place_block(self, block_id: UUID, field: BlockField, path: str) -> Block | None:
        """Build the block in a field: as the class for its owner's status, else as the field names it."""
        row = self._rows[block_id]
        family = find_family(row.stored.name)
        if family is not None:
            natural = family.class_for(row.owner_status)
            named = [natural] if issubclass(natural, field.classes) else field.classes
            for cls in named:
                if cls.__family__ is family:
                    return self._build_block(block_id, cls, path)
        names = " or ".join(one.__name__ for one in field.classes)
        self._problems.append(f"{path}: a block {row.stored.name!r} is stored, but {names} is expected")
        return None

    def _build_block(self, block_id: UUID, cls: type[Block], path: str) -> Block | None:
        row = self._rows[block_id].stored
        if (block_id, cls) in self._built:
            return self._built[block_id, cls]
        if block_id in self._above:
            self._problems.append(f"{path}: the block {row.name} {block_id} contains itself")
            return None
        if len(self._above) > MAX_DEPTH:
            self._problems.append(f"{path}: blocks are nested deeper than {MAX_DEPTH}")
            return None
        self._above.append(block_id)
        values, failed = self._build_fields(cls, row.links, path)
        self._above.pop()
        values |= {"subscription_instance_id": block_id, "owner_subscription_id": row.owner, "label": row.label}
        values |= restore_none(cls, self._read_values(block_id, cls, path))
        block = self._build_model(cls, values, failed, path)
        if block is not None:
            block.mark_as_stored(self._find_stored(block))
        self._built[block_id, cls] = block
        return block

    def _read_values(self, block_id: UUID, cls: type[Block], path: str) -> Mapping[str, object]:
        """Return the values of a block that is to be of a class."""
        stored, names = self._rows[block_id].stored.values, cls.__shape__.values
        for name in stored.keys() - set(names):
            self._problems.append(
                f"{join_path(path, name)}: a value is stored, but {cls.__name__} has no such field; if the resource type is gone"
                " for good, a migration must remove it"
            )
        return {name: stored[name] for name in names if name in stored}

    def _find_stored(self, block: Block) -> StoredBlock | None:
        """Return what a block that was built remembers as stored."""
        return build_block_row(block)


async def load_stored(
    session: AsyncSession, classes: Sequence[type[Stored]], reference: UUID | str
) -> Subscription | Block:
    """Read a subscription or a block, as the class for its product and status.

    Args:
        classes: what it may be an instance of: subscriptions or blocks, not both.
        reference: its id.

    Raises:
        DefinitionError: the classes are of different kinds.
        NotFoundError: there is none.
        ModelError: it is of another class, or what is stored does not fit its class.
    """
    subscriptions = tuple(one for one in classes if issubclass(one, Subscription))
    blocks = tuple(one for one in classes if issubclass(one, Block))
    if subscriptions and len(subscriptions) == len(classes):
        return await load_subscription(session, subscriptions, reference)
    if blocks and len(blocks) == len(classes):
        return await load_block(session, blocks, reference)
    names = ", ".join(one.__name__ for one in classes)
    raise DefinitionError(f"a subscription or a product block can be loaded, not one of: {names or 'nothing'}")


async def load_subscription(
    session: AsyncSession, wanted: tuple[type[DomainModel], ...], subscription_id: UUID | str
) -> Subscription:
    """Read a subscription, as the class for its product and status.

    Raises:
        NotFoundError: there is none.
        ModelError: it is of none of the wanted classes, or what is stored does not fit its class.
    """
    found = await db.load(session, subscription_id)
    columns, product = found.stored.columns, ProductModel.model_validate(found.product.product)
    what = f"the subscription {found.stored.subscription_id} ({product.name}, {columns.status})"
    try:
        model = find_model(product.name, columns.status)
    except ModelError as error:
        raise ModelError("; ".join(filter(None, [f"{what}: {error}", await explain_age(session)]))) from error
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
        **read_fixed_inputs(model, found.product),
    }
    try:
        builder = Builder(found.blocks)
        made = builder.build(model, own, found.stored.links, f"{what} does not fit {model.__name__}")
    except ModelError as error:
        raise ModelError(f"{error}; {await advise(session)}") from error
    blocks = builder.settle(found.stored.blocks)
    lists = find_list_fields(model, blocks.values())
    made.mark_as_stored(replace(found.stored, blocks=blocks, lists=lists), found.version)
    return made


async def load_block(session: AsyncSession, wanted: tuple[type[Block], ...], block_id: UUID | str) -> Block:
    """Read a block, as the class for the status of its subscription.

    Raises:
        NotFoundError: there is none.
        ModelError: it is of none of the wanted classes, or what is stored does not fit its class.
    """
    key, found = await db.load_block(session, block_id)
    builder = Builder(found)
    block = builder.build_root(key)
    row, status = found[key].stored, found[key].owner_status
    what = f"the block {row.name} {key} of the subscription {row.owner} ({status})"
    try:
        builder.check(f"{what} does not fit its class")
    except ModelError as error:
        raise ModelError(f"{error}; {await advise(session)}") from error
    if not isinstance(block, wanted):
        names = " or ".join(one.__name__ for one in wanted)
        raise ModelError(f"{what} is {type(block).__name__}; {names} was asked for")
    return block
