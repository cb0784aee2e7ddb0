"""Find what subscriptions have that the code's models cannot load: where, what, how many, and the fixing helper. Pure.

The catalogue has the names of products, blocks and values. Which fields blocks stand in, and which values are missing, only
the subscriptions themselves say.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from orchestrator.db.registration.catalogue import Catalogue
from orchestrator.db.registration.usage import FilledField, Kind, Usage
from orchestrator.domain.model import BlockField, DomainModel
from orchestrator.domain.schema import ProductDefinition
from orchestrator.types import SubscriptionLifecycle


@dataclass(frozen=True, slots=True)
class Finding:
    """Why subscriptions cannot be loaded.

    Args:
        count: of the subscriptions or blocks concerned.
        calls: of helpers for migrations, as Python; ``…`` is for the author to complete. One of them corrects it.
        otherwise: what corrects it besides.
    """

    where: str
    what: str
    count: int
    calls: tuple[str, ...] = ()
    otherwise: str = ""

    def __str__(self) -> str:
        return f"{self.place}: {' or '.join(filter(None, [*self.calls, self.otherwise]))}"

    @property
    def place(self) -> str:
        """Return where, what and how many."""
        return f"{self.where}: {self.what} ({self.count})"

    @property
    def helpers(self) -> set[str]:
        """Return the names of the functions that are called."""
        return {call.partition("(")[0] for call in self.calls}


def find_drift(
    definitions: Sequence[ProductDefinition],
    stored: Catalogue,
    usage: Usage,
    dropped: Collection[tuple[str, str]] = frozenset(),
) -> list[Finding]:
    """Return why subscriptions cannot be loaded by this code; empty when none of these reasons applies.

    Args:
        dropped: pairs of block and resource type whose values are about to go.
    """
    products: dict[type[DomainModel], list[Kind]] = defaultdict(list)
    blocks: dict[str, type[DomainModel]] = {}
    for one in definitions:
        products[one.base].append(Kind(one.name, is_product=True))
        blocks |= {name: block.base for name, block in one.blocks.items()}
    found = list(_find_products_without_model(definitions, stored, usage))
    for base, kinds in products.items():
        found += _check_fields(_Model(base, tuple(kinds)), usage)
    for name, base in sorted(blocks.items()):
        model = _Model(base, (Kind(name),))
        found += _check_fields(model, usage)
        found += _find_unknown_values(base, name, usage, dropped)
        found += _find_missing_values(model, name, usage)
    return found


@dataclass(frozen=True, slots=True)
class _Model:
    """The classes of one product block, or of all products that share a model; ``base`` is that of the family."""

    base: type[DomainModel]
    kinds: tuple[Kind, ...]

    def field(self, name: str) -> str:
        return f"the field {name} of {', '.join(kind.name for kind in self.kinds)}"

    @property
    def owner(self) -> str:
        """Return the argument by which helpers for migrations know whose field it is."""
        names = [kind.name for kind in self.kinds]
        return f"products={names!r}" if self.kinds[0].is_product else f"block={names[0]!r}"

    def list_demanding(self, usage: Usage) -> Iterator[tuple[str, type[DomainModel], int]]:
        """Yield the statuses in which there are some that must have all that their class needs: with the class, and how many."""
        for status in SubscriptionLifecycle:
            cls: type[DomainModel] = self.base.__family__.class_for(status)
            count = sum(usage.totals.get(kind, {}).get(status, 0) for kind in self.kinds)
            # A validator that runs before pydantic looks may add what is missing.
            completes_itself = any(
                one.info.mode != "after" for one in cls.__pydantic_decorators__.model_validators.values()
            )
            if count and not completes_itself:
                yield status.value, cls, count


def write_call(helper: str, *arguments: str) -> str:
    """Return the call of a helper for migrations."""
    return f"{helper}({', '.join(['op.get_bind()', *arguments])})"


def _find_products_without_model(
    definitions: Iterable[ProductDefinition], stored: Catalogue, usage: Usage
) -> Iterator[Finding]:
    for name in sorted(stored.products.keys() - {one.name for one in definitions}):
        totals = usage.totals.get(Kind(name, is_product=True), {})
        living = sum(totals.values()) - totals.get(SubscriptionLifecycle.TERMINATED.value, 0)
        if living:
            yield Finding(
                f"the product {name}",
                "the code has no model for it, but subscriptions of it have not ended",
                living,
                (write_call("rename_product", repr(name), "'…'"),),
                f"put the model back until the last has ended, and {write_call('retire_product', repr(name))}",
            )


def _check_fields(model: _Model, usage: Usage) -> Iterator[Finding]:
    filled: dict[str, list[FilledField]] = defaultdict(list)
    for one in usage.fields:
        if one.holder in model.kinds:
            filled[one.field].append(one)
    fields = model.base.__shape__.blocks
    unknown = sorted(filled.keys() - fields.keys())
    for name in unknown:
        blocks = sorted({block for one in filled[name] for block in one.blocks})
        yield Finding(
            model.field(name),
            f"the code has no such field, but blocks stand there: {', '.join(blocks)}",
            sum(one.count for one in filled[name]),
            (
                write_call("rename_block_field", repr(name), "'…'", model.owner),
                write_call("drop_block_field", repr(name), model.owner, "values='drop'"),
            ),
        )
    for name in fields:
        yield from _check_blocks(model, name, filled.get(name, ()))
        # What is missing in an empty field may stand in one of the unknown: that must be answered first.
        if name in filled or not unknown:
            yield from _check_minimum(model, name, filled.get(name, ()), usage)


def _check_blocks(model: _Model, name: str, filled: Iterable[FilledField]) -> Iterator[Finding]:
    """Find blocks of another kind than a class of the code expects, and more blocks than it takes."""
    strange: Counter[str] = Counter()
    crowded: Counter[str] = Counter()
    for one in filled:
        cls = model.base.__family__.class_for(one.status)
        field = cls.__shape__.blocks[name]
        strange.update(dict.fromkeys(one.blocks - _list_allowed(field), one.count))
        most = field.maximum if field.many else 1
        if most is not None and one.length > most:
            crowded[f"{cls.__name__} takes {most}"] += one.count
    expected = " or ".join(sorted(_list_allowed(model.base.__shape__.blocks[name])))
    for block, count in sorted(strange.items()):
        yield Finding(
            model.field(name),
            f"the code expects {expected}, but blocks {block} stand there",
            count,
            (write_call("rename_product_block", repr(block), "'…'"),),
            "a workflow that takes them out while the code still knows them",
        )
    for limit, count in sorted(crowded.items()):
        yield Finding(
            model.field(name),
            f"{limit}, but there are more",
            count,
            otherwise="a workflow that takes the others out while the code still has room for them",
        )


def _check_minimum(model: _Model, name: str, filled: Collection[FilledField], usage: Usage) -> Iterator[Finding]:
    lacking: Counter[str] = Counter()
    for status, cls, count in model.list_demanding(usage):
        needed = cls.__shape__.blocks[name].starts_with
        enough = sum(one.count for one in filled if one.status == status and one.length >= needed)
        if needed and count > enough:
            lacking[f"{cls.__name__} needs {needed}"] += count - enough
    for need, count in sorted(lacking.items()):
        yield Finding(
            model.field(name),
            f"{need}, but there are fewer",
            count,
            otherwise="a workflow that fills it while the field may be empty in the code",
        )


def _find_unknown_values(
    base: type[DomainModel], block: str, usage: Usage, dropped: Collection[tuple[str, str]]
) -> Iterator[Finding]:
    for name in sorted(usage.values.get(block, {}).keys() - set(base.__shape__.values)):
        if (block, name) not in dropped:
            yield Finding(
                f"the resource type {name} of {block}",
                "the code has no such value, but subscriptions hold some",
                usage.count_values(block, name),
                (write_call("rename_resource_type", repr(name), "'…'", f"block={block!r}"),),
                "--drop-values",
            )


def _find_missing_values(model: _Model, block: str, usage: Usage) -> Iterator[Finding]:
    lacking: Counter[tuple[str, str]] = Counter()
    for status, cls, count in model.list_demanding(usage):
        for name in cls.__shape__.values:
            if cls.model_fields[name].is_required() and name not in cls.__shape__.nullable:
                missing = count - usage.values.get(block, {}).get(name, {}).get(status, 0)
                lacking[name, cls.__name__] += missing
    for (name, cls_name), count in sorted(lacking.items()):
        if count:
            yield Finding(
                f"the resource type {name} of {block}",
                f"{cls_name} needs a value, but there is none",
                count,
                (write_call("fill_values", repr(block), f"{{{name!r}: …}}"),),
            )


def _list_allowed(field: BlockField) -> set[str]:
    """Return the names of the product blocks that may stand in a field."""
    return {one.product_block_name for one in field.classes}
