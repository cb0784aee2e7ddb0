"""Subscriptions of the shared models, made without a database."""

from __future__ import annotations

from uuid import uuid4

from hypothesis import strategies as st

from orchestrator.db.subscriptions import Difference
from orchestrator.domain import ProductModel, SubscriptionModel
from orchestrator.domain.saving import Save, prepare_save
from orchestrator.types import SubscriptionLifecycle
from tests.unit.models import (
    FolderBlockInactive,
    FolderInactive,
    LinkInactive,
    NodeBlockInactive,
    NodeInactive,
    PortBlockInactive,
    Role,
    folder_trees,
)

ACTIVE, INITIAL = SubscriptionLifecycle.ACTIVE, SubscriptionLifecycle.INITIAL
PROVISIONING, TERMINATED = SubscriptionLifecycle.PROVISIONING, SubscriptionLifecycle.TERMINATED


def product(name: str) -> ProductModel:
    return ProductModel(product_id=uuid4(), name=name, description="", product_type="T", tag="", status="active")


def new_node(name: str | None = "ams", ims_id: int | None = 7) -> NodeInactive:
    key = uuid4()
    return NodeInactive(
        subscription_id=key,
        product=product("Node P"),
        customer_id="customer",
        description="a node",
        role=Role.P,
        node=NodeBlockInactive.new(key, node_name=name, ims_id=ims_id),
    )


def new_link() -> LinkInactive:
    key = uuid4()
    return LinkInactive(
        subscription_id=key,
        product=product("Link"),
        customer_id="customer",
        description="a link",
        speed=1000,
        ports=[PortBlockInactive.new(key, vlan=number) for number in (1, 2)],
    )


def new_folders() -> FolderInactive:
    key = uuid4()
    top = FolderBlockInactive.new(key)
    return FolderInactive(subscription_id=key, product=product("Folder"), customer_id="c", description="", top=top)


def saved(*subscriptions: SubscriptionModel) -> None:
    """As if the database had them."""
    for one in subscriptions:
        save = prepare_save(one)
        one.mark_as_stored(save.rows, one.version + 1)
        for block in save.own:
            block.mark_as_stored(save.rows.blocks[block.subscription_instance_id])


def prepare(subscription: SubscriptionModel) -> Save:
    """Check everything that can be checked without a database."""
    save = prepare_save(subscription)
    save.check_shared()
    return save


def found_in(subscription: SubscriptionModel) -> Difference:
    found = prepare(subscription).difference
    assert found is not None
    return found


def folders_of(data: st.DataObject) -> FolderInactive:
    folders = new_folders()
    folders.top = data.draw(folder_trees(folders.subscription_id))
    return folders
