"""Subscriptions and their product blocks: models that authors write, loaded and saved through the database layer."""

from __future__ import annotations

from orchestrator.db.subscriptions import BlockReference
from orchestrator.db.subscriptions.neighbours import SubscriptionReference
from orchestrator.domain.block import ProductBlockModel
from orchestrator.domain.definition import SUBSCRIPTION_MODEL_REGISTRY
from orchestrator.domain.diff import explain
from orchestrator.domain.loading import load_stored
from orchestrator.domain.model import ProductModel
from orchestrator.domain.schema import describe_product
from orchestrator.domain.subscription import SubscriptionModel, flat

__all__ = [
    "SUBSCRIPTION_MODEL_REGISTRY",
    "BlockReference",
    "ProductBlockModel",
    "ProductModel",
    "SubscriptionModel",
    "SubscriptionReference",
    "describe_product",
    "explain",
    "flat",
    "load_stored",
]
