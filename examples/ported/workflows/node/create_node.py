"""A new router."""

from pydantic import ConfigDict, field_validator
from sqlalchemy.orm import Session

from examples.ported.products.product_types.node import NodeInactive, NodeProvisioning
from examples.ported.services import inventory
from examples.ported.workflows.shared import subscriptions_by_product_type
from orchestrator.config.assignee import Assignee
from orchestrator.forms import FormPage
from orchestrator.forms.validators import Label
from orchestrator.targets import Target
from orchestrator.types import FormGenerator, State, SubscriptionLifecycle, UUIDstr
from orchestrator.workflow import StepList, begin, inputstep, step
from orchestrator.workflows.steps import store_process_subscription
from orchestrator.workflows.utils import create_workflow


def initial_input_form_generator(session: Session, product_name: str) -> FormGenerator:
    """Ask for the name; one that another node has is refused."""

    class CreateNodeForm(FormPage):
        model_config = ConfigDict(title=product_name)

        node_settings: Label
        customer_id: str
        node_name: str

        @field_validator("node_name")
        @classmethod
        def must_be_unused(cls, name: str) -> str:
            """Look for nodes with this name."""
            taken = subscriptions_by_product_type(session, "Node", list(SubscriptionLifecycle))
            if any(node.description == name for node in taken):
                raise ValueError(f"there is a node {name} already")
            return name

    user_input = yield CreateNodeForm
    return user_input.model_dump()


@step("Construct Subscription model")
def construct_node_model(session: Session, product: UUIDstr, customer_id: str, node_name: str) -> State:
    """Make the subscription."""
    subscription = NodeInactive.from_product_id(
        session,
        product_id=product,
        customer_id=customer_id,
        status=SubscriptionLifecycle.INITIAL,
    )
    subscription.node.node_name = node_name
    subscription = NodeProvisioning.from_other_lifecycle(subscription, SubscriptionLifecycle.PROVISIONING)
    subscription.description = node_name

    return {
        "subscription": subscription,
        "subscription_id": subscription.subscription_id,  # necessary to be able to use older generic step functions
        "subscription_description": subscription.description,
    }


@step("Create node in IMS")
def create_node_in_ims(subscription: NodeProvisioning) -> State:
    """Tell the inventory."""
    payload = {"name": subscription.node.node_name, "vendor": subscription.node_type}
    subscription.node.ims_id = inventory.create("devices", payload)

    return {"subscription": subscription, "payload": payload}


@inputstep("Confirm installation", assignee=Assignee.SYSTEM)
def confirm_installation(subscription: NodeProvisioning) -> FormGenerator:
    """Ask whether the router is in its rack."""

    class ConfirmForm(FormPage):
        model_config = ConfigDict(title=f"Is {subscription.node.node_name} installed?")

        installed_by: str

    user_input = yield ConfirmForm
    return user_input.model_dump()


@create_workflow("Create node", initial_input_form=initial_input_form_generator)
def create_node() -> StepList:
    """Return the steps."""
    return (
        begin
        >> construct_node_model
        >> store_process_subscription(Target.CREATE)
        >> create_node_in_ims
        >> confirm_installation
    )
