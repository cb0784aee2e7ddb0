"""Compare what the code registers with what the database has: workflows, their products, and the models of these."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping

from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.registration.catalogue import Catalogue, read_catalogue, read_links
from orchestrator.db.workflows import Registration, list_workflows
from orchestrator.errors import ConfigurationError, DefinitionError, InvalidInputError
from orchestrator.registry import known_workflows, plan_of, products_of
from orchestrator.services.model_catalogue import list_changes, list_missing
from orchestrator.services.model_comparison import compare_models
from orchestrator.targets import Target

EXPECTED = (Target.CREATE, Target.MODIFY, Target.TERMINATE, Target.VALIDATE)
"""What every product that can be ordered has at least one workflow for."""

_WORKFLOWS = "'orchestrator db migrate-workflows' writes the migration"
_MODELS = "'orchestrator db migrate-domain-models' writes the migration"

Links = Mapping[str, frozenset[str]]
"""Workflow → the products that it is linked to."""


def describe_workflow(name: str, stored: Registration | None = None) -> Registration:
    """Return a workflow as the code knows it.

    Args:
        stored: as the database knows it; its description is kept where the code has none.

    Raises:
        DefinitionError: its module is broken.
    """
    workflow = plan_of(name).workflow
    description = workflow.description if stored is None or workflow.is_described else stored.description
    return Registration(name, workflow.target.value, workflow.is_task, description)


async def find_disagreements(session: AsyncSession, defaults: Collection[str]) -> list[str]:
    """Return each point in which code and database disagree, or a product is incomplete, with what to do about it.

    Args:
        defaults: the workflows that all products are to have.
    """
    stored = {one.name: one for one in await list_workflows(session)}
    catalogue, links = await read_catalogue(session), await read_links(session)
    return [
        *_compare_workflows(stored),
        *_compare_links(stored, catalogue, links, defaults),
        *_find_incomplete(stored, catalogue, links),
        *await _compare_models(session),
    ]


def _compare_workflows(stored: Mapping[str, Registration]) -> Iterator[str]:
    coded = set(known_workflows())
    for name in sorted(coded - stored.keys()):
        yield f"the workflow {name!r} is in the code but not in the database: {_WORKFLOWS}"
    for name in sorted(stored.keys() - coded):
        yield (
            f"the workflow {name!r} is in the database but not in the code: put its LazyWorkflowInstance back, or {_WORKFLOWS}"
            " that removes it"
        )
    # One broken module may hold many workflows.
    broken: dict[str, list[str]] = defaultdict(list)
    for name in sorted(coded):
        try:
            described = describe_workflow(name, stored.get(name))
        except DefinitionError as error:
            broken[" ".join(str(error).split())].append(name)
            continue
        if name in stored:
            yield from _compare_registrations(described, stored[name])
    for defect, names in broken.items():
        yield f"the code of {_name(names, 'workflow')} is broken: {defect}"


def _compare_registrations(coded: Registration, stored: Registration) -> Iterator[str]:
    differences = [
        f"{what} {ours!r} in the code and {theirs!r} in the database"
        for what, ours, theirs in (
            ("target", coded.target, stored.target),
            ("is_task", coded.is_task, stored.is_task),
            ("description", coded.description, stored.description),
        )
        if ours != theirs
    ]
    if differences:
        yield f"the workflow {coded.name!r} has {', '.join(differences)}: {_WORKFLOWS}"


def _compare_links(
    stored: Mapping[str, Registration], catalogue: Catalogue, links: Links, defaults: Collection[str]
) -> Iterator[str]:
    for name in sorted(stored.keys() & set(known_workflows())):
        linked = links.get(name, frozenset())
        if name in defaults:
            lacking = catalogue.products.keys() - linked
            if lacking:
                yield (
                    f"the workflow {name!r} is one of DEFAULT_PRODUCT_WORKFLOWS, but not linked to {_name(lacking, 'product')}:"
                    " run 'orchestrator db upgrade'"
                )
            continue
        declared = frozenset(products_of(name))
        if not declared:
            continue  # migrations alone say which products have it
        if declared - linked:
            some = _name(declared - linked, "product")
            yield f"the LazyWorkflowInstance of {name!r} names {some}, which the database does not link to it: {_WORKFLOWS}"
        if linked - declared:
            some = _name(linked - declared, "product")
            yield f"the database links {name!r} to {some}, which its LazyWorkflowInstance does not name: {_WORKFLOWS}"


def _find_incomplete(stored: Mapping[str, Registration], catalogue: Catalogue, links: Links) -> Iterator[str]:
    kinds: dict[str, set[str]] = defaultdict(set)
    for workflow, linked in links.items():
        for one in linked:
            kinds[one].add(stored[workflow].target)
    for name, product in sorted(catalogue.products.items()):
        lacking = [target.value for target in EXPECTED if target.value not in kinds[name]]
        if lacking and not product.retired:
            yield (
                f"the product {name!r} has no workflow for {', '.join(lacking)}: name the product in the LazyWorkflowInstance of"
                f" one; {_WORKFLOWS}. Or retire the product"
            )


async def _compare_models(session: AsyncSession) -> list[str]:
    try:
        found = await compare_models(session, {}, drop_values=False)
    except (ConfigurationError, InvalidInputError) as error:
        return [f"the models cannot be compared with the database: {error}"]
    stored, wanted = found.stored, found.plan.catalogue
    return [
        *(f"{one} is in the code but not in the database: {_MODELS}" for one in list_missing(wanted, stored)),
        *(f"{one} is in the database but no longer in the code: {_MODELS}" for one in list_missing(stored, wanted)),
        *(
            f"the code differs from the database in {one}: {_MODELS}"
            for one in list_changes(stored, wanted, found.plan.dropped)
        ),
        *(f"subscriptions cannot be loaded: {one}" for one in found.drift),
    ]


def _name(names: Collection[str], kind: str) -> str:
    """Return ``the product 'a'``, or ``the products 'a', 'b'``."""
    return f"the {kind}{'' if len(names) == 1 else 's'} {', '.join(map(repr, sorted(names)))}"
