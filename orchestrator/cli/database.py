"""Commands about the database: ``orchestrator db …``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated

import typer

from orchestrator.cli.context import CliContext, execute
from orchestrator.cli.migrations import (
    report_written,
    require_applied,
    require_modules,
    write,
    write_calls,
    write_merge,
)
from orchestrator.cli.options import AsJson, check_text
from orchestrator.cli.output import clean
from orchestrator.db import migrations
from orchestrator.db.registration.autogenerate import Linked, diff_workflows, refuse_second_workflows
from orchestrator.db.registration.catalogue import read_catalogue, read_links
from orchestrator.db.revisions import known_at_start, list_applied
from orchestrator.db.session import Database, get_driver
from orchestrator.db.status import list_consumers
from orchestrator.db.workflows import list_workflows
from orchestrator.errors import ConfigurationError
from orchestrator.registry import known_workflows, products_of, ships_with_engine
from orchestrator.services.registrations import describe_workflow
from orchestrator.targets import Target

Message = Annotated[
    str, typer.Option("--message", "-m", metavar="TEXT", callback=check_text, help="What the revision is for.")
]


def upgrade(as_json: AsJson = False) -> None:
    """Apply all migrations, the engine's and your own, that are not applied yet. Repeating it is harmless.

    Afterwards every product has the workflows of DEFAULT_PRODUCT_WORKFLOWS. Names the consumers that run and are too old to run
    beside this version.
    """

    async def body(context: CliContext) -> None:
        defaults = context.settings.default_product_workflows
        async with context.database() as database:
            done = await migrations.upgrade(database.engine, context.project, defaults)
            async with database.transaction() as session:
                known = {one.name for one in await list_workflows(session)}
                consumers = await list_consumers(await get_driver(session))
        files = known_at_start(context.project)
        old = [one.name for one in consumers if one.alive and files.must_stop(one.revisions)]
        unknown = [name for name in defaults if name not in known]
        for revision, what in done.applied:
            summary = clean(what).replace("``", "'")
            context.output.line(f"applied {clean(revision)}  {summary}")
        context.output.line(f"the database is up to date: {', '.join(done.heads)}")
        for name in unknown:
            context.output.line(
                (
                    f"no migration has registered {clean(name)} of DEFAULT_PRODUCT_WORKFLOWS yet: no product has it",
                    "dim",
                )
            )
        if old:
            text = (
                f"consumers of an older version still run: {clean(', '.join(old))}. They cannot read what this version writes."
                " Stop them before you start programs of this version: beside these their steps lack values of large states,"
                " or take defaults in place of them"
            )
            context.output.prose((text, "red"))
        applied = [{"revision": revision, "description": what} for revision, what in done.applied]
        context.output.document(
            {
                "applied": applied,
                "heads": done.heads,
                "unregistered_default_workflows": unknown,
                "consumers_to_stop": old,
            }
        )

    execute(body, as_json=as_json)


def downgrade(
    revision: Annotated[
        str,
        typer.Argument(metavar="REVISION", help="The revision to go back to; 'base' undoes all.", callback=check_text),
    ],
    as_json: AsJson = False,
) -> None:
    """Undo migrations, with the data that their tables hold.

    Example: orchestrator db downgrade project@base
    """

    async def body(context: CliContext) -> None:
        async with context.database() as database:
            heads = await migrations.downgrade(database.engine, context.project, revision)
        context.output.line(f"in force now: {', '.join(heads) or 'nothing'}")
        context.output.document({"heads": heads})

    execute(body, as_json=as_json)


def revision(message: Message, as_json: AsJson = False) -> None:
    """Write an empty migration into your project's folder (ORCHESTRATOR_MIGRATIONS)."""

    async def body(context: CliContext) -> None:
        path = write(context.project, message)
        context.output.line(f"written: {clean(path)}")
        context.output.document({"path": path})

    execute(body, as_json=as_json)


def merge(message: Message, as_json: AsJson = False) -> None:
    """Write the migration that joins two heads of your project's migrations, written side by side, into one.

    It changes nothing in the database. Your own only; the engine's have one head.

    Example: orchestrator db merge -m "merge vlans and racks"
    """

    async def body(context: CliContext) -> None:
        path = write_merge(context.project, message)
        context.output.document({"path": path})
        report_written(context, path)

    execute(body, as_json=as_json)


