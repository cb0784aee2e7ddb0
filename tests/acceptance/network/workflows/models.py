"""Tasks whose steps ask for models in every way there is."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.domain import SubscriptionModel, flat
from orchestrator.forms import FormPage
from orchestrator.types import State, SubscriptionLifecycle
from orchestrator.workflow import StepList, begin, step
from orchestrator.workflows.utils import task
from tests.acceptance.journal import is_open
from tests.acceptance.network.products import Node, NodeBlockInactive, NodeInactive, NodeProvisioning
from tests.acceptance.network.workflows.steps import described, obey


class ModelsPage(FormPage):
    """Ids, as a state holds them."""

    node: UUID
    either: UUID
    many: list[UUID]
    maybe: UUID | None = None
    tag: str = "-"


@step("Ask for all kinds")
async def ask_for_all(
    node: Node,
    either: Node | NodeProvisioning,
    many: list[SubscriptionModel],
    maybe: NodeInactive | None,
    nothing: NodeInactive | None,
    spare: Node | None = None,
) -> State:
    return {
        "classes": [type(one).__name__ for one in (node, either, *many)],
        "maybe_class": type(maybe).__name__,
        "nothing_class": type(nothing).__name__,
        "spare_class": type(spare).__name__,
        "descriptions": [described(one) for one in (node, either, *many)],
        "block": node.node,
        "all": many,
    }


@step("Ask for a block in a thread")
def ask_for_a_block(block: NodeBlockInactive, node: Node) -> State:
    """Run as a plain function; the state has a reference to a block by now."""
    return {"block_name": block.node_name, "block_is_nodes": block.owner_subscription_id == node.subscription_id}


@task("Ask for models", initial_input_form=lambda: ModelsPage)
def task_look_at_models() -> StepList:
    return begin >> ask_for_all >> ask_for_a_block


def _inside(result: State) -> State:
    """Something that contains itself."""
    result["itself"] = result
    return result


@step("Change both")
async def change_both(many: list[Node], process_id: UUID, tag: str, session: AsyncSession) -> State:
    """Save the first at once, in the step's transaction, and return all of them."""
    for one in many:
        one.node.tags = [*one.node.tags, tag]
    await many[0].save(session)
    await obey(process_id, "both", tag)
    if is_open(f"junk-{tag}"):
        return {"many": many, "junk": object()}
    if is_open(f"itself-{tag}"):
        result: State = {"many": many}
        return result | {"itself": _inside(result)}
    if is_open(f"blocks-{tag}"):
        return {"blocks": [one.node for one in many]}
    return {"many": many, "done": {"inside": [many[0].node]}}


@task("Change two nodes in one step", initial_input_form=lambda: ModelsPage)
def task_change_both() -> StepList:
    return begin >> change_both


class AllPage(FormPage):
    """The subscriptions to tell of."""

    all: list[UUID]


@step("Tell all")
async def tell_all(all: list[SubscriptionModel]) -> State:  # noqa: A002 - the state's own word
    return {"flat": {str(one.subscription_id): flat(one) for one in all}}


@task("Tell everything that subscriptions are", initial_input_form=lambda: AllPage)
def task_tell_all() -> StepList:
    return begin >> tell_all


@step("End all")
async def end_all(all: list[SubscriptionModel]) -> State:  # noqa: A002 - the state's own word
    return {"all": [SubscriptionModel.from_other_lifecycle(one, SubscriptionLifecycle.TERMINATED) for one in all]}


@task("End subscriptions without asking anybody", initial_input_form=lambda: AllPage)
def task_end_all() -> StepList:
    return begin >> end_all
