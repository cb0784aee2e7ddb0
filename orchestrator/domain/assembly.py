"""Making models of rows: the right class for each block, and everything that is wrong in one text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING
from uuid import UUID

from pydantic import ValidationError

from orchestrator.db.subscriptions import FoundBlock, Links, StoredBlock
from orchestrator.domain.family import DomainModel, Family, family_named
from orchestrator.domain.fields import BlockField
from orchestrator.domain.rows import MAX_DEPTH, block_row, problems, with_none
from orchestrator.errors import ModelError
from orchestrator.types import JSON, SubscriptionLifecycle

if TYPE_CHECKING:
    from orchestrator.domain.block import ProductBlockModel


class Assembly:
    """Makes the blocks below one model.

    ``problems`` gathers what is wrong, each with its path, so that a person hears of all of it at once.

    Args:
        rows: the blocks as rows hold them, with the status of the subscription that each belongs to.
        ready: blocks that are models already; they are taken as they are where they fit.
        before: what the models remember that the new ones replace; without, what is made is what the database has.
    """

    def __init__(
        self,
        rows: Mapping[UUID, FoundBlock],
        ready: Mapping[UUID, ProductBlockModel] | None = None,
        before: Mapping[UUID, StoredBlock | None] | None = None,
    ) -> None:
        self.problems: list[str] = []
        self._rows = rows
        self._ready = ready or {}
        self._before = before
        self._made: dict[tuple[UUID, type[ProductBlockModel]], ProductBlockModel | None] = {}
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
                self.problems.append(f"{_join(path, name)}: {len(blocks)} blocks are stored, but {cls.__name__} {what}")
                failed.add(name)
                continue
            made = [
                self.block(block_id, field, _join(path, f"{name}.{position}" if field.many else name))
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
            made = cls.model_validate(values)
        except ValidationError as error:
            self.problems += problems(error, path, told=failed)
            return None
        return None if failed else made

    def block(self, block_id: UUID, field: BlockField, path: str) -> ProductBlockModel | None:
        """The block that stands in a field, or ``None`` when something is wrong."""
        ready = self._ready.get(block_id)
        if ready is not None and isinstance(ready, field.classes):
            return ready
        row = self._rows[block_id]
        family = family_named(row.stored.name)
        classes = [] if family is None else _candidates(family, field, row.owner_status)
        if not classes:
            names = " or ".join(one.__name__ for one in field.classes)
            self.problems.append(f"{path}: a block {row.stored.name!r} stands where {names} is expected")
            return None
        return self._block(block_id, row.stored, classes[0], path)

    def root(self, block_id: UUID) -> ProductBlockModel | None:
        """A block that stands in no field: of the class that its owner's status asks for."""
        row = self._rows[block_id]
        family = family_named(row.stored.name)
        if family is None:
            self.problems.append(f"no class is defined for the product block {row.stored.name!r}")
            return None
        return self._block(block_id, row.stored, family.class_for(row.owner_status), "")

    def _block(
        self, block_id: UUID, row: StoredBlock, cls: type[ProductBlockModel], path: str
    ) -> ProductBlockModel | None:
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
        self._add_values(cls, row.values, values, path)
        made = self.make(cls, values, failed, path)
        block: ProductBlockModel | None = made  # type: ignore[assignment]
        if block is not None:
            block.mark_as_stored(block_row(block) if self._before is None else self._before.get(block_id))
        self._made[block_id, cls] = block
        return block

    def _add_values(
        self, cls: type[DomainModel], stored: Mapping[str, JSON], values: dict[str, object], path: str
    ) -> None:
        shape = cls.__shape__
        for name in stored.keys() - set(shape.values):
            self.problems.append(
                f"{_join(path, name)}: a value is stored, but {cls.__name__} has no such field; if the resource type is gone for"
                " good, a migration must remove it"
            )
        values |= with_none(cls, {name: stored[name] for name in shape.values if name in stored})


def _candidates(family: Family[ProductBlockModel], field: BlockField, status: str) -> list[type[ProductBlockModel]]:
    """The classes that a block may have in a field: as its owner's status asks, else as the annotation says."""
    natural = family.class_for(SubscriptionLifecycle(status))
    if issubclass(natural, field.classes):
        return [natural]
    return [one for one in field.classes if one.__family__ is family]


def raise_problems(assembly: Assembly, what: str) -> None:
    """Fail if anything was wrong.

    Raises:
        ModelError: with all of it.
    """
    if assembly.problems:
        raise ModelError(f"{what}: {'; '.join(assembly.problems)}")


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
