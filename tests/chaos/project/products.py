"""One product, whose block counts how often it was changed."""

from __future__ import annotations

from orchestrator.domain import SUBSCRIPTION_MODEL_REGISTRY, ProductBlockModel, SubscriptionModel
from orchestrator.types import SubscriptionLifecycle

ACTIVE = [SubscriptionLifecycle.ACTIVE]


class ThingBlockInactive(ProductBlockModel, product_block_name="Thing"):
    changed: int = 0


class ThingBlock(ThingBlockInactive, lifecycle=ACTIVE):
    pass


class ThingInactive(SubscriptionModel, is_base=True):
    thing: ThingBlockInactive


class Thing(ThingInactive, lifecycle=ACTIVE):
    thing: ThingBlock


SUBSCRIPTION_MODEL_REGISTRY["Thing"] = Thing
