"""What is found when the class of a model is made: its fields, and everything that can never work."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import Annotated, Any, TypeVar
from uuid import UUID

import pytest
from annotated_types import Len
from pydantic import BaseModel, Field, SecretStr
from typing_extensions import TypeAliasType

from orchestrator.domain import SUBSCRIPTION_MODEL_REGISTRY, ProductBlockModel, SubscriptionModel, definition_of
from orchestrator.domain.definition import BlockDefinition, FixedInputDefinition
from orchestrator.domain.registry import SubscriptionModelRegistry
from orchestrator.errors import DefinitionError
from orchestrator.types import SubscriptionLifecycle
from tests.unit.models import (
    FibreBlock,
    FibreBlockInactive,
    Link,
    LinkInactive,
    Node,
    NodeBlock,
    NodeBlockInactive,
    NodeBlockProvisioning,
    NodeInactive,
    NodeProvisioning,
    PortBlock,
    PortBlockInactive,
)

ACTIVE, PROVISIONING = SubscriptionLifecycle.ACTIVE, SubscriptionLifecycle.PROVISIONING
Element = TypeVar("Element")
Pair = Annotated[list[Element], Len(2, 2)]
Named = TypeAliasType("Named", list[PortBlockInactive])


@pytest.fixture
def registry() -> Iterator[SubscriptionModelRegistry]:
    """The registry, as it was afterwards."""
    before = dict(SUBSCRIPTION_MODEL_REGISTRY)
    yield SUBSCRIPTION_MODEL_REGISTRY
    SUBSCRIPTION_MODEL_REGISTRY.clear()
    SUBSCRIPTION_MODEL_REGISTRY.update(before)


def test_each_lifecycle_has_its_class_and_the_base_has_the_rest() -> None:
    family = NodeBlock.__family__

    assert {status: family.class_for(status) for status in SubscriptionLifecycle} == {
        **dict.fromkeys(SubscriptionLifecycle, NodeBlockInactive),
        PROVISIONING: NodeBlockProvisioning,
        ACTIVE: NodeBlock,
    }


def test_fields_are_values_or_blocks() -> None:
    shape = Link.__shape__

    assert shape.values == ("speed",)
    assert {name: (one.classes, one.many, one.optional, one.minimum) for name, one in shape.blocks.items()} == {
        "ports": ((PortBlock,), True, False, 2),
        "way": ((PortBlock, FibreBlock), False, True, 0),
    }


def test_computed_fields_are_not_stored() -> None:
    assert "title" not in NodeBlock.__shape__.values


def test_a_list_of_blocks_may_be_written_with_an_alias_or_a_field() -> None:
    class AliasInactive(SubscriptionModel, is_base=True):
        pair: Pair[PortBlockInactive]
        named: Named
        some: list[PortBlockInactive | FibreBlockInactive]
        least: list[PortBlockInactive] = Field(min_length=3)

    blocks = AliasInactive.__shape__.blocks
    assert {name: (one.many, one.minimum) for name, one in blocks.items()} == {
        "pair": (True, 2),
        "named": (True, 0),
        "some": (True, 0),
        "least": (True, 3),
    }


def test_a_block_may_hold_blocks_of_its_own_kind() -> None:
    class NestedInactive(ProductBlockModel, product_block_name="Nested"):
        folders: list[NestedInactive]

    assert NestedInactive.__shape__.blocks["folders"].classes == (NestedInactive,)


def test_a_value_may_be_of_any_type_that_pydantic_writes_as_json() -> None:
    class Place(BaseModel):
        street: str

    class ManyInactive(ProductBlockModel, product_block_name="Many"):
        address: IPv4Address | None = None
        place: Place | None = None
        rates: dict[str, list[float]] = Field(default_factory=dict)
        key: Annotated[UUID, "annotated"] | None = None
        needs_no_default: int | None
        anything: Any

    assert set(ManyInactive.__shape__.values) == {"address", "place", "rates", "key", "needs_no_default", "anything"}
    made = ManyInactive.new(UUID(int=1))
    assert (made.needs_no_default, made.anything) == (None, None)


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
        (lifecycle_without_base, "Lonely says neither which product block it is.*product_block_name="),
        (subscription_lifecycle_without_base, "Lonely does not say when it is used: write is_base=True"),
        (neither_base_nor_lifecycle, "Plain does not say when it is used.*lifecycle="),
        (unknown_lifecycle, "Wrong claims the lifecycle 'sleeping': there are INITIAL, ACTIVE"),
        (one_word_for_a_list, r"Wrong: lifecycle= is a list, not 'migrating': write lifecycle=\[...\]"),
        (field_that_the_base_lacks, "More.rack: the base NodeBlockInactive has no such field.*add 'rack' there"),
        (another_kind, "Other.node is a list of blocks, but PortBlockInactive.node is a block"),
        (a_block_for_a_value, "Other.vlan is a block, but PortBlockInactive.vlan is a value"),
        (mixed, "Mixed.node mixes product blocks with int"),
        (mixed_list, "Mixed.nodes mixes product blocks with str"),
        (blocks_in_a_dict, "Mixed.nodes mixes product blocks with dict"),
        (optional_list, "Mixed.nodes mixes product blocks with list"),
        (whole_subscription, "Wrong.other names NodeInactive, a whole subscription"),
        (
            required_value_in_a_base,
            "Full.rack must have a value, but a new block has none: write 'rack: .* None = None'",
        ),
        (required_union_in_a_base, r"Union.way must hold a block of several kinds.*add '\| None'"),
        (required_list_of_unions_in_a_base, "Union.ways must hold a block of several kinds.*let the list be empty"),
        (endless, "Endless.inner must hold a block of its own kind"),
        (wrong_lifecycle, "Early.node names NodeBlock, but in the lifecycle MIGRATING.*NodeBlockInactive"),
        (wrong_lifecycle_in_a_base, "Early.node names NodeBlock, but in the lifecycle INITIAL.*name NodeBlockInactive"),
        (two_classes_of_one_block, "Two.node names two classes of the product block 'Node'"),
        (reserved, "Reserved.owner_subscription_id: the name 'owner_subscription_id' is the engine's own"),
        (reserved_method, "Reserved.save: the name 'save' is the engine's own"),
        (excluded, "Excluded.secret is excluded"),
        (secret, "Secret.password is a secret, of which pydantic writes asterisks only"),
        (base_of_a_base, "Second has is_base=True but derives from NodeInactive"),
        (block_of_a_block, "Second has a product_block_name but derives from NodeBlockInactive"),
        (not_defined_yet, "an annotation of Early names something that is not defined yet: .*'Later'"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_class_that_cannot_work_is_refused_when_it_is_made(define: Any, words: str) -> None:
    with pytest.raises(DefinitionError, match=words):
        define()


def test_what_was_refused_claims_nothing() -> None:
    with pytest.raises(DefinitionError):
        field_that_the_base_lacks()

    class Right(NodeBlock, lifecycle=["disabled"]):
        pass

    assert NodeBlock.__family__.class_for("migrating") is NodeBlockInactive
    assert NodeBlock.__family__.class_for("disabled") is Right
    NodeBlock.__family__.forget(Right)


def test_a_class_that_is_made_again_by_importing_its_module_again_is_the_same() -> None:
    def define() -> type[ProductBlockModel]:
        class AgainInactive(ProductBlockModel, product_block_name="Again"):
            pass

        class Again(AgainInactive, lifecycle=[ACTIVE]):
            pass

        return Again

    define()
    last = define()

    assert last.__family__.class_for(ACTIVE) is last


def test_a_product_has_one_model(registry: SubscriptionModelRegistry) -> None:
    registry.update({"Node P": NodeProvisioning})  # another class of the same model

    with pytest.raises(DefinitionError, match=r"'Node P'.* is NodeProvisioning already, and cannot be Link as well"):
        registry["Node P"] = Link


@pytest.mark.parametrize("value", [int, NodeBlock, SubscriptionModel, "Node", None])
def test_only_models_of_subscriptions_are_registered(registry: SubscriptionModelRegistry, value: Any) -> None:
    for put in (
        lambda: registry.update({"New": value}),
        lambda: registry.update(New=value),
        lambda: registry.setdefault("New", value),
        lambda: registry.__setitem__("New", value),
        lambda: registry.__ior__({"New": value}),
    ):
        with pytest.raises(DefinitionError, match=r"SUBSCRIPTION_MODEL_REGISTRY\['New'\] is .*SubscriptionModel"):
            put()
    assert "New" not in registry


def test_a_definition_names_everything_that_the_database_must_know() -> None:
    found = definition_of("Link", Link)

    assert (found.name, found.base, found.root_blocks) == ("Link", LinkInactive, ("Fibre", "Port"))
    assert found.fixed_inputs == {"speed": FixedInputDefinition(("1000", "10000"), None)}
    assert found.blocks == {
        "Fibre": BlockDefinition(FibreBlockInactive, ("colour",), ("Port",)),
        "Node": BlockDefinition(NodeBlockInactive, ("ims_id", "node_name", "tags"), ()),
        "Port": BlockDefinition(PortBlockInactive, ("speed", "vlan"), ("Node",)),
    }
    assert definition_of("Link", LinkInactive) == found
    assert definition_of("Node P", Node).fixed_inputs["role"].values == ("P", "PE")
