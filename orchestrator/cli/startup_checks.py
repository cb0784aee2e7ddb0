"""Warn at a program's start about what does not stop it but was probably forgotten."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import structlog

from orchestrator.cli.context import CliContext
from orchestrator.db.registration.catalogue import Catalogue, read_catalogue
from orchestrator.db.revisions import describe_unknown, known_at_start, list_applied
from orchestrator.db.session import Database, get_driver
from orchestrator.domain import SUBSCRIPTION_MODEL_REGISTRY, describe_product
from orchestrator.domain.schema import BlockDefinition
from orchestrator.errors import ConfigurationError
from orchestrator.settings import list_misspelt

logger = structlog.get_logger(__name__)

_SHOWN = 5
"""Unknown things that a line names at most."""


def warn_about_environment() -> None:
    """Log a line for each thing in the environment that was probably not meant: once, however many programs this process runs."""
    for one in list_misspelt():
        logger.warning("no setting has this name; the variable is ignored", variable=one)
    if sys.flags.optimize:
        logger.warning(
            "Python leaves out assert statements (PYTHONOPTIMIZE or -O): validations that use them find nothing wrong"
        )


async def warn_about_project(context: CliContext, database: Database) -> None:
    """Log a line for each thing that was probably forgotten. The user's modules must have been imported."""
    if not context.settings.workflows:
        logger.warning("ORCHESTRATOR_WORKFLOWS is not set: this program knows the engine's own workflows only")
    if await _is_up_to_date(context, database):
        async with database.transaction() as session:
            unknown = _list_unknown(await read_catalogue(session))
        if unknown:
            logger.warning(
                "the models have what the database does not know: run 'orchestrator db migrate-domain-models', then"
                " 'orchestrator db upgrade'",
                unknown=[*unknown[:_SHOWN], *(["…"] if len(unknown) > _SHOWN else [])],
            )


async def _is_up_to_date(context: CliContext, database: Database) -> bool:
    known = known_at_start(context.project)
    async with database.transaction() as session:
        applied = await list_applied(await get_driver(session))
    unknown = known.find_unknown(applied)
    if unknown:
        logger.warning(describe_unknown(unknown, known))
        return False
    if not context.project.is_dir() or known.covers(applied):
        # Programs run without the project's migrations, too; only who upgrades needs them.
        return True
    from orchestrator.db import migrations

    try:
        pending = await migrations.list_pending(database.engine, context.project, alone=False)
    except ConfigurationError as error:
        logger.warning("the project's migrations cannot be compared with the database", error=str(error))
        return True
    if pending:
        logger.warning("some migrations are not applied: run 'orchestrator db upgrade'", pending=pending)
    return not pending


def _list_unknown(stored: Catalogue) -> list[str]:
    """Return what the code has and the database lacks, so that it could not be saved."""
    definitions = [describe_product(name, SUBSCRIPTION_MODEL_REGISTRY[name]) for name in SUBSCRIPTION_MODEL_REGISTRY]
    found = [f"the product {one.name}" for one in definitions if one.name not in stored.products]
    blocks: dict[str, BlockDefinition] = {}
    for one in definitions:
        blocks |= one.blocks
    return sorted(found) + _list_unknown_in_blocks(blocks, stored)


def _list_unknown_in_blocks(blocks: Mapping[str, BlockDefinition], stored: Catalogue) -> list[str]:
    found = []
    for name, block in sorted(blocks.items()):
        known = stored.blocks.get(name)
        if known is None:
            found.append(f"the product block {name}")
        else:
            found += [
                f"the resource type {one} of {name}" for one in block.resource_types if one not in known.resource_types
            ]
    return found
