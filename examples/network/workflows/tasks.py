"""Tasks: workflows of no product, which run on the queue ``tasks``."""

from __future__ import annotations

import asyncio

from sqlalchemy.ext.asyncio import AsyncSession

from examples.network import controller
from examples.network.products import NODES
from examples.network.products.node import Node
from examples.network.workflows.by_product import configuration
from orchestrator.services.subscriptions import list_subscriptions
from orchestrator.types import State
from orchestrator.workflow import StepList, begin, step
from orchestrator.workflows.utils import task

MOST = 10_000
"""Nodes that one step looks at."""


@step("Compare all nodes with the network")
async def compare_all_nodes(session: AsyncSession) -> State:
    """Look at every active node; all differences are found, not only the first. HTTP goes to threads: it must not block."""
    found = []
    for product in NODES:
        found += await list_subscriptions(session, statuses=["active"], product=product, limit=MOST)
    differences = []
    for one in found:
        node = await Node.from_subscription(session, one.subscription_id)
        if await asyncio.to_thread(controller.read, node.subscription_id) != configuration(node):
            differences.append(node.node.node_name)
    assert not differences, f"the network is not what these nodes are: {', '.join(differences)}"  # noqa: S101
    return {"nodes_compared": len(found)}


@task("Compare all nodes with the network")
def validate_all_nodes() -> StepList:
    """Compare with the network; a failed assertion is a finding for the NOC here, too."""
    return begin >> compare_all_nodes
