"""Steps that several workflows share, and how tests tell them what to do: by gates that are named like the process's tag."""

from __future__ import annotations

from functools import singledispatch
from uuid import UUID

from orchestrator.types import State
from orchestrator.workflow import step
from tests.acceptance.journal import is_open, note, wait_at
from tests.acceptance.network.products import LineInactive, Node, NodeInactive, NodeProvisioning


async def obey(process_id: UUID, what: str, tag: str) -> None:
    """Note that a step runs; wait at the gate ``go-…`` if ``hold-…`` is open, and fail while ``break-…`` is.

    Raises:
        RuntimeError: the test wants it.
    """
    note(process_id, what, tag=tag)
    if is_open(f"hold-{what}-{tag}"):
        await wait_at(f"go-{what}-{tag}")
    if is_open(f"break-{what}-{tag}"):
        note(process_id, f"{what} broke", tag=tag)
        raise RuntimeError(f"{what} of {tag} is broken")
    note(process_id, f"{what} passed", tag=tag)


@singledispatch
def described(subscription: object) -> str:
    """Return what kind of subscription it is, by the exact class for its lifecycle."""
    raise TypeError(f"{type(subscription).__name__} is nothing that is described")


@described.register
def _(subscription: NodeInactive) -> str:
    return "a node in no service"


@described.register
def _(subscription: NodeProvisioning) -> str:
    return f"a node called {subscription.node.node_name}"


@described.register
def _(subscription: Node) -> str:
    return f"the node {subscription.node.node_name} with number {subscription.node.ims_id}"


@described.register
def _(subscription: LineInactive) -> str:
    return f"a line of {subscription.speed} Mbit/s with {len(subscription.ports)} ports"


@step("Tell the network")
async def tell_network(process_id: UUID, tag: str) -> None:
    """Stands for a call of an external system."""
    await obey(process_id, "tell", tag)


@step("Look at it")
async def look(subscription: NodeInactive | LineInactive, process_id: UUID) -> State:
    """Return what the model is at this moment, for the journal; a plain value in the state does no harm."""
    note(process_id, "looked", description=subscription.description, version=subscription.version)
    return {"seen": described(subscription)}
