"""What can never work, and is refused when the class of a model is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from annotated_types import Len
from pydantic import BaseModel, ConfigDict, Field, Json, SecretStr, model_serializer

from orchestrator.domain import ProductBlockModel, SubscriptionModel
from orchestrator.errors import DefinitionError
from orchestrator.types import SubscriptionLifecycle
from tests.unit.models import (
    FibreBlock,
    FibreBlockInactive,
    NodeBlock,
    NodeBlockInactive,
    NodeBlockProvisioning,
    NodeInactive,
    NodeProvisioning,
    PortBlock,
    PortBlockInactive,
)

ACTIVE, PROVISIONING = SubscriptionLifecycle.ACTIVE, SubscriptionLifecycle.PROVISIONING


def base_twice() -> None:
    class First(ProductBlockModel, product_block_name="Twice"):
        pass

    class Second(ProductBlockModel, product_block_name="Twice"):
        pass


def lifecycle_twice() -> None:
    class One(NodeBlock, lifecycle=[ACTIVE]):
        pass


def lifecycle_without_base() -> None:
    class Lonely(ProductBlockModel, lifecycle=[ACTIVE]):
        pass


def subscription_lifecycle_without_base() -> None:
    class Lonely(SubscriptionModel, lifecycle=[ACTIVE]):
        pass


def neither_base_nor_lifecycle() -> None:
    class Plain(NodeInactive):
        pass


def unknown_lifecycle() -> None:
    class Wrong(NodeBlock, lifecycle=["sleeping"]):
        pass


def one_word_for_a_list() -> None:
    class Wrong(NodeBlock, lifecycle="migrating"):
        pass


def field_that_the_base_lacks() -> None:
    class More(NodeBlock, lifecycle=["migrating"]):
        rack: str


def another_kind() -> None:
    class Other(PortBlock, lifecycle=["migrating"]):
        node: list[NodeBlockInactive]  # type: ignore[assignment]


def a_block_for_a_value() -> None:
    class Other(PortBlock, lifecycle=["migrating"]):
        vlan: NodeBlockInactive  # type: ignore[assignment]


def mixed() -> None:
    class Mixed(SubscriptionModel, is_base=True):
        node: NodeBlockInactive | int


def list_with_none() -> None:
    class Mixed(SubscriptionModel, is_base=True):
        nodes: list[NodeBlockInactive | None]


def mixed_list() -> None:
    class Mixed(SubscriptionModel, is_base=True):
        nodes: list[NodeBlockInactive | str]


def blocks_in_a_dict() -> None:
    class Mixed(SubscriptionModel, is_base=True):
        nodes: dict[str, NodeBlockInactive]


def optional_list() -> None:
    class Mixed(SubscriptionModel, is_base=True):
        nodes: list[NodeBlockInactive] | None


def whole_subscription() -> None:
    class Wrong(SubscriptionModel, is_base=True):
        other: NodeInactive


def required_value_in_a_base() -> None:
    class Full(ProductBlockModel, product_block_name="Full"):
        rack: str


def required_union_in_a_base() -> None:
    class Union(SubscriptionModel, is_base=True):
        way: PortBlockInactive | FibreBlockInactive


def required_list_of_unions_in_a_base() -> None:
    class Union(SubscriptionModel, is_base=True):
        ways: Annotated[list[PortBlockInactive | FibreBlockInactive], Len(1)]


def endless() -> None:
    class Endless(ProductBlockModel, product_block_name="Endless"):
        inner: Endless


def wrong_lifecycle() -> None:
    class Early(NodeProvisioning, lifecycle=["migrating"]):
        node: NodeBlock


def wrong_lifecycle_in_a_base() -> None:
    class Early(SubscriptionModel, is_base=True):
        node: NodeBlock


def two_classes_of_one_block() -> None:
    class Two(SubscriptionModel, is_base=True):
        node: NodeBlockInactive | NodeBlockProvisioning | None


def reserved() -> None:
    class Reserved(ProductBlockModel, product_block_name="Reserved"):
        owner_subscription_id: int  # type: ignore[assignment]


def reserved_method() -> None:
    class Reserved(SubscriptionModel, is_base=True):
        save: int  # type: ignore[assignment]


def excluded() -> None:
    class Excluded(ProductBlockModel, product_block_name="Excluded"):
        secret: str | None = Field(default=None, exclude=True)


def secret() -> None:
    class Secret(ProductBlockModel, product_block_name="Secret"):
        password: SecretStr | None = None


class Inner(BaseModel):
    password: SecretStr | None = None


@dataclass
class Outer:
    inner: list[Inner]


class Hidden(BaseModel):
    hidden: int = Field(default=0, exclude=True)


class Carrier(BaseModel):
    port: PortBlockInactive | None = None


class WithStatus:
    status: str


class WithName(BaseModel):
    name: str | None = None


class WithProperty:
    @property
    def label(self) -> str:
        return "a label"


def secret_in_a_value() -> None:
    class Secret(ProductBlockModel, product_block_name="Secret"):
        end: dict[str, Outer] | None = None


def excluded_in_a_value() -> None:
    class Excluded(ProductBlockModel, product_block_name="Excluded"):
        end: Hidden | None = None


def block_in_a_value() -> None:
    class Copying(ProductBlockModel, product_block_name="Copying"):
        end: list[Carrier] = Field(default_factory=list)


def json_text() -> None:
    class Texts(ProductBlockModel, product_block_name="Texts"):
        numbers: Json[list[int]] | None = None


def extra_values() -> None:
    class Extra(ProductBlockModel, product_block_name="Extra"):
        model_config = ConfigDict(extra="allow")


def copies() -> None:
    class Copies(ProductBlockModel, product_block_name="Copies"):
        model_config = ConfigDict(revalidate_instances="always")


def whole_serializer() -> None:
    class Serializing(ProductBlockModel, product_block_name="Serializing"):
        @model_serializer
        def write(self) -> dict[str, int]:
            return {}


def reserved_in_a_mixin() -> None:
    class Mixed(WithStatus, SubscriptionModel, is_base=True):
        pass


def reserved_in_a_plain_model() -> None:
    class Mixed(WithName, ProductBlockModel, product_block_name="Mixed"):
        pass


def reserved_property_in_a_mixin() -> None:
    class Mixed(WithProperty, ProductBlockModel, product_block_name="Mixed"):
        pass


def another_kind_of_block_than_the_base() -> None:
    class WideBase(ProductBlockModel, product_block_name="Wide 1"):
        mon: NodeBlockInactive | None = None

    class Wide(WideBase, lifecycle=[ACTIVE]):
        mon: NodeBlock | FibreBlock | None = None  # type: ignore[assignment]


def none_where_the_base_has_a_block() -> None:
    class WideBase(SubscriptionModel, is_base=True):
        mon: NodeBlockInactive

    class Wide(WideBase, lifecycle=[ACTIVE]):
        mon: NodeBlock | None  # type: ignore[assignment]


def more_blocks_than_the_base() -> None:
    class WideBase(SubscriptionModel, is_base=True):
        mon: Annotated[list[NodeBlockInactive], Len(0, 2)]

    class Wide(WideBase, lifecycle=[ACTIVE]):
        mon: list[NodeBlock]  # type: ignore[assignment]


def fewer_blocks_than_the_base() -> None:
    class WideBase(SubscriptionModel, is_base=True):
        mon: Annotated[list[NodeBlockInactive], Len(2, 2)]

    class Wide(WideBase, lifecycle=[ACTIVE]):
        mon: Annotated[list[NodeBlock], Len(0, 2)]  # type: ignore[assignment]


def an_end_that_does_not_take_what_was_active() -> None:
    class WideBase(SubscriptionModel, is_base=True):
        mon: NodeBlockInactive | None = None

    class Ended(WideBase, lifecycle=[SubscriptionLifecycle.TERMINATED]):
        mon: NodeBlockInactive

    class Wide(WideBase, lifecycle=[ACTIVE]):
        mon: NodeBlock | None = None


def list_as_a_fixed_input() -> None:
    class Fixed(SubscriptionModel, is_base=True):
        tags: list[str] = []  # noqa: RUF012


def model_as_a_fixed_input() -> None:
    class Fixed(SubscriptionModel, is_base=True):
        place: WithName | None = None


def default_that_no_text_can_be() -> None:
    class Fixed(SubscriptionModel, is_base=True):
        speed: Annotated[int, Field(le=10)] = 11


def base_of_a_base() -> None:
    class Second(NodeInactive, is_base=True):
        pass


def block_of_a_block() -> None:
    class Second(NodeBlockInactive, product_block_name="Second"):
        pass


def not_defined_yet() -> None:
    class Early(ProductBlockModel, product_block_name="Early"):
        later: Later | None  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize(
    ("define", "words"),
    [
        (base_twice, "Second and First are both the product block 'Twice'"),
        (lifecycle_twice, "One claims the lifecycle ACTIVE, which NodeBlock has claimed already"),
        (lifecycle_without_base, "Lonely does not say when it is used: write product_block_name="),
        (subscription_lifecycle_without_base, "Lonely does not say when it is used: write is_base=True"),
        (neither_base_nor_lifecycle, "Plain does not say when it is used.*lifecycle="),
        (unknown_lifecycle, "Wrong claims the lifecycle 'sleeping', which does not exist: use one of INITIAL, ACTIVE"),
        (one_word_for_a_list, r"Wrong: lifecycle= is a list, not 'migrating': write lifecycle=\[...\]"),
        (field_that_the_base_lacks, "More.rack: the base NodeBlockInactive has no such field.*add 'rack' there"),
        (another_kind, "Other.node is a list of blocks, but PortBlockInactive.node is a block"),
        (a_block_for_a_value, "Other.vlan is a block, but PortBlockInactive.vlan is a value"),
        (mixed, "Mixed.node mixes product blocks with int"),
        (mixed_list, "Mixed.nodes mixes product blocks with str"),
        (list_with_none, "Mixed.nodes is a list that may hold None"),
        (blocks_in_a_dict, "Mixed.nodes mixes product blocks with dict"),
        (optional_list, "Mixed.nodes mixes product blocks with list"),
        (whole_subscription, "Wrong.other names NodeInactive, a whole subscription"),
        (
            required_value_in_a_base,
            "Full.rack must have a value, but a new block has none: write 'rack: .* None = None'",
        ),
        (required_union_in_a_base, r"Union.way must hold a block, but names several kinds.*add '\| None'"),
        (
            required_list_of_unions_in_a_base,
            "Union.ways must hold a block, but names several kinds.*let the list be empty",
        ),
        (endless, "Endless.inner must hold a block of its own kind"),
        (wrong_lifecycle, "Early.node names NodeBlock, but in the lifecycle MIGRATING.*NodeBlockInactive"),
        (wrong_lifecycle_in_a_base, "Early.node names NodeBlock, but in the lifecycle INITIAL.*name NodeBlockInactive"),
        (two_classes_of_one_block, "Two.node names two classes of the product block 'Node'"),
        (reserved, "Reserved.owner_subscription_id: the name 'owner_subscription_id' is the engine's own"),
        (reserved_method, "Reserved.save: the name 'save' is the engine's own"),
        (excluded, "Excluded.secret is excluded"),
        (secret, "Secret.password is a secret, which pydantic writes as asterisks"),
        (secret_in_a_value, "Secret.end: Inner.password is a secret"),
        (excluded_in_a_value, "Excluded.end: Hidden.hidden is excluded"),
        (block_in_a_value, "Copying.end is a value, but Carrier.port in it names PortBlockInactive, of which a copy"),
        (json_text, "Texts.numbers is Json, .* annotate it with that type"),
        (extra_values, "Extra has extra='allow', but only fields are stored"),
        (copies, "Copies has revalidate_instances"),
        (whole_serializer, "Serializing.write is a model_serializer, but values are stored field by field"),
        (reserved_in_a_mixin, "Mixed derives from WithStatus, which has 'status': that name is the engine's own"),
        (reserved_in_a_plain_model, "Mixed derives from WithName, which has 'name': that name is the engine's own"),
        (reserved_property_in_a_mixin, "Mixed derives from WithProperty, which has 'label'"),
        (
            another_kind_of_block_than_the_base,
            r"Wide.mon takes a block 'Fibre', but WideBase.mon takes 'Node' only, .* not become initial, .*terminated",
        ),
        (none_where_the_base_has_a_block, "Wide.mon may be None, but WideBase.mon must hold a block"),
        (more_blocks_than_the_base, "Wide.mon may hold any number of blocks, but WideBase.mon holds 2 at most"),
        (fewer_blocks_than_the_base, "Wide.mon may hold no blocks, but WideBase.mon must hold 2 at least"),
        (
            an_end_that_does_not_take_what_was_active,
            "Wide.mon may be None, but Ended.mon must hold a block, so that a subscription could not become terminated",
        ),
        (list_as_a_fixed_input, r"Fixed.tags is a fixed input, .* cannot be list\[str\]: make it a plain value, or"),
        (model_as_a_fixed_input, "Fixed.place is a fixed input, .* cannot be WithName"),
        (default_that_no_text_can_be, "Fixed.speed is a fixed input, .*default '11' .*: Input should be less than"),
        (base_of_a_base, "Second has is_base=True but derives from NodeInactive"),
        (block_of_a_block, "Second has product_block_name='...' but derives from NodeBlockInactive"),
        (
            not_defined_yet,
            "an annotation of Early names something that is not defined yet: .*'Later'.*one holds the other",
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_class_that_cannot_work_is_refused_when_it_is_made(define: Any, words: str) -> None:
    with pytest.raises(DefinitionError, match=words):
        define()
