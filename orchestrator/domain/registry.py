"""Which model each product has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from orchestrator.domain.model import DomainModel, Subscription, is_same_place
from orchestrator.errors import DefinitionError, ModelError
from orchestrator.types import SubscriptionLifecycle


class SubscriptionModelRegistry(dict[str, type[Subscription]]):
    """A dict from the names of products to their models, any class of the model's family; it checks what is put in.

    Raises:
        DefinitionError: what is put in is no model of a subscription, or the product has another one already.
    """

    def __setitem__(self, product: str, model: type[Subscription]) -> None:
        if not isinstance(product, str) or not product:
            raise DefinitionError(
                f"SUBSCRIPTION_MODEL_REGISTRY maps names of products to their models, not {product!r}"
            )
        what = f"SUBSCRIPTION_MODEL_REGISTRY[{product!r}]"
        is_model = isinstance(model, type) and issubclass(model, DomainModel) and hasattr(model, "__family__")
        if not is_model or model.reference_key != "subscription_id":
            raise DefinitionError(f"{what} is {model!r}: put in a class that derives from SubscriptionModel")
        known = self.get(product)
        if known is not None and not is_same_place(known.__family__.base, model.__family__.base):
            raise DefinitionError(f"{what} is {known.__name__} already, and cannot be {model.__name__} as well")
        super().__setitem__(product, model)

    def update(self, *models: Any, **more: Any) -> None:
        for product, model in dict(*models, **more).items():
            self[product] = model

    def setdefault(self, product: str, model: Any = None) -> Any:
        if product not in self:
            self[product] = model
        return self[product]

    def __ior__(self, models: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> Any:  # type: ignore[override,misc]
        self.update(models)
        return self


SUBSCRIPTION_MODEL_REGISTRY = SubscriptionModelRegistry()
"""The model of each product, by the product's name. Projects fill it where they define their models."""


def model_of(product: str, status: SubscriptionLifecycle | str) -> type[Subscription]:
    """The class of a product's subscriptions of this status.

    Raises:
        ModelError: no model is registered for the product.
    """
    registered = SUBSCRIPTION_MODEL_REGISTRY.get(product)
    if registered is None:
        known = ", ".join(sorted(SUBSCRIPTION_MODEL_REGISTRY)) or "none"
        raise ModelError(
            f"no model is registered for the product {product!r}: add it to SUBSCRIPTION_MODEL_REGISTRY in a module of"
            f" ORCHESTRATOR_WORKFLOWS (registered: {known})"
        )
    return registered.__family__.class_for(status)
