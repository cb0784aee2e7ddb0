"""Subscriptions that move to another product: which blocks stay, and which are not dropped silently."""

from __future__ import annotations

from typing import cast
from uuid import uuid4

import pytest

from orchestrator.db.subscriptions import StoredProduct
from orchestrator.domain import SubscriptionModel
from orchestrator.domain.conversion import convert_product
from orchestrator.errors import ModelError
from tests.unit.models import FibreBlockInactive, PortBlockInactive
from tests.unit.new_models import product


class ManyInactive(SubscriptionModel, is_base=True):
    ports: list[PortBlockInactive]


class OneInactive(SubscriptionModel, is_base=True):
    port: PortBlockInactive


class OneOfTheSameInactive(SubscriptionModel, is_base=True):
    ports: PortBlockInactive


class TwoInactive(SubscriptionModel, is_base=True):
    first: PortBlockInactive
    second: PortBlockInactive | None = None


class NoneInactive(SubscriptionModel, is_base=True):
    fibre: FibreBlockInactive


def many(count: int) -> ManyInactive:
    key = uuid4()
    ports = [PortBlockInactive.new(key, vlan=number) for number in range(count)]
    return ManyInactive(subscription_id=key, product=product("Many"), customer_id="c", description="", ports=ports)


def moved(other: SubscriptionModel, model: type[SubscriptionModel], **new_root: object) -> SubscriptionModel:
    to = StoredProduct(product("Another").model_dump(mode="json"), {})
    return cast("SubscriptionModel", convert_product(other, model, to, new_root))


def test_blocks_stay_where_there_is_a_place_for_all_of_their_kind() -> None:
    for count in (0, 1):
        for model, field in ((OneInactive, "port"), (OneOfTheSameInactive, "ports"), (TwoInactive, "first")):
            other = many(count)
            block = getattr(moved(other, model), field)
            assert [block.subscription_instance_id for _ in other.ports] == [
                one.subscription_instance_id for one in other.ports
            ]
    one = moved(many(1), OneInactive)
    assert [port.vlan for port in moved(one, ManyInactive).ports] == [0]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("model", "field"), [(OneInactive, "port"), (OneOfTheSameInactive, "ports"), (TwoInactive, "first' and 'second")]
)
def test_blocks_for_which_there_is_no_place_are_not_dropped_silently(
    model: type[SubscriptionModel], field: str
) -> None:
    other = many(3)
    first = field.partition("'")[0]

    with pytest.raises(ModelError) as raised:
        moved(other, model)
    left = other.ports[2 if model is TwoInactive else 1].subscription_instance_id
    assert f"has the block Port {left} in 'ports', for which {model.__name__} has no place left" in str(raised.value)
    assert f"choose the blocks for '{field}' with new_root={{'{first}': ...}}" in str(raised.value)

    kept = moved(other, model, **{first: other.ports[2]}, **({"second": None} if model is TwoInactive else {}))
    assert getattr(kept, first) == other.ports[2]


def test_blocks_of_a_kind_that_the_new_product_does_not_have_go() -> None:
    assert isinstance(moved(many(3), NoneInactive).fibre, FibreBlockInactive)  # type: ignore[attr-defined]


def test_a_block_in_a_field_that_now_holds_another_kind_is_not_given_up_without_a_word() -> None:
    class FirstInactive(SubscriptionModel, is_base=True):
        place: PortBlockInactive

    class SecondInactive(SubscriptionModel, is_base=True):
        place: FibreBlockInactive
        elsewhere: PortBlockInactive | None = None

    key = uuid4()
    other = FirstInactive(
        subscription_id=key, product=product("F"), customer_id="c", description="", place=PortBlockInactive.new(key)
    )
    with pytest.raises(ModelError, match=r"in 'place', for which SecondInactive has no place left.*'elsewhere'"):
        moved(other, SecondInactive)
