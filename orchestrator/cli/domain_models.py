"""``orchestrator db migrate-domain-models``: the migration that leads from the database's catalogue to the code's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated

import typer

from orchestrator.cli.context import REFUSED, CliContext, execute
from orchestrator.cli.migrations import require_applied, require_modules, tell_written, write_calls
from orchestrator.cli.options import AsJson, checked_text
from orchestrator.cli.output import clean
from orchestrator.db.registration.autogenerate import catalogue_calls
from orchestrator.db.registration.catalogue import Block, Catalogue, Product, stored_catalogue
from orchestrator.db.registration.usage import Holdings, Kind, stored_holdings
from orchestrator.domain import SUBSCRIPTION_MODEL_REGISTRY, describe_product
from orchestrator.domain.fixed_inputs import explain_mismatch
from orchestrator.domain.schema import FixedInputDefinition, ProductDefinition
from orchestrator.errors import ConfigurationError
from orchestrator.services.model_drift import Finding, unloadable

_OPTION = "--fixed-input"

FixedInputs = Mapping[tuple[str, str], str]
"""Product and name of a fixed input -> the value that the command line gives."""


def migrate_domain_models(
    message: Annotated[
        str, typer.Option("--message", "-m", metavar="TEXT", callback=checked_text, help="What the revision is for.")
    ] = "domain models",
    fixed_input: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PRODUCT:NAME=VALUE",
            callback=checked_text,
            help="A product's fixed input, where the code does not say what it is; repeat it for each.",
        ),
    ] = None,
    drop_values: Annotated[
        bool,
        typer.Option(
            "--drop-values", metavar="", help="Also remove resource types of which subscriptions hold values."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write the migration that makes the database know the products and blocks of SUBSCRIPTION_MODEL_REGISTRY, and no others.

    Nothing that subscriptions hold is deleted unless you say so: a product with subscriptions is retired; a block that
    subscriptions have, or a resource type of which they hold values, is left as it is and listed.

    Subscriptions that the models cannot load are listed, with what to write; then the exit code is 1.

    Review the file, then apply it with: orchestrator db upgrade

    Example: orchestrator db migrate-domain-models --fixed-input "Node P:role=P"
    """
    given = _read_fixed_inputs(fixed_input or [])

    async def body(context: CliContext) -> int:
        require_modules(context)
        context.learn_workflows()
        definitions = [
            describe_product(name, SUBSCRIPTION_MODEL_REGISTRY[name]) for name in SUBSCRIPTION_MODEL_REGISTRY
        ]
        async with context.database() as database:
            await require_applied(context, database)
            async with database.transaction() as session:
                stored = await stored_catalogue(session)
                if stored.products and not definitions:
                    raise ConfigurationError(
                        "no module of ORCHESTRATOR_WORKFLOWS puts anything into SUBSCRIPTION_MODEL_REGISTRY, but the database"
                        " has products: name the modules with the models"
                    )
                holdings = await stored_holdings(session)
        wanted = coded_catalogue(definitions, stored, given)
        plan = sparing(stored, wanted, holdings, drop_values=drop_values)
        plan.unloadable += unloadable(definitions, stored, holdings, plan.dropped)
        _write(context, message, stored, plan)
        return REFUSED if plan.unloadable else 0

    execute(body, as_json=as_json)


@dataclass(slots=True)
class Plan:
    """What the database shall have, and what is spared although the code no longer has it.

    Args:
        dropped: pairs of block and resource type whose values go.
        left_out: why something stays, in words.
        unloadable: why subscriptions cannot be loaded.
    """

    catalogue: Catalogue
    dropped: set[tuple[str, str]] = field(default_factory=set)
    left_out: list[str] = field(default_factory=list)
    unloadable: list[Finding] = field(default_factory=list)


