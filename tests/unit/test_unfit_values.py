"""B23: values in subscriptions that the classes of changed models cannot load. Pure."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import Field, ValidationInfo, field_validator, model_validator

from orchestrator.db.registration.usage import StoredValue
from orchestrator.domain import ProductBlockModel, SubscriptionModel, describe_product
from orchestrator.services.unfit_values import UnfitValues
from orchestrator.types import SubscriptionLifecycle

ACTIVE = SubscriptionLifecycle.ACTIVE


class GateBlockInactive(ProductBlockModel, product_block_name="Gate"):
    speed: int | None = None
    title: str | None = None
    tags: list[int] = Field(default_factory=list)


class GateBlock(GateBlockInactive, lifecycle=[ACTIVE]):
    speed: int = Field(le=100)
    title: str

    @field_validator("title")
    @classmethod
    def check_title(cls, value: str) -> str:
        if not value.islower():
            raise ValueError("titles are in lower case")
        return value

    @field_validator("tags")
    @classmethod
    def check_tags(cls, value: list[int], info: ValidationInfo) -> list[int]:
        if sum(value) > info.data["speed"]:
            raise ValueError("too many for the speed")
        return value

    @model_validator(mode="after")
    def check_all(self) -> GateBlock:
        if self.title == "slow" and self.speed > 1:
            raise ValueError("slow is slow")
        return self


class GateInactive(SubscriptionModel, is_base=True):
    gate: GateBlockInactive


class Gate(GateInactive, lifecycle=[ACTIVE]):
    gate: GateBlock


DEFINITIONS = [describe_product("Gate", Gate)]


def report(*values: tuple[str, str, str, int], dropped: Any = ()) -> list[str]:
    found = UnfitValues(DEFINITIONS, dropped)
    for name, status, written, count in values:
        found.add(StoredValue("Gate", status, name, written, count))
    return [str(one) for one in found.list_findings()]


def test_values_that_fit_their_class_are_not_reported() -> None:
    """Each as the class for its subscription's status; whole models are not looked at."""
    assert (
        report(
            ("speed", "active", "100", 1),
            ("speed", "active", '"7"', 1),  # read leniently, as rows are
            ("speed", "initial", "1000", 5),
            ("title", "initial", '"AMS"', 5),
            ("title", "active", '"slow"', 5),
            ("tags", "active", "[99]", 5),  # decided with the speed of the same block only
            ("unknown", "active", "[]", 5),  # reported as one that the code lacks
        )
        == []
    )


def test_a_value_that_does_not_fit_is_reported_with_its_number_and_the_call_that_replaces_it() -> None:
    assert report(
        ("speed", "active", "1000", 3), ("speed", "active", '"fast"', 9), ("title", "active", '"AMS"', 1)
    ) == [
        (
            'the resource type speed of Gate: GateBlock cannot load "fast": Input should be a valid integer, unable to parse'
            " string as an integer (9): replace_value(op.get_bind(), 'Gate', 'speed', 'fast', …)"
        ),
        (
            "the resource type speed of Gate: GateBlock cannot load 1000: Input should be less than or equal to 100 (3):"
            " replace_value(op.get_bind(), 'Gate', 'speed', 1000, …)"
        ),
        (
            'the resource type title of Gate: GateBlock cannot load "AMS": titles are in lower case (1):'
            " replace_value(op.get_bind(), 'Gate', 'title', 'AMS', …)"
        ),
    ]


def test_a_part_of_a_value_is_named() -> None:
    (found,) = report(("tags", "initial", '[1, "x"]', 1))
    assert 'cannot load [1, "x"]: 1: Input should be a valid integer' in found


def test_very_many_different_values_are_counted_together() -> None:
    """The three most frequent have a call; nobody writes hundreds."""
    *shown, rest = report(*(("speed", "active", str(1000 + number), number) for number in range(1, 41)))
    assert [one.split("load ")[1].split(":")[0] for one in shown] == ["1040", "1039", "1038"]
    assert rest == (
        "the resource type speed of Gate: GateBlock cannot load 37 other values, such as 1037 (703):"
        " a task that corrects them while the code still loads them"
    )


@pytest.mark.parametrize("written", ["[" * 300 + "]" * 300, '"' + "x" * 200 + '"'])
def test_a_value_that_cannot_stand_in_a_line_of_code_is_replaced_with_all_others(written: str) -> None:
    (found,) = report(("tags", "active", written, 2))
    assert found.endswith(": fill_values(op.get_bind(), 'Gate', {'tags': …}, overwrite=True)")
    assert len(found) < 350


def test_values_that_are_about_to_be_dropped_are_not_reported() -> None:
    assert report(("speed", "active", "1000", 1), dropped={("Gate", "speed")}) == []