def migrate_workflows(message: Message = "register workflows", as_json: AsJson = False) -> None:
    """Write the migration that makes the database know the workflows of the code, and no others.

    A workflow whose LazyWorkflowInstance names products is linked to these, and to no others. Descriptions that the code does not
    have are left as they are.

    Review the file, then apply it with: orchestrator db upgrade
    """

    async def body(context: CliContext) -> None:
        require_modules(context)
        context.load_workflows()
        defaults = context.settings.default_product_workflows
        async with context.database() as database:
            before, products = await _read_workflows(database)
            await require_applied(context, database)
        after = _collect_workflows(before, products, defaults)
        shipped = {name: one for name, one in before.items() if _is_shipped(name)}
        refuse_second_workflows(_add_defaults(shipped | after, products, defaults))
        before = {name: one for name, one in before.items() if not _is_shipped(name)}
        path = write_calls(context.project, message, diff_workflows(before, after), diff_workflows(after, before))
        added = [name for name in sorted(after) if name not in before]
        removed = [name for name in sorted(before) if name not in after]
        changed = [name for name in sorted(after) if name in before and after[name] != before[name]]
        context.output.document({"path": path, "added": added, "removed": removed, "changed": changed})
        if path is None:
            context.output.line("nothing to do: code and database know the same workflows")
            return
        registrations = [name for name in changed if after[name].registration != before[name].registration]
        for word, some in (("adds", added), ("removes", removed), ("changes", registrations)):
            if some:
                context.output.line(f"{word} {', '.join(map(clean, some))}")
        for name in sorted(after):
            old = before[name].products if name in before else frozenset()
            for word, links in (("links", after[name].products - old), ("unlinks", old - after[name].products)):
                if links:
                    context.output.line(f"{word} {clean(name)}: {', '.join(map(clean, sorted(links)))}")
        report_written(context, path)

    execute(body, as_json=as_json)


def status(as_json: AsJson = False) -> None:
    """Show which migrations are applied and which are not. Exits with 1 when some are missing."""

    async def body(context: CliContext) -> int:
        async with context.database() as database:
            async with database.transaction() as session:
                applied = await list_applied(await get_driver(session))
            missing = await migrations.list_pending(database.engine, context.project)
        context.output.line(f"applied: {', '.join(applied) or 'nothing'}")
        context.output.line(f"pending: {', '.join(missing) or 'nothing'}")
        if missing:
            context.output.line(("apply them with: orchestrator db upgrade", "dim"))
        context.output.document({"applied": applied, "pending": missing})
        return 1 if missing else 0

    execute(body, as_json=as_json)


async def _read_workflows(database: Database) -> tuple[dict[str, Linked], set[str]]:
    """Return the workflows in the database with their products, and the names of all products."""
    async with database.transaction() as session:
        links = await read_links(session)
        stored = {one.name: Linked(one, links.get(one.name, frozenset())) for one in await list_workflows(session)}
        return stored, set((await read_catalogue(session)).products)


def _collect_workflows(
    stored: Mapping[str, Linked], products: set[str], defaults: tuple[str, ...]
) -> dict[str, Linked]:
    """Return the workflows of the code, each with the products that it is to have."""
    coded: dict[str, Linked] = {}
    for name in known_workflows():
        if _is_shipped(name):
            continue
        known = stored.get(name)
        registration = describe_workflow(name, known.registration if known else None)
        kept = known.products if known else frozenset()
        declared = frozenset(products_of(name))
        if declared and registration.target == Target.SYSTEM:
            raise ConfigurationError(
                f"the task {name!r} has the target SYSTEM and so belongs to no product, but its LazyWorkflowInstance names"
                f" {', '.join(map(repr, sorted(declared)))}"
            )
        unknown = sorted(declared - products)
        if unknown:
            raise ConfigurationError(
                f"the LazyWorkflowInstance of {name!r} names the product {unknown[0]!r}, which the database does not have:"
                " run 'orchestrator db migrate-domain-models' and 'orchestrator db upgrade' first, or correct the name"
            )
        # Default workflows are linked to all products by each upgrade, whatever else names products.
        coded[name] = Linked(registration, declared | kept if name in defaults or not declared else declared)
    return coded


def _add_defaults(workflows: Mapping[str, Linked], products: set[str], defaults: tuple[str, ...]) -> dict[str, Linked]:
    """Return the workflows as the next upgrade leaves them."""
    return {
        name: replace(one, products=frozenset(products)) if name in defaults else one for name, one in workflows.items()
    }


def _is_shipped(name: str) -> bool:
    """Return whether the engine's own migrations register it, so that a project's do not touch it."""
    return name in known_workflows() and ships_with_engine(name)