def coded_catalogue(definitions: Iterable[ProductDefinition], stored: Catalogue, given: FixedInputs) -> Catalogue:
    """The catalogue that the code asks for; what people have written about things in the database is kept.

    Raises:
        typer.BadParameter: a fixed input has no value, or is given one that it cannot have.
    """
    products: dict[str, Product] = {}
    blocks: dict[str, Block] = {}
    problems: list[str] = []
    unused = dict(given)
    for one in definitions:
        inputs = {}
        known = stored.products.get(one.name)
        for name, definition in one.fixed_inputs.items():
            was = known.fixed_inputs.get(name) if known else None
            value = unused.pop((one.name, name), None)
            if value is None and _value(definition, was) is None and not one.base.model_fields[name].is_required():
                continue
            problem = _problem(one, name, definition, was, value)
            if problem:
                problems.append(problem)
            inputs[name] = value or _value(definition, was) or ""
        kind = one.base.__name__.removesuffix("Inactive") or one.base.__name__
        products[one.name] = Product(
            one.name,
            kind,
            _first_line(one.base.__family__.classes),
            kind.upper(),
            inputs,
            frozenset(one.root_blocks),
            # What was retired because the code lacked it is reinstated; what people have retired stays so.
            retired=known is not None and known.retired and known.for_good,
        )
        for name, block in one.blocks.items():
            blocks[name] = Block(
                name,
                _first_line(block.base.__family__.classes),
                name.upper(),
                frozenset(block.resource_types),
                frozenset(block.depends_on),
            )
    problems += [
        f"the model of the product {product!r} has no fixed input {name!r}"
        if product in products
        else f"SUBSCRIPTION_MODEL_REGISTRY has no product {product!r} (there are {', '.join(sorted(products)) or 'none'})"
        for product, name in unused
    ]
    if problems:
        raise typer.BadParameter("; ".join(problems), param_hint=_OPTION)
    return Catalogue(products, blocks)


def _value(definition: FixedInputDefinition, was: str | None) -> str | None:
    """What a fixed input is when the command line does not say it."""
    if definition.values is not None and len(definition.values) == 1:
        return definition.values[0]
    if was is not None:
        return was
    return definition.default


def _problem(
    product: ProductDefinition, name: str, definition: FixedInputDefinition, was: str | None, given: str | None
) -> str | None:
    possible = definition.values
    value = _value(definition, was) if given is None else given
    choice = "" if possible is None else f" (one of {', '.join(possible)})"
    option = f'{_OPTION} "{product.name}:{name}=…"'
    if value is None:
        return f"the product {product.name!r} needs a value of {name!r}{choice}: {option}"
    if possible is not None and value not in possible:
        return f"{name!r} of the product {product.name!r} cannot be {value!r}{choice}: {option}"
    for one in product.base.__family__.classes:
        why = explain_mismatch(one.model_fields[name], value)
        if why is not None:
            return (
                f"{name!r} of the product {product.name!r} cannot be {value!r}, says {one.__name__} ({why}): {option}"
            )
    return None


def sparing(stored: Catalogue, wanted: Catalogue, holdings: Holdings, *, drop_values: bool) -> Plan:
    """The catalogue that the code asks for, and what must stay because subscriptions hold it."""
    products, blocks = dict(wanted.products), dict(wanted.blocks)
    plan = Plan(Catalogue(products, blocks))
    needed: set[str] = set()
    for name, product in stored.products.items():
        kind = Kind(name, is_product=True)
        if name in products:
            held = stored.products[name].blocks & holdings.standing_in(kind)
            products[name] = replace(products[name], blocks=products[name].blocks | held)
        elif holdings.count(kind):
            products[name] = product if product.retired else replace(product, retired=True, for_good=False)
            needed |= product.blocks
    for name in stored.blocks:
        count = 0 if name in blocks or name in needed else holdings.count(Kind(name))
        if count:
            needed.add(name)
            plan.left_out.append(f"the product block {name}: subscriptions have {count}, terminated ones included")
    for name in stored.reachable(needed):
        blocks.setdefault(name, stored.blocks[name])
    for name in sorted(stored.blocks.keys() & blocks.keys()):
        standing = stored.blocks[name].depends_on & holdings.standing_in(Kind(name)) & blocks.keys()
        blocks[name] = replace(blocks[name], depends_on=blocks[name].depends_on | standing)
        for one in sorted(stored.blocks[name].resource_types - blocks[name].resource_types):
            count = holdings.count_values(name, one)
            if count and drop_values:
                plan.dropped.add((name, one))
            elif count:
                blocks[name] = replace(blocks[name], resource_types=blocks[name].resource_types | {one})
    return plan


