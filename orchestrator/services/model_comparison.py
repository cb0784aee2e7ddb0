"""Compare the models of the code with the database, and with what subscriptions have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.registration.catalogue import Catalogue, read_catalogue
from orchestrator.db.registration.usage import count_usage, read_values
from orchestrator.domain import SUBSCRIPTION_MODEL_REGISTRY, describe_product
from orchestrator.errors import ConfigurationError, InvalidInputError
from orchestrator.services.model_catalogue import CataloguePlan, FixedInputs, build_catalogue, plan_catalogue
from orchestrator.services.model_drift import Finding, find_drift
from orchestrator.services.unfit_values import UnfitValues


@dataclass(frozen=True, slots=True)
class ModelComparison:
    """What the database has, what it is to have, and why subscriptions could not be loaded then."""

    stored: Catalogue
    plan: CataloguePlan
    drift: Sequence[Finding]


async def compare_models(session: AsyncSession, given: FixedInputs, *, drop_values: bool) -> ModelComparison:
    """Compare the models in SUBSCRIPTION_MODEL_REGISTRY with the database.

    Args:
        given: values of fixed inputs that the code leaves open.
        drop_values: whether values that the code no longer knows are to go.

    Raises:
        ConfigurationError: the registry is empty, but the database has products.
        InvalidInputError: values of fixed inputs are missing or wrong; the text names each.
    """
    definitions = [describe_product(name, SUBSCRIPTION_MODEL_REGISTRY[name]) for name in SUBSCRIPTION_MODEL_REGISTRY]
    stored = await read_catalogue(session)
    if stored.products and not definitions:
        raise ConfigurationError(
            "no module of ORCHESTRATOR_WORKFLOWS puts anything into SUBSCRIPTION_MODEL_REGISTRY, but the database has products:"
            " name the modules with the models"
        )
    wanted, problems = build_catalogue(definitions, stored, given)
    if problems:
        raise InvalidInputError("; ".join(problems))
    usage = await count_usage(session)
    plan = plan_catalogue(stored, wanted, usage, drop_values=drop_values)
    unfit = UnfitValues(definitions, plan.dropped)
    async for value in read_values(session):
        unfit.add(value)
    return ModelComparison(
        stored, plan, [*find_drift(definitions, stored, usage, plan.dropped), *unfit.list_findings()]
    )
