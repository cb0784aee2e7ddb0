"""What forms and steps share."""

from collections.abc import Generator, Sequence
from typing import Any

from pydantic import ConfigDict
from sqlalchemy import select
from sqlalchemy.orm import Session

from examples.ported.products.product_types.node import Node
from examples.ported.services import inventory
from orchestrator.db.tables import ProductRow as ProductTable
from orchestrator.db.tables import SubscriptionRow as SubscriptionTable
from orchestrator.forms import FormPage
from orchestrator.forms.validators import Choice, MigrationSummary, migration_summary
from orchestrator.types import SubscriptionLifecycle, SummaryData, UUIDstr


def subscriptions_by_product_type(
    session: Session, product_type: str, status: list[SubscriptionLifecycle]
) -> Sequence[SubscriptionTable]:
    """Read the subscriptions of a type of product."""
    query = (
        select(SubscriptionTable)
        .join(ProductTable, ProductTable.product_id == SubscriptionTable.product_id)
        .where(ProductTable.product_type == product_type, SubscriptionTable.status.in_(status))
        .order_by(SubscriptionTable.description)
    )
    return session.scalars(query).all()


def node_selector(session: Session, enum: str = "NodesEnum") -> type[Choice]:
    """Offer the nodes that are in service."""
    nodes = subscriptions_by_product_type(session, "Node", [SubscriptionLifecycle.ACTIVE])
    options = {str(node.subscription_id): node.description for node in nodes}
    return Choice(enum, zip(options.keys(), options.items(), strict=True))  # type: ignore[arg-type]


def free_port_selector(session: Session, node_subscription_id: UUIDstr, enum: str = "PortsEnum") -> type[Choice]:
    """Offer the ports of a node that the inventory has and no subscription."""
    node = Node.from_subscription(session, node_subscription_id)
    device = inventory.get("devices", node.node.ims_id)
    ports = subscriptions_by_product_type(
        session, "Port", [SubscriptionLifecycle.PROVISIONING, SubscriptionLifecycle.ACTIVE]
    )
    taken = {port.description for port in ports}
    options = {name: name for name in device["ports"] if f"{node.node.node_name} {name}" not in taken}
    return Choice(enum, zip(options.keys(), options.items(), strict=True))  # type: ignore[arg-type]


def summary_form(product_name: str, data: SummaryData) -> Generator[type[FormPage], FormPage, None]:
    """Show what was filled in."""
    ProductSummary: type[MigrationSummary] = migration_summary(data)  # noqa: N806

    class SummaryForm(FormPage):
        model_config = ConfigDict(title=f"{product_name} summary")

        product_summary: ProductSummary  # type: ignore[valid-type]

    yield SummaryForm


def create_summary_form(
    user_input: dict[str, Any], product_name: str, fields: list[str]
) -> Generator[type[FormPage], FormPage, None]:
    """Show what was filled in for something new."""
    columns = [[str(user_input[name]) for name in fields]]
    yield from summary_form(product_name, SummaryData(labels=fields, headers=[], columns=columns))
