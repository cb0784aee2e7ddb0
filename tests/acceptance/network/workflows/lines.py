"""Workflows on lines, whose ports use the blocks of nodes."""

from __future__ import annotations

from uuid import UUID

from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.domain import SubscriptionModel
from orchestrator.forms import AsyncFormGenerator, FormPage
from orchestrator.types import State
from orchestrator.workflow import StepList, begin, step
from orchestrator.workflows.pages import subscription_choice
from orchestrator.workflows.utils import create_workflow, modify_workflow, terminate_workflow
from tests.acceptance.network.products import Line, LineInactive, Node, NodeProvisioning, PortBlockInactive
from tests.acceptance.network.workflows.nodes import TagPage, remove
from tests.acceptance.network.workflows.steps import look, obey


async def line_form(session: AsyncSession, product_name: str) -> AsyncFormGenerator:
    """Ask for nodes: the first is chosen from all there are; more may be named."""
    choice = await subscription_choice(session, product_types=["Node"], statuses=["active", "provisioning"])

    class LinePage(FormPage):
        """A new line."""

        first: choice  # type: ignore[valid-type]  # made of what there is now
        nodes: list[UUID] = Field(default_factory=list)
        vlan: int = 100
        tag: str = "-"

    filled = yield LinePage
    page = filled.model_dump()
    yield {**page, "nodes": [str(page["first"]), *map(str, page["nodes"])], "asked_for": product_name}


@step("Make the line")
async def make_line(session: AsyncSession, product: UUID, nodes: list[Node | NodeProvisioning], vlan: int) -> State:
    """Make a port for each node: its block is the line's own, the node's is the node's."""
    line = await LineInactive.from_product_id(session, product, "acme", description=f"line of {len(nodes)}")
    for position, node in enumerate(nodes):
        line.ports.append(PortBlockInactive.new(line.subscription_id, vlan=vlan + position, node=node.node))
    return {"subscription": line, "node": nodes[0]}


@create_workflow("Make a line", initial_input_form=line_form)
def create_line() -> StepList:
    return begin >> make_line >> look


class VlanPage(TagPage):
    """A new VLAN for the first port."""

    vlan: int


@step("Look up the node")
async def look_up(session: AsyncSession, subscription: Line) -> State:
    """Brings another subscription into the state, under a key that comes before the workflow's own."""
    owner = subscription.ports[0].node.owner_subscription_id
    return {"node": await SubscriptionModel.from_subscription(session, owner)}


@step("Change the VLAN")
async def change_vlan(subscription: Line, process_id: UUID, vlan: int, tag: str) -> State:
    await obey(process_id, "vlan", tag)
    subscription.ports[0].vlan = vlan
    return {"subscription": subscription}


@modify_workflow("Change a line's VLAN", initial_input_form=lambda: VlanPage)
def modify_line() -> StepList:
    return begin >> look_up >> change_vlan


@terminate_workflow("End a line", initial_input_form=lambda: TagPage)
def terminate_line() -> StepList:
    return begin >> remove
