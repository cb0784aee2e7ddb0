"""What is to be saved of a model, and what may not be."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import IPv4Address
from typing import Annotated, Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, PlainSerializer, computed_field

from orchestrator.domain import ProductBlockModel, SubscriptionModel, flat
from orchestrator.domain.rows import MAX_CUSTOMER_ID, MAX_DEPTH, build_block_row
from orchestrator.errors import ModelError
from orchestrator.types import SubscriptionLifecycle
from tests.unit.models import (
    FolderBlockInactive,
    Node,
    NodeBlockInactive,
    PortBlockInactive,
)
from tests.unit.new_models import folders_of, found_in, new_folders, new_link, new_node, prepare, product, saved

ACTIVE, INITIAL = SubscriptionLifecycle.ACTIVE, SubscriptionLifecycle.INITIAL
PROVISIONING, TERMINATED = SubscriptionLifecycle.PROVISIONING, SubscriptionLifecycle.TERMINATED


def test_nothing_is_to_be_saved_twice() -> None:
    node = new_node()
    saved(node)

    assert prepare(node).difference is None
    assert prepare(SubscriptionModel.from_other_lifecycle(node, INITIAL)).difference is None


@pytest.mark.parametrize("fold", [0, 1])
def test_a_date_in_an_hour_that_the_clocks_repeat_is_saved_once(fold: int) -> None:
    """PEP 495: such a time equals none of another zone, not the same instant in UTC either."""
    node = new_node()
    node.start_date = datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Amsterdam"), fold=fold)
    saved(node)
    node.start_date = node.start_date.astimezone(UTC)

    assert prepare(node).difference is None


def test_a_block_in_two_fields_is_in_the_history_only_when_it_changes() -> None:
    """The audit trail must not show values that nobody has changed."""
    folders = new_folders()
    below = FolderBlockInactive.new(folders.subscription_id)
    other = FolderBlockInactive.new(folders.subscription_id, folders=[below])
    folders.top.folders = [other, below]
    saved(folders)
    folders.description = "another"
    assert found_in(folders).changes == {"description": ("", "another")}
    saved(folders)
    below.label = "new"
    assert list(found_in(folders).changes.values()) == [(None, "new")]


def test_a_list_changed_in_place_is_noticed() -> None:
    node = new_node()
    saved(node)

    node.node.tags.append("core")

    assert found_in(node).changes == {f"{node.node.subscription_instance_id}.tags": ([], ["core"])}


def test_a_list_changed_in_place_is_validated_before_it_is_saved() -> None:
    node = new_node()
    node.node.tags.append(7)  # type: ignore[arg-type]

    with pytest.raises(ModelError, match=rf"Node {node.node.subscription_instance_id} cannot be saved.*tags.0: "):
        prepare(node)


def test_what_pydantic_makes_of_a_value_is_what_is_kept() -> None:
    folders = new_folders()
    folders.top.words.add("b")
    folders.top.__dict__["size"] = "12"

    assert found_in(folders).changes[f"{folders.top.subscription_instance_id}.size"] == (None, 12)
    assert folders.top.size == 12


def test_blocks_put_into_a_list_in_place_are_validated_before_they_are_saved() -> None:
    link = new_link()
    link.ports.append(PortBlockInactive.new(link.subscription_id))

    with pytest.raises(
        ModelError, match=r"the subscription .* cannot be saved as LinkInactive: ports: List should have at most 2"
    ):
        prepare(link)


def test_a_block_of_the_wrong_lifecycle_is_not_saved() -> None:
    node = Node.from_other_lifecycle(new_node(), ACTIVE)
    node.__dict__["node"] = NodeBlockInactive.new(node.subscription_id)

    with pytest.raises(
        ModelError, match="is NodeBlockInactive, but in a subscription that is active it must be NodeBlock"
    ):
        prepare(node)


def test_a_model_whose_status_is_another_classes_is_not_saved() -> None:
    node = new_node()
    node.__dict__["status"] = ACTIVE

    with pytest.raises(ModelError, match="is active, and so Node, but the model is NodeInactive"):
        prepare(node)


def test_a_block_below_itself_is_not_saved() -> None:
    folders = new_folders()
    inner = FolderBlockInactive.new(folders.subscription_id)
    folders.top.folders.append(inner)
    inner.folders.append(folders.top)

    with pytest.raises(ModelError, match=r"contains itself, by way of FolderBlockInactive.folders"):
        prepare(folders)


def test_a_block_may_stand_in_several_places_but_only_as_one_object() -> None:
    folders = new_folders()
    inner = FolderBlockInactive.new(folders.subscription_id)
    folders.top.folders += [inner, inner]
    assert len(found_in(folders).made) == 2

    folders.top.folders[1] = inner.model_copy(update={"title": "another"})
    with pytest.raises(ModelError, match="is in two fields with different values"):
        prepare(folders)


def test_blocks_do_not_go_deeper_than_can_be_loaded() -> None:
    folders = new_folders()
    at = folders.top
    for _ in range(MAX_DEPTH - 1):
        at.folders.append(FolderBlockInactive.new(folders.subscription_id))
        at = at.folders[0]
    assert len(found_in(folders).made) == MAX_DEPTH

    at.folders.append(FolderBlockInactive.new(folders.subscription_id))
    with pytest.raises(ModelError, match=f"is nested deeper than {MAX_DEPTH} blocks"):
        prepare(folders)


def test_a_block_of_another_subscription_is_only_used() -> None:
    node, link = Node.from_other_lifecycle(new_node(), ACTIVE), new_link()
    link.ports[0].node = node.node
    with pytest.raises(
        ModelError, match=f"belongs to the subscription {node.subscription_id}, which has not been saved"
    ):
        prepare(link)
    saved(node)
    assert set(found_in(link).made) == {port.subscription_instance_id for port in link.ports}

    node.node.ims_id = 8
    with pytest.raises(
        ModelError, match=f"was changed, but it belongs to the subscription {node.subscription_id}, not"
    ):
        prepare(link)
    saved(node)
    prepare(link)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "nul\0", {"nul\0": 1}, ["nul\0"], object(), "\ud800"])
def test_what_the_database_cannot_hold_is_refused_by_name(value: object) -> None:
    folders = new_folders()
    folders.top.anything = value

    with pytest.raises(ModelError, match=f"Folder {folders.top.subscription_instance_id} "):
        prepare(folders)


def test_a_number_that_json_does_not_have_is_reported_with_its_field() -> None:
    folders = new_folders()
    folders.top.ratio, folders.top.title = float("nan"), "NaN"

    with pytest.raises(ModelError, match=r"holds something that cannot be stored, in ratio: "):
        prepare(folders)


@pytest.mark.parametrize("name", ["customer_id", "description", "note"])
def test_a_text_of_the_subscription_that_the_database_cannot_hold_is_refused(name: str) -> None:
    node = new_node()
    setattr(node, name, "nul\0")

    with pytest.raises(ModelError, match=rf"{name} of the subscription .*null character"):
        prepare(node)


def test_a_customer_id_that_no_index_can_hold_is_refused() -> None:
    node = new_node()
    node.customer_id = "x" * MAX_CUSTOMER_ID
    prepare(node)
    node.customer_id += "x"

    with pytest.raises(ModelError, match=r"^customer_id of the subscription .* has 501 characters, more than 500$"):
        prepare(node)


def test_a_label_that_the_database_cannot_hold_is_refused() -> None:
    node = new_node()
    node.node.label = "nul\0"

    with pytest.raises(ModelError, match=r"label of the block Node .*null character"):
        prepare(node)


def test_what_could_not_be_loaded_again_is_not_saved() -> None:
    class Even(ProductBlockModel, product_block_name="Even"):
        number: Annotated[int, PlainSerializer(lambda number: number + 1), Field(multiple_of=2)] | None = None
        other: IPv4Address | str | None = None

    class EvenInactive(SubscriptionModel, is_base=True):
        block: Even

    key = uuid4()
    block = Even.new(key)
    made = EvenInactive(subscription_id=key, product=product("S"), customer_id="c", description="", block=block)
    prepare(made)

    block.number = 2
    with pytest.raises(
        ModelError, match="what is stored of it would not fit Even: number: Input should be a multiple of 2"
    ):
        prepare(made)
    block.number, block.other = None, IPv4Address("10.0.0.1")
    with pytest.raises(
        ModelError, match=r"Even.other would be '10.0.0.1', not IPv4Address\('10.0.0.1'\): JSON does not"
    ):
        prepare(made)


@pytest.mark.parametrize("wrong", ["x", None, {}, PortBlockInactive, 7])
def test_something_else_than_a_block_in_a_list_is_refused(wrong: Any) -> None:
    link = new_link()
    link.ports.append(wrong)

    with pytest.raises(ModelError, match=rf"ports.2 of the subscription {link.subscription_id} must be a block, not "):
        prepare(link)


def test_something_else_than_a_list_of_blocks_is_refused() -> None:
    folders = new_folders()
    folders.top.__dict__["folders"] = None

    with pytest.raises(ModelError, match=r"folders of the block Folder .* must be a list of blocks, not None"):
        prepare(folders)


def test_a_subscription_in_a_list_of_blocks_is_refused() -> None:
    link = new_link()
    link.ports.append(new_node())  # type: ignore[arg-type]

    with pytest.raises(ModelError, match=r"ports.2 of the subscription .* must be a block, not NodeInactive"):
        prepare(link)


def test_a_computed_field_is_not_asked_when_its_block_is_saved() -> None:
    class Computing(ProductBlockModel, product_block_name="Computing"):
        size: int | None = None

        @computed_field  # type: ignore[prop-decorator]
        @property
        def half(self) -> float:
            return self.size / 2  # type: ignore[operator]

    assert build_block_row(Computing.new(uuid4())).values == {}


def test_sets_are_stored_in_one_order() -> None:
    folders = new_folders()
    folders.top.words |= {"b", "a", "c"}

    assert build_block_row(folders.top).values["words"] == ["a", "b", "c"]


def test_none_is_stored_only_where_it_would_not_come_back_by_itself() -> None:
    folders = new_folders()
    folders.top.title = folders.top.size = None

    assert build_block_row(folders.top).values == {"words": [], "size": None, "ratio": 1.0}
    assert f"{folders.top.subscription_instance_id}.size" not in flat(folders)


@given(st.data())
def test_the_difference_of_a_new_subscription_has_every_value(data: st.DataObject) -> None:
    folders = folders_of(data)

    assert {path: new for path, (_, new) in found_in(folders).changes.items()} == flat(folders)
