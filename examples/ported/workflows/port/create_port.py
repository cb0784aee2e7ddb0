"""A new port on a router."""

from pydantic import ConfigDict
from sqlalchemy.orm import Session

from examples.ported.products.product_blocks.port import PortMode
from examples.ported.products.product_types.node import Node
from examples.ported.products.product_types.port import PortInactive, PortProvisioning
from examples.ported.services import inventory
from examples.ported.workflows.shared import create_summary_form, free_port_selector, node_selector
from orchestrator.forms import FormPage
from orchestrator.services.products import get_product_by_id
from orchestrator.targets import Target
from orchestrator.types import FormGenerator, State, SubscriptionLifecycle, UUIDstr
from orchestrator.workflow import StepList, begin, step
from orchestrator.workflows.steps import store_process_subscription
from orchestrator.workflows.utils import create_workflow


def initial_input_form_generator(session: Session, product: UUIDstr, product_name: str) -> FormGenerator:
    """Ask for the node, then for one of its free ports; show a summary."""

    class SelectNodeForm(FormPage):
        model_config = ConfigDict(title=product_name)

        node_subscription_id: node_selector(session)  # type: ignore[valid-type]

    select_node = yield SelectNodeForm
    user_input_dict = select_node.model_dump()

    speed = get_product_by_id(session, product).fixed_input_value("speed")

    class CreatePortForm(FormPage):
        model_config = ConfigDict(title=f"{product_name} of {speed} Gbit/s")

        port_name: free_port_selector(session, user_input_dict["node_subscription_id"])  # type: ignore[valid-type]
        port_mode: PortMode
        port_description: str | None = None

    create_port_input = yield CreatePortForm
    user_input_dict.update(create_port_input.model_dump())

    yield from create_summary_form(user_input_dict, product_name, ["port_name", "port_mode", "port_description"])

    return user_input_dict


@step("Construct Subscription model")
def construct_port_model(
    session: Session,
    product: UUIDstr,
    node_subscription_id: UUIDstr,
    port_name: str,
    port_mode: PortMode,
    port_description: str | None,
) -> State:
    """Make the subscription, on the node of another one."""
    node = Node.from_subscription(session, node_subscription_id)
    subscription = PortInactive.from_product_id(
        session,
        product_id=product,
        customer_id=node.customer_id,
        status=SubscriptionLifecycle.INITIAL,
    )
    subscription.port.node = node.node
    subscription.port.port_name = port_name
    subscription.port.port_mode = port_mode
    subscription.port.port_description = port_description
    subscription.port.enabled = False

    subscription = PortProvisioning.from_other_lifecycle(subscription, SubscriptionLifecycle.PROVISIONING)
    subscription.description = f"{node.node.node_name} {port_name}"

    return {
        "subscription": subscription,
        "subscription_id": subscription.subscription_id,  # necessary to be able to use older generic step functions
        "subscription_description": subscription.description,
    }


@step("Create port in IMS")
def create_port_in_ims(subscription: PortProvisioning) -> State:
    """Tell the inventory."""
    payload = {"name": subscription.description, "mode": subscription.port.port_mode}
    subscription.port.ims_id = inventory.create("interfaces", payload)

    return {"subscription": subscription, "payload": payload}


@step("Enable port")
def enable_port(subscription: PortProvisioning) -> State:
    """Put it into service."""
    assert subscription.port.ims_id is not None  # noqa: S101
    subscription.port.enabled = True
    inventory.update("interfaces", subscription.port.ims_id, {"enabled": True})

    return {"subscription": subscription}


@create_workflow("Create port", initial_input_form=initial_input_form_generator)
def create_port() -> StepList:
    """Return the steps."""
    return (
        begin >> construct_port_model >> store_process_subscription(Target.CREATE) >> create_port_in_ims >> enable_port
    )
