"""Making models of rows: the right class for each block, and everything that is wrong in one text."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from uuid import UUID

from pydantic import ValidationError

from orchestrator.db.subscriptions import FoundBlock, Links, StoredBlock
from orchestrator.domain.family import family_named
from orchestrator.domain.model import Block, BlockField, DomainModel, Family
from orchestrator.domain.rows import MAX_DEPTH, block_row, links_of
from orchestrator.domain.texts import joined, problems
from orchestrator.domain.values import PLAIN, read, with_none
from orchestrator.errors import ModelError
from orchestrator.types import SubscriptionLifecycle

STORED_OTHERWISE = "run 'orchestrator db migrate-domain-models' to see what a migration must change"
"""What helps when rows do not fit their class: code and database have drifted apart."""


class Assembly:
    """Makes the blocks below one model.

    ``problems`` gathers what is wrong, each with its path, so that a person hears of all of it at once.

    Args:
        rows: the blocks as rows hold them, with the status of the subscription that each belongs to.
    """

    def __init__(self, rows: Mapping[UUID, FoundBlock]) -> None:
        self.problems: list[str] = []
        self._rows = rows
        self._made: dict[tuple[UUID, type[Block]], Block | None] = {}
        self._under_way: list[UUID] = []

    def fields(self, cls: type[DomainModel], links: Links, path: str) -> tuple[dict[str, object], set[str]]:
        """The blocks in the fields of a model that is to be made, and in which fields something was wrong."""
        shape = cls.__shape__.blocks
        places: dict[str, list[UUID]] = {}
        for (name, _), block_id in sorted(links.items()):
            places.setdefault(name, []).append(block_id)
        values: dict[str, object] = {}
        failed: set[str] = set()
        for name, blocks in places.items():
            field = shape.get(name)
            if field is None or (len(blocks) > 1 and not field.many):
                what = "has no such field of blocks" if field is None else "holds one block there"
                self.problems.append(
                    f"{joined(path, name)}: {len(blocks)} blocks are stored, but {cls.__name__} {what}"
                )
                failed.add(name)
                continue
            made = [
                self.block(block_id, field, joined(path, f"{name}.{position}" if field.many else name))
                for position, block_id in enumerate(blocks)
            ]
            if None in made:
                failed.add(name)
            values[name] = made if field.many else made[0]
        for name, field in shape.items():
            if name not in places and (field.many or field.optional):
                values[name] = [] if field.many else None
        return values, failed

    def make(
        self, cls: type[DomainModel], values: dict[str, object], failed: set[str], path: str
    ) -> DomainModel | None:
        """One model of its values, or ``None`` when something is wrong."""
        try:
            made = read(cls, values)
        except ValidationError as error:
            # A block may be of a stricter class than the one that the field names: its own lifecycle's.
            who = f" (in {cls.__name__})" if path else ""
            self.problems += [f"{one}{who}" for one in problems(error, path, told=failed)]
            return None
        return None if failed else made

    def block(self, block_id: UUID, field: BlockField, path: str) -> Block | None:
        """The block that stands in a field, or ``None`` when something is wrong."""
        row = self._rows[block_id]
        family = family_named(row.stored.name)
        classes = [] if family is None else _candidates(family, field, row.owner_status)
        if not classes:
            names = " or ".join(one.__name__ for one in field.classes)
            self.problems.append(f"{path}: a block {row.stored.name!r} stands where {names} is expected")
            return None
        return self._block(block_id, row.stored, classes[0], path)

    def root(self, block_id: UUID) -> Block | None:
        """A block that stands in no field: of the class that its owner's status asks for."""
        row = self._rows[block_id]
        family = family_named(row.stored.name)
        if family is None:
            self.problems.append(f"no class is defined for the product block {row.stored.name!r}")
            return None
        return self._block(block_id, row.stored, family.class_for(row.owner_status), "")

    def _block(self, block_id: UUID, row: StoredBlock, cls: type[Block], path: str) -> Block | None:
        if (block_id, cls) in self._made:
            return self._made[block_id, cls]
        if block_id in self._under_way:
            self.problems.append(f"{path}: the block {row.name} {block_id} stands below itself")
            return None
        if len(self._under_way) > MAX_DEPTH:
            self.problems.append(f"{path}: blocks stand deeper than {MAX_DEPTH} within blocks")
            return None
        self._under_way.append(block_id)
        values, failed = self.fields(cls, row.links, path)
        self._under_way.pop()
        values |= {"subscription_instance_id": block_id, "owner_subscription_id": row.owner, "label": row.label}
        values |= with_none(cls, self._values(block_id, cls, path))
        made = self.make(cls, values, failed, path)
        block: Block | None = made  # type: ignore[assignment]
        if block is not None:
            block.mark_as_stored(self._memory(block))
        self._made[block_id, cls] = block
        return block

    def _values(self, block_id: UUID, cls: type[Block], path: str) -> Mapping[str, object]:
        """The values of a block that is to be of a class."""
        stored, names = self._rows[block_id].stored.values, cls.__shape__.values
        for name in stored.keys() - set(names):
            self.problems.append(
                f"{joined(path, name)}: a value is stored, but {cls.__name__} has no such field; if the resource type is gone for"
                " good, a migration must remove it"
            )
        return {name: stored[name] for name in names if name in stored}

    def _memory(self, block: Block) -> StoredBlock | None:
        """What a block that was made is to remember of its rows."""
        return block_row(block)


