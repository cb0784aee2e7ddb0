"""What subscriptions have that the models of the code cannot load, in words that say what to write. Pure.

The catalogue has the names of products, blocks and values. Which fields blocks stand in, and which values are missing, only
the subscriptions themselves tell.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap

from orchestrator.db.registration.catalogue import Catalogue
from orchestrator.db.registration.usage import Filled, Holdings, Kind
from orchestrator.domain.model import BlockField, DomainModel
from orchestrator.domain.schema import ProductDefinition
from orchestrator.types import SubscriptionLifecycle

_CONNECTION = "op.get_bind()"


@dataclass(frozen=True, slots=True)
class Finding:
    """Why subscriptions cannot be loaded.

    Args:
        what: the reason.
        advice: what mends it; its first word follows the reason.
        calls: those of helpers for migrations that the advice names, as Python; one of them mends it.
        swaps: what to do if something that is about to be registered is only a new name.
    """

    what: str
    advice: str
    calls: tuple[str, ...] = ()
    swaps: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.what}{self.advice}"

    @property
    def helpers(self) -> set[str]:
        """The names of the functions that are called."""
        return {call.partition("(")[0] for call in self.calls}

    @property
    def remarks(self) -> list[str]:
        """As comments in a migration: the calls need no more than to be completed and let out."""
        return [*wrap(self.what, _WIDTH), *self.calls, *(line for swap in self.swaps for line in wrap(swap, _WIDTH))]


_WIDTH = 110
"""Characters of a comment."""


def unloadable(
    definitions: Sequence[ProductDefinition],
    stored: Catalogue,
    holdings: Holdings,
    dropped: Collection[tuple[str, str]] = frozenset(),
) -> list[Finding]:
    """Why subscriptions cannot be loaded by this code, and what mends it; empty when none of these reasons applies.

    Args:
        dropped: pairs of block and resource type whose values are about to go.
    """
    found = list(_without_model(definitions, stored, holdings))
    for one in _models(definitions):
        found += _wrong_fields(one, stored, holdings)
        if not one.of_products:
            (block,) = one.kinds
            found += _unknown_values(one, block.name, stored, holdings, dropped)
            found += _missing_values(one, block.name, holdings)
    return found


@dataclass(frozen=True, slots=True)
class _Model:
    """The classes of one product block, or of all products that share a model.

    Args:
        base: of the family.
    """

    base: type[DomainModel]
    kinds: tuple[Kind, ...]

    @property
    def of_products(self) -> bool:
        return self.kinds[0].is_product

    @property
    def names(self) -> str:
        return ", ".join(kind.name for kind in self.kinds)

    @property
    def argument(self) -> str:
        """How helpers of migrations are told whose field it is."""
        return (
            f"products={[kind.name for kind in self.kinds]!r}" if self.of_products else f"block={self.kinds[0].name!r}"
        )

    def class_for(self, status: str) -> type[DomainModel]:
        found: type[DomainModel] = self.base.__family__.class_for(status)
        return found

    def present(self, holdings: Holdings) -> Iterator[tuple[str, type[DomainModel], int]]:
        """The statuses in which there are some: with their class, and how many."""
        for status in SubscriptionLifecycle:
            count = sum(holdings.totals.get(kind, {}).get(status, 0) for kind in self.kinds)
            if count:
                yield status.value, self.class_for(status), count


@dataclass(frozen=True, slots=True)
class _Renaming:
    """That something may only have got another name.

    Args:
        heirs: what it may be called now; without any there is nothing to be said.
        more: arguments behind the names.
    """

    function: str
    old: str
    heirs: Sequence[str]
    more: str = ""

    @property
    def calls(self) -> tuple[str, ...]:
        new = self.heirs[0] if len(self.heirs) == 1 else "…"
        return (f"{self.function}({_CONNECTION}, {self.old!r}, {new!r}{self.more})",) if self.heirs else ()

    @property
    def swaps(self) -> tuple[str, ...]:
        return tuple(
            f"if {' or '.join(self.heirs)} is only the new name of {self.old}: write {call} in place of all lines of upgrade()"
            " that name one of the two, and the way back in place of those of downgrade()"
            for call in self.calls
        )

    def advice(self, what: str) -> str:
        perhaps = f" (perhaps {' or '.join(self.heirs)})" if len(self.heirs) > 1 else ""
        return "".join(f". If {what} only got another name{perhaps}: {call}" for call in self.calls)


def _models(definitions: Iterable[ProductDefinition]) -> list[_Model]:
    products: dict[type[DomainModel], list[Kind]] = {}
    blocks: dict[str, type[DomainModel]] = {}
    for one in definitions:
        products.setdefault(one.base, []).append(Kind(one.name, is_product=True))
        blocks |= {name: block.base for name, block in one.blocks.items()}
    return [
        *(_Model(base, tuple(kinds)) for base, kinds in products.items()),
        *(_Model(base, (Kind(name),)) for name, base in sorted(blocks.items())),
    ]


def _without_model(
    definitions: Iterable[ProductDefinition], stored: Catalogue, holdings: Holdings
) -> Iterator[Finding]:
    known = {one.name for one in definitions}
    for name in sorted(stored.products.keys() - known):
        totals = holdings.totals.get(Kind(name, is_product=True), {})
        living = sum(totals.values()) - totals.get(SubscriptionLifecycle.TERMINATED.value, 0)
        if living:
            retire = f"retire_product({_CONNECTION}, {name!r})"
            rename = _Renaming("rename_product", name, sorted(known - stored.products.keys()))
            yield Finding(
                f"the product {name}: the code has no model for it, but subscriptions of it have not ended ({living}), and"
                " without one none of them can be changed or terminated",
                f": keep the model in SUBSCRIPTION_MODEL_REGISTRY until the last has ended, and write {retire}, so that there are"
                f" no new ones{rename.advice('it')}",
                (retire, *rename.calls),
                rename.swaps,
            )


def _wrong_fields(model: _Model, stored: Catalogue, holdings: Holdings) -> Iterator[Finding]:
    filled: dict[str, list[Filled]] = {}
    for one in holdings.fields:
        if one.holder in model.kinds:
            filled.setdefault(one.field, []).append(one)
    fields: Mapping[str, BlockField] = model.base.__shape__.blocks
    empty = {name: field for name, field in fields.items() if name not in filled}
    perhaps_renamed: set[str] = set()
    for name, some in sorted(filled.items()):
        if name in fields:
            yield from _misfits(model, name, some, stored)
            continue
        kinds = {kind for one in some for kind in one.kinds}
        heirs = sorted(heir for heir, field in empty.items() if kinds <= _allowed(field))
        perhaps_renamed.update(heirs)
        rename = _Renaming("rename_block_field", name, heirs, f", {model.argument}")
        drop = f"drop_block_field({_CONNECTION}, {name!r}, {model.argument}, values='drop')"
        yield Finding(
            f"the field {name} of {model.names}: the code has no such field of blocks, but blocks stand there"
            f" ({', '.join(sorted(kinds))}; in {_sum(some)})",
            f"{rename.advice('it')}. To delete the blocks: {drop}",
            (*rename.calls, drop),
        )
    for name in fields:
        if name not in perhaps_renamed:
            yield from _too_few(model, name, filled.get(name, ()), holdings)


def _misfits(model: _Model, name: str, filled: Iterable[Filled], stored: Catalogue) -> Iterator[Finding]:
    """Blocks of another kind than a class of the code expects, or more than it takes."""
    strange: Counter[str] = Counter()
    crowded: Counter[str] = Counter()
    for one in filled:
        cls = model.class_for(one.status)
        field = cls.__shape__.blocks[name]
        strange.update(dict.fromkeys(one.kinds - _allowed(field), one.count))
        most = field.maximum if field.many else 1
        if most is not None and one.length > most:
            crowded[f"{cls.__name__} takes {most}"] += one.count
    for kind, count in sorted(strange.items()):
        expected = sorted(_allowed(model.base.__shape__.blocks[name]))
        heirs = [one for one in expected if one not in stored.blocks]
        rename = _Renaming("rename_product_block", kind, heirs)
        yield Finding(
            f"the field {name} of {model.names}: blocks {kind} stand there (in {count}), where the code expects"
            f" {' or '.join(expected)}",
            f"{rename.advice('the block')}. {'Else let' if heirs else 'Let'} a workflow take them out while the code still knows"
            " them",
            rename.calls,
            rename.swaps,
        )
    for limit, count in sorted(crowded.items()):
        yield Finding(
            f"the field {name} of {model.names}: {limit}, but there are more (in {count})",
            ": let a workflow take the others out while the code still has room for them",
        )


def _too_few(model: _Model, name: str, filled: Collection[Filled], holdings: Holdings) -> Iterator[Finding]:
    lacking: Counter[str] = Counter()
    for status, cls, count in model.present(holdings):
        needed = cls.__shape__.blocks[name].starts_with
        enough = sum(one.count for one in filled if one.status == status and one.length >= needed)
        if needed and not _completes_itself(cls):
            lacking[f"{cls.__name__} needs {needed}"] += count - enough
    for need, count in sorted(lacking.items()):
        if count:
            yield Finding(
                f"the field {name} of {model.names}: {need}, but there are fewer (in {count})",
                ": let the field be empty in the code until a workflow has filled it",
            )


def _unknown_values(
    model: _Model, block: str, stored: Catalogue, holdings: Holdings, dropped: Collection[tuple[str, str]]
) -> Iterator[Finding]:
    coded = set(model.base.__shape__.values)
    held = holdings.values.get(block, {}).keys()
    known = stored.blocks[block].resource_types if block in stored.blocks else frozenset()
    # What is new in the code; or what an upgrade has registered since, instead of renaming.
    heirs = sorted(coded - held - known or coded - held)
    for name in sorted(held - coded):
        if (block, name) not in dropped:
            # Of this block only: in others the code may well have the old name.
            rename = _Renaming("rename_resource_type", name, heirs, f", block={block!r}")
            yield Finding(
                f"the resource type {name} of {block}: the code has no such value, but subscriptions hold some"
                f" ({holdings.count_values(block, name)})",
                f"; it is left as it is{rename.advice('it')}. --drop-values deletes the values",
                rename.calls,
            )


def _missing_values(model: _Model, block: str, holdings: Holdings) -> Iterator[Finding]:
    lacking: dict[str, Counter[str]] = {}
    for status, cls, count in model.present(holdings):
        if _completes_itself(cls):
            continue
        for name in cls.__shape__.values:
            if cls.model_fields[name].is_required() and name not in cls.__shape__.nullable:
                missing = count - holdings.values.get(block, {}).get(name, {}).get(status, 0)
                lacking.setdefault(name, Counter())[cls.__name__] += missing
    for name, classes in sorted(lacking.items()):
        for cls_name, count in sorted(classes.items()):
            if count:
                fill = f"fill_values({_CONNECTION}, {block!r}, {{{name!r}: …}})"
                yield Finding(
                    f"the resource type {name} of {block}: {cls_name} needs a value, but there is none (in {count})",
                    f": {fill}",
                    (fill,),
                )


def _allowed(field: BlockField) -> set[str]:
    """The names of the product blocks that may stand in a field."""
    return {one.product_block_name for one in field.classes}


def _completes_itself(cls: type[DomainModel]) -> bool:
    """Whether a class has validators that may add what is missing before pydantic looks."""
    return any(one.info.mode != "after" for one in cls.__pydantic_decorators__.model_validators.values())


def _sum(filled: Iterable[Filled]) -> int:
    return sum(one.count for one in filled)
