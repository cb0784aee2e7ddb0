"""Start the validation of many subscriptions: a process for each, in the commit of the step that asks for it."""

from __future__ import annotations

from collections import Counter, defaultdict
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.subscriptions.candidates import find_candidates, list_validated_products
from orchestrator.engine.references import SUBSCRIPTION_ID
from orchestrator.engine.usability import usable_statuses
from orchestrator.errors import DefinitionError, RequestError
from orchestrator.registry import plan_of
from orchestrator.services.children import start_processes
from orchestrator.services.subscriptions import rules
from orchestrator.targets import Target
from orchestrator.types import State

_NAMED = 50
"""Products that the state names."""


async def start_validations(session: AsyncSession, product_type: str | None = None) -> State:
    """Start the validate workflow of each subscription that is in sync, and in a status in which that workflow may run.

    Args:
        session: of the step.
        product_type: only subscriptions of products of this type.

    Returns:
        How many were started, by workflow, and how many were not, by reason.
    """
    products: dict[str, set[UUID]] = defaultdict(set)
    without = []
    for product in await list_validated_products(session, product_type):
        if product.workflow is None:
            without.append(product.name)
        else:
            products[product.workflow].add(product.product_id)
    started: Counter[str] = Counter()
    skipped: Counter[str] = Counter()
    broken: dict[str, str] = {}
    for workflow, members in sorted(products.items()):
        found = await find_candidates(
            session, workflow, members, usable_statuses(workflow, Target.VALIDATE, rules()) or ()
        )
        skipped["out_of_sync"] += found.out_of_sync
        skipped["being_validated"] += found.busy
        try:
            _require_validation(workflow)
            outcome = await start_processes(
                session, workflow, {str(one): [{SUBSCRIPTION_ID: str(one)}] for one in found.ready}
            )
        except (RequestError, DefinitionError) as error:
            # The workflow of one product must not keep the others from being validated.
            broken[workflow] = str(error)
            skipped["broken_workflow"] += len(found.ready)
            continue
        started[workflow] += outcome.started
        for reason, count in outcome.refused.items():
            skipped[reason] += count
    return {
        "validations_started": started.total(),
        "started_by_workflow": {workflow: count for workflow, count in started.items() if count},
        "skipped": {reason: count for reason, count in skipped.items() if count},
        "broken_workflows": broken,
        "products_without_validation": without[:_NAMED],
        "products_without_validation_count": len(without),
    }


def _require_validation(workflow: str) -> None:
    target = plan_of(workflow).workflow.target
    if target is not Target.VALIDATE:
        raise DefinitionError(
            f"the workflow {workflow!r} has the target {target.value} in the code, and VALIDATE in the database: it is not"
            " started, because it might change something"
        )
