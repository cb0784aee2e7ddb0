"""Workflows on nodes that are made in the status provisioning: the seed's names, with the seed's rules."""

from __future__ import annotations

from orchestrator.types import State, SubscriptionLifecycle
from orchestrator.workflow import StepList, begin, step
from orchestrator.workflows.steps import set_status
from orchestrator.workflows.utils import create_workflow, modify_workflow, terminate_workflow, validate_workflow
from tests.acceptance.network.products import NodeProvisioning
from tests.acceptance.network.workflows.nodes import TagPage, make_node, node_form, number, remove, rename, rename_form
from tests.acceptance.network.workflows.steps import look


@create_workflow(
    initial_input_form=node_form, status=SubscriptionLifecycle.PROVISIONING, additional_steps=begin >> look
)
def create_node_enrollment() -> StepList:
    """Make a node that is in no service yet."""
    return begin >> make_node


@step("Compare names")
async def compare_names(subscription: NodeProvisioning) -> State:
    return {"compared": subscription.node.node_name}


@validate_workflow()
def validate_node_enrollment() -> StepList:
    """Compare."""
    return begin >> compare_names


@modify_workflow(initial_input_form=lambda: TagPage)
def provision_node_enrollment() -> StepList:
    """Bring it into service."""
    return begin >> number >> set_status("active")


@modify_workflow(initial_input_form=rename_form)
def modify_node_enrollment() -> StepList:
    """Rename it, while it is in no service."""
    return begin >> rename


@terminate_workflow(initial_input_form=lambda: TagPage)
def terminate_node_enrollment() -> StepList:
    """End it."""
    return begin >> remove