class Remaking(Assembly):
    """Makes the blocks of one subscription anew, as another status or product has them, out of those that it has.

    Blocks of other subscriptions stay the objects that they are, where they fit.

    Args:
        blocks: all that can be reached from the subscription.
        subscription_id: to which the blocks belong that are made anew.
        status: that the subscription is to have.
    """

    def __init__(self, blocks: Mapping[UUID, Block], subscription_id: UUID, status: str) -> None:
        super().__init__({key: FoundBlock(_place(one), status) for key, one in blocks.items()})
        self._blocks = blocks
        self._subscription_id = subscription_id

    def block(self, block_id: UUID, field: BlockField, path: str) -> Block | None:
        one = self._blocks[block_id]
        if self._is_shared(one) and isinstance(one, field.classes):
            return one
        return super().block(block_id, field, path)

    def _values(self, block_id: UUID, cls: type[Block], path: str) -> Mapping[str, object]:  # noqa: ARG002
        # As they are, not by way of JSON: what does not come back from there is refused when it is saved.
        one = self._blocks[block_id]
        held = one.__dict__
        return {
            name: value if type(value := held[name]) in PLAIN else deepcopy(value)
            for name in type(one).__shape__.values
        }

    def _memory(self, block: Block) -> StoredBlock | None:
        old = self._blocks[block.subscription_instance_id]
        if self._is_shared(old) and old.as_stored == block_row(old):
            # Nobody has changed it; another class may only say the same in another way.
            return block_row(block)
        return old.as_stored

    def _is_shared(self, block: Block) -> bool:
        return block.owner_subscription_id != self._subscription_id


def _place(block: Block) -> StoredBlock:
    """Where a block stands, without its values."""
    return StoredBlock(block.product_block_name, block.owner_subscription_id, block.label, {}, links_of(block))


def _candidates(family: Family[Block], field: BlockField, status: str) -> list[type[Block]]:
    """The classes that a block may have in a field: as its owner's status asks, else as the annotation says."""
    natural = family.class_for(SubscriptionLifecycle(status))
    if issubclass(natural, field.classes):
        return [natural]
    return [one for one in field.classes if one.__family__ is family]


def raise_problems(assembly: Assembly, what: str, advice: str = "") -> None:
    """Fail if anything was wrong.

    Raises:
        ModelError: with all of it.
    """
    if assembly.problems:
        raise ModelError(
            "; ".join([f"{what}: {assembly.problems[0]}", *assembly.problems[1:], *([advice] if advice else [])])
        )
