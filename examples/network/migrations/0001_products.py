"""The network's products and what they are made of.

Written by ``orchestrator db migrate-domain-models``, which asks for the values of fixed inputs that the code leaves open:

    orchestrator db migrate-domain-models -m "the network's products" \
        --fixed-input "Node Cisco:vendor=Cisco" --fixed-input "Node Nokia:vendor=Nokia" \
        --fixed-input "Port 10G:speed=10" --fixed-input "Port 100G:speed=100"

and tidied by hand: descriptions, and things in the order in which people think of them.

Revision ID: network0001
Revises:
Create Date: 2026-11-23
"""

from __future__ import annotations

from alembic import op

from orchestrator.db.registration import register_product, register_product_block, remove_product, remove_product_block

revision = "network0001"
down_revision = None
branch_labels = ("project",)
depends_on = "0002"  # the engine's tables must be there first


def upgrade() -> None:
    """Apply."""
    register_product_block(
        op.get_bind(),
        name="Node",
        description="A router.",
        tag="NODE",
        resource_types=["node_name", "role", "management_address", "controller_id"],
    )
    register_product_block(
        op.get_bind(),
        name="Port",
        description="A place on a node.",
        tag="PORT",
        resource_types=["port_name", "enabled", "controller_id"],
        depends_on=["Node"],
    )
    register_product_block(
        op.get_bind(),
        name="Core link",
        description="A fibre between two ports.",
        tag="CORE",
        resource_types=["ipv6_prefix", "isis_metric", "controller_id"],
        depends_on=["Port"],
    )
    register_product_block(
        op.get_bind(),
        name="Attachment",
        description="One end of a circuit: a VLAN on a port.",
        tag="ATTACHMENT",
        resource_types=["vlan"],
        depends_on=["Port"],
    )
    register_product_block(
        op.get_bind(),
        name="Circuit",
        description="What joins the ends.",
        tag="CIRCUIT",
        resource_types=["controller_id"],
        depends_on=["Attachment"],
    )
    for vendor in ("Cisco", "Nokia"):
        register_product(
            op.get_bind(),
            name=f"Node {vendor}",
            product_type="Node",
            description=f"A router by {vendor}.",
            tag="NODE",
            fixed_inputs={"vendor": vendor},
            product_blocks=["Node"],
        )
    for speed in (10, 100):
        register_product(
            op.get_bind(),
            name=f"Port {speed}G",
            product_type="Port",
            description=f"A port of {speed} Gbit/s on a node.",
            tag="PORT",
            fixed_inputs={"speed": speed},
            product_blocks=["Port"],
        )
    register_product(
        op.get_bind(),
        name="Core link",
        product_type="Core link",
        description="A link between two nodes of the core.",
        tag="CORE",
        product_blocks=["Core link"],
    )
    register_product(
        op.get_bind(),
        name="L2VPN",
        product_type="L2VPN",
        description="A private network of a customer's, over ports of ours.",
        tag="L2VPN",
        product_blocks=["Circuit"],
    )


def downgrade() -> None:
    """Undo. Refused as long as there are subscriptions."""
    for product in ("L2VPN", "Core link", "Port 100G", "Port 10G", "Node Nokia", "Node Cisco"):
        remove_product(op.get_bind(), product)
    for block in ("Circuit", "Attachment", "Core link", "Port", "Node"):
        remove_product_block(op.get_bind(), block)
