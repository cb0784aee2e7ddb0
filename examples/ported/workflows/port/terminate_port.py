"""The end of a port."""

from examples.ported.products.product_types.port import PortProvisioning
from examples.ported.services import inventory
from orchestrator.forms import FormPage
from orchestrator.forms.validators import DisplaySubscription
from orchestrator.types import InputForm, UUIDstr
from orchestrator.workflow import StepList, begin, step
from orchestrator.workflows.utils import terminate_workflow


def terminate_initial_input_form_generator(subscription_id: UUIDstr, customer_id: UUIDstr) -> InputForm:
    """Show what is going to end."""
    temp_subscription_id = subscription_id

    class TerminateForm(FormPage):
        ending: DisplaySubscription = temp_subscription_id  # type: ignore[assignment]
        customer: str = customer_id

    return TerminateForm


@step("Delete port in IMS")
def delete_port_in_ims(subscription: PortProvisioning) -> None:
    """Tell the inventory."""
    if subscription.port.ims_id is not None:
        inventory.delete("interfaces", subscription.port.ims_id)


@terminate_workflow("Terminate port", initial_input_form=terminate_initial_input_form_generator)
def terminate_port() -> StepList:
    """Return the steps."""
    return begin >> delete_port_in_ims
