"""Compare a port with the inventory."""

from examples.ported.products.product_types.port import Port
from examples.ported.services import inventory
from orchestrator.types import State
from orchestrator.workflow import StepList, begin, step
from orchestrator.workflows.utils import validate_workflow


@step("Validate port in IMS")
def validate_port_in_ims(subscription: Port) -> State:
    """Both must say the same."""
    found = inventory.get("interfaces", subscription.port.ims_id)
    assert found["mode"] == subscription.port.port_mode, f"the inventory has {found['mode']}"  # noqa: S101

    return {"in_ims": found}


@validate_workflow("Validate port")
def validate_port() -> StepList:
    """Return the steps."""
    return begin >> validate_port_in_ims
