"""The classes of models, where orchestrator-core has them, so that ports need no other import.

Only for ports; new code imports them from :mod:`orchestrator.domain`.
"""

from __future__ import annotations

from orchestrator.domain.block import ProductBlockModel
from orchestrator.domain.model import ProductModel
from orchestrator.domain.subscription import SubscriptionModel

__all__ = ["ProductBlockModel", "ProductModel", "SubscriptionModel"]
