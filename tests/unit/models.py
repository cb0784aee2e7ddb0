"""Models that the tests share: nodes with ports, and a link between the ports of two nodes."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal
from uuid import UUID

from annotated_types import Len
from hypothesis import strategies as st
from pydantic import Field, computed_field

from orchestrator.domain import SUBSCRIPTION_MODEL_REGISTRY, ProductBlockModel, SubscriptionModel
from orchestrator.types import SubscriptionLifecycle

ACTIVE, PROVISIONING = SubscriptionLifecycle.ACTIVE, SubscriptionLifecycle.PROVISIONING


class Role(StrEnum):
    P = "P"
    PE = "PE"


class NodeBlockInactive(ProductBlockModel, product_block_name="Node"):
    node_name: str | None = None
    ims_id: int | None = None
    tags: list[str] = Field(default_factory=list)


class NodeBlockProvisioning(NodeBlockInactive, lifecycle=[PROVISIONING]):
    node_name: str


class NodeBlock(NodeBlockProvisioning, lifecycle=[ACTIVE]):
    ims_id: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def title(self) -> str:
        return f"node {self.node_name}"


class NodeInactive(SubscriptionModel, is_base=True):
    """A router in the network."""

    role: Role
    node: NodeBlockInactive


class NodeProvisioning(NodeInactive, lifecycle=[PROVISIONING]):
    node: NodeBlockProvisioning


class Node(NodeProvisioning, lifecycle=[ACTIVE]):
    node: NodeBlock


class PortBlockInactive(ProductBlockModel, product_block_name="Port"):
    vlan: int | None = None
    speed: int | None = 1000
    node: NodeBlockInactive | None = None


class PortBlock(PortBlockInactive, lifecycle=[ACTIVE]):
    vlan: int
    node: NodeBlock


class FibreBlockInactive(ProductBlockModel, product_block_name="Fibre"):
    colour: str | None = None
    ends: list[PortBlockInactive]


class FibreBlock(FibreBlockInactive, lifecycle=[ACTIVE]):
    colour: str
    ends: list[PortBlock]  # type: ignore[assignment]  # a list of narrower blocks


class LinkInactive(SubscriptionModel, is_base=True):
    """Two ports, and what is between them."""

    speed: Literal[1000, 10000]
    ports: Annotated[list[PortBlockInactive], Len(2, 2)]
    way: PortBlockInactive | FibreBlockInactive | None = None


class Link(LinkInactive, lifecycle=[ACTIVE]):
    ports: Annotated[list[PortBlock], Len(2, 2)]  # type: ignore[assignment]
    way: PortBlock | FibreBlock | None = None


class FolderBlockInactive(ProductBlockModel, product_block_name="Folder"):
    """Folders within folders, with values of every kind."""

    title: str | None = None
    size: int | None = 10
    words: set[str] = Field(default_factory=set)
    ratio: float = 1.0
    anything: Any = None
    folders: list[FolderBlockInactive]


class FolderInactive(SubscriptionModel, is_base=True):
    top: FolderBlockInactive


SUBSCRIPTION_MODEL_REGISTRY.update({"Node P": Node, "Node PE": Node, "Link": Link, "Folder": FolderInactive})


@st.composite
def folder_trees(draw: st.DrawFn, owner: UUID) -> FolderBlockInactive:
    values = st.fixed_dictionaries(
        {},
        optional={
            "title": st.none() | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=3),
            "size": st.none() | st.integers(),
            "words": st.sets(st.text("ab", max_size=2)),
            "ratio": st.floats(allow_nan=False, allow_infinity=False),
            # Without floats: only an annotation tells a large one from an integer once jsonb has had it.
            "anything": st.recursive(
                st.none() | st.booleans() | st.integers() | st.just("words"),
                lambda inner: st.lists(inner, max_size=2),
                max_leaves=3,
            ),
            "label": st.none() | st.just("label"),
        },
    )
    inner = st.lists(folder_trees(owner), max_size=2) if draw(st.integers(0, 2)) else st.just([])
    return FolderBlockInactive.new(owner, **draw(values), folders=draw(inner))