def _write(context: CliContext, message: str, stored: Catalogue, plan: Plan) -> None:
    after = plan.catalogue
    helpers = sorted({name for one in plan.unloadable for name in one.helpers})
    remarks = [line for one in plan.unloadable if one.calls for line in one.remarks]
    path = write_calls(
        context.project,
        message,
        catalogue_calls(stored, after, plan.dropped),
        catalogue_calls(after, stored),
        [_OPEN, *remarks] if remarks else (),
        helpers,
    )
    added = _only_in(after, stored)
    removed = _only_in(stored, after)
    changed = _changes(stored, after, plan.dropped)
    context.output.document(
        {
            "path": path,
            "added": added,
            "removed": removed,
            "changed": changed,
            "left_out": plan.left_out,
            "unloadable": [str(one) for one in plan.unloadable],
        }
    )
    for word, some in (("adds", added), ("removes", removed), ("changes", changed), ("leaves out", plan.left_out)):
        for one in some:
            context.output.line(f"{word} {clean(one)}")
    if path is not None:
        tell_written(context, path)
    else:
        same = "the database has the products and blocks of the code"
        context.output.line(f"nothing to {'write' if plan.unloadable else 'do'}: {same}")
    if plan.unloadable:
        _tell_unloadable(context, plan.unloadable, helpers, is_written=path is not None)


def _tell_unloadable(context: CliContext, findings: list[Finding], helpers: list[str], *, is_written: bool) -> None:
    context.output.line(("but these models cannot load all subscriptions that there are:", "red"))
    for one in findings:
        context.output.line(f"  • {clean(str(one))}")
    if not helpers:
        return
    if is_written:
        context.output.line(("that file has these calls as comments: complete those that fit and let them run", "dim"))
        for swap in dict.fromkeys(swap for one in findings for swap in one.swaps):
            context.output.line((clean(swap), "dim"))
    else:
        imports = f"from orchestrator.db.registration import {', '.join(helpers)}"
        context.output.line(
            (f"write the calls that fit into a file that 'orchestrator db revision' makes, with {imports}", "dim")
        )
    context.output.line(("then apply it, and run this again", "dim"))


_OPEN = "These models cannot load all subscriptions that there are. Complete the calls that fit, and let them run:"


def _only_in(one: Catalogue, other: Catalogue) -> list[str]:
    return [
        *(f"the product {name}" for name in sorted(one.products.keys() - other.products.keys())),
        *(f"the product block {name}" for name in sorted(one.blocks.keys() - other.blocks.keys())),
        *(
            f"the resource type {name}"
            for name in sorted(one.idle_types.keys() - other.idle_types.keys())
            if not any(name in block.resource_types for block in other.blocks.values())
        ),
    ]


def _changes(before: Catalogue, after: Catalogue, dropped: set[tuple[str, str]]) -> list[str]:
    """Each thing that is in both and differs, with the differences."""
    found = []
    for name in sorted(before.products.keys() & after.products.keys()):
        old, new = before.products[name], after.products[name]
        inputs = [f"{key}={value}" for key, value in new.fixed_inputs.items() if old.fixed_inputs.get(key) != value]
        inputs += [f"-{key}" for key in sorted(old.fixed_inputs.keys() - new.fixed_inputs.keys())]
        inputs += _signed(old.blocks, new.blocks)
        if new.retired and not old.retired:
            inputs.append("retired, because it has subscriptions")
        if old.retired and not new.retired:
            inputs.append("reinstated, because the code has it again")
        if inputs:
            found.append(f"the product {name}: {', '.join(inputs)}")
    for name in sorted(before.blocks.keys() & after.blocks.keys()):
        was, now = before.blocks[name], after.blocks[name]
        parts = _signed(was.resource_types, now.resource_types) + _signed(was.depends_on, now.depends_on)
        parts = [f"{part} with its values" if (name, part.removeprefix("-")) in dropped else part for part in parts]
        if parts:
            found.append(f"the product block {name}: {', '.join(parts)}")
    return found


def _signed(old: frozenset[str], new: frozenset[str]) -> list[str]:
    return [*(f"+{one}" for one in sorted(new - old)), *(f"-{one}" for one in sorted(old - new))]


def _read_fixed_inputs(written: list[str]) -> dict[tuple[str, str], str]:
    given = {}
    for text in written:
        place, equals, value = text.partition("=")
        product, colon, name = place.rpartition(":")
        if not (equals and colon and product and name and value):
            raise typer.BadParameter(f'{text!r} is not PRODUCT:NAME=VALUE, such as "Node P:role=P"', param_hint=_OPTION)
        given[product, name] = value
    return given


def _first_line(classes: Iterable[type]) -> str:
    """The first line of the first docstring among these classes; inherited ones tell of the engine's own."""
    for one in classes:
        lines = (one.__dict__.get("__doc__") or "").strip().splitlines()
        if lines:
            return str(lines[0]).strip()
    return ""
