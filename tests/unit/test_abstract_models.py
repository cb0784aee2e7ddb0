"""Classes that several product blocks, or subscription models, derive from and that are none themselves."""

from __future__ import annotations

from uuid import uuid4

import pytest

from orchestrator.domain import ProductBlockModel, SubscriptionModel
from orchestrator.domain.definition import SubscriptionModelRegistry
from orchestrator.domain.schema import describe_product
from orchestrator.engine.references import stored_parameter
from orchestrator.errors import DefinitionError, ModelError
from orchestrator.types import SubscriptionLifecycle

ACTIVE = SubscriptionLifecycle.ACTIVE


class Inventoried(ProductBlockModel):
    ims_id: int | None = None

    @property
    def is_known(self) -> bool:
        return self.ims_id is not None


class LampInactive(Inventoried, product_block_name="Lamp"):
    colour: str | None = None


class Lamp(LampInactive, lifecycle=[ACTIVE]):
    colour: str


class SwitchInactive(Inventoried, product_block_name="Switch"):
    lamp: LampInactive | None = None


class Installed(SubscriptionModel):
    site: str


class LightingInactive(Installed, is_base=True):
    lamp: LampInactive


def test_blocks_have_the_fields_of_the_abstract_class_and_each_is_a_family_of_its_own() -> None:
    assert LampInactive.__shape__.values == ("ims_id", "colour")
    assert SwitchInactive.__shape__.values == ("ims_id",)
    assert LampInactive.__family__ is not SwitchInactive.__family__
    lamp = LampInactive.new(uuid4(), ims_id=7)
    assert (lamp.is_known, lamp.name, isinstance(lamp, Inventoried)) == (True, "Lamp", True)


def test_the_catalogue_has_the_products_blocks_and_not_the_abstract_class() -> None:
    described = describe_product("Light", LightingInactive)

    assert list(described.blocks) == ["Lamp"]
    assert list(described.fixed_inputs) == ["site"]


def test_a_step_may_ask_for_an_abstract_class() -> None:
    for name, cls in (("subscription", Installed), ("block", Inventoried)):
        parameter = stored_parameter(name, cls, "the step", required=True, default=None)
        assert parameter is not None
        assert parameter.classes == (cls,)


def test_there_is_no_new_block_of_an_abstract_class() -> None:
    with pytest.raises(ModelError, match="Inventoried is abstract"):
        Inventoried.new(uuid4())


@pytest.mark.parametrize("many", [False, True])
def test_a_field_names_the_blocks_and_not_the_abstract_class(many: bool) -> None:
    annotation = list[Inventoried] if many else Inventoried | None
    with pytest.raises(
        DefinitionError, match=r"Board\.one names Inventoried, which is abstract: name the product blocks"
    ):
        type(
            "Board",
            (ProductBlockModel,),
            {"__annotations__": {"one": annotation}, "__module__": __name__},
            product_block_name="Board",
        )


def test_the_registry_takes_no_abstract_model() -> None:
    with pytest.raises(DefinitionError, match="put in a class that derives from SubscriptionModel"):
        SubscriptionModelRegistry().update({"Light": Installed})


def test_a_class_for_a_lifecycle_needs_the_base_of_its_family() -> None:
    with pytest.raises(DefinitionError, match="Late does not say when it is used"):

        class Late(Inventoried, lifecycle=[ACTIVE]):
            pass
