"""Another mode or description for a port."""

from sqlalchemy.orm import Session

from examples.ported.products.product_blocks.port import PortMode
from examples.ported.products.product_types.port import Port, PortProvisioning
from examples.ported.services import inventory
from examples.ported.workflows.shared import summary_form
from orchestrator.forms import FormPage
from orchestrator.types import FormGenerator, State, SubscriptionLifecycle, SummaryData, UUIDstr
from orchestrator.workflow import StepList, begin, step
from orchestrator.workflows.steps import set_status
from orchestrator.workflows.utils import modify_workflow


def initial_input_form_generator(session: Session, subscription_id: UUIDstr) -> FormGenerator:
    """Show what is there, and then what is going to be different."""
    subscription = Port.from_subscription(session, subscription_id)
    port = subscription.port

    class ModifyPortForm(FormPage):
        port_mode: PortMode = port.port_mode
        port_description: str | None = port.port_description

    user_input = yield ModifyPortForm
    user_input_dict = user_input.model_dump()

    fields = ["port_mode", "port_description"]
    before = [str(getattr(port, name)) for name in fields]
    after = [str(user_input_dict[name]) for name in fields]
    data = SummaryData(labels=fields, headers=["Before", "After"], columns=[before, after])
    yield from summary_form(subscription.product.name, data)

    return user_input_dict | {"subscription": subscription}


@step("Update subscription")
def update_subscription(subscription: PortProvisioning, port_mode: PortMode, port_description: str | None) -> State:
    """Change the model."""
    subscription.port.port_mode = port_mode
    subscription.port.port_description = port_description

    return {"subscription": subscription}


@step("Update port in IMS")
def update_port_in_ims(subscription: PortProvisioning) -> State:
    """Tell the inventory."""
    assert subscription.port.ims_id is not None  # noqa: S101
    payload = {"mode": subscription.port.port_mode, "description": subscription.port.port_description}
    inventory.update("interfaces", subscription.port.ims_id, payload)

    return {"payload": payload}


@modify_workflow("Modify port", initial_input_form=initial_input_form_generator)
def modify_port() -> StepList:
    """Return the steps."""
    return (
        begin
        >> set_status(SubscriptionLifecycle.PROVISIONING)
        >> update_subscription
        >> update_port_in_ims
        >> set_status(SubscriptionLifecycle.ACTIVE)
    )
