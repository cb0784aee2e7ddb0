"""What is taken out of what a step returned, before it is saved."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from orchestrator.errors import InvalidResultError
from orchestrator.services.injection import Loaded, check_saved, take_models
from tests.unit.models import NodeProvisioning
from tests.unit.new_models import PROVISIONING, new_node, saved


@dataclass
class Peer:
    other: object = None


def test_each_place_of_a_model_gets_a_reference_and_the_rest_stays() -> None:
    node, peer = new_node(), Peer()
    taken = take_models({"nodes": [node, (node,)], "block": node.node, "rest": {"peer": peer, "number": 1}})

    assert taken is not None
    assert taken.value == {"nodes": [{}, [{}]], "block": {}, "rest": {"peer": peer, "number": 1}}
    assert [model for _, model in taken.references] == [node, node, node.node]


def test_a_value_without_models_is_left_to_those_who_store_it() -> None:
    itself: dict[str, object] = {}
    itself["itself"] = itself

    assert take_models({"some": [1, None, "text"]}) is None
    assert take_models(itself) is None


def test_models_beside_a_value_that_contains_itself_are_refused() -> None:
    itself: list[object] = []
    itself.append(itself)

    with pytest.raises(InvalidResultError, match="it contains itself or is too deep"):
        take_models({"node": new_node(), "itself": itself})


def test_objects_that_refer_to_each_other_are_looked_into_once() -> None:
    one = Peer()
    one.other = [Peer(one)]
    taken = take_models({"node": new_node(), "peer": one})

    assert taken is not None
    assert isinstance(taken.value, dict)
    assert taken.value["peer"] is one


def test_a_value_in_very_many_places_is_copied_once() -> None:
    value: list[object] = [new_node()]
    for _ in range(40):
        value = [value, value]
    taken = take_models(value)

    assert taken is not None
    assert len(taken.references) == 1


def test_a_model_that_was_changed_must_be_returned_or_saved() -> None:
    node, other = new_node(), new_node()
    saved(node, other)
    loaded: Loaded = {"one": node, "several": [other]}
    check_saved(loaded, None, ())
    other.node.node_name = "changed below it"

    check_saved(loaded, take_models({"other": other}), ())
    check_saved(loaded, None, {other.subscription_id})
    with pytest.raises(
        InvalidResultError, match=f"changed the subscription {other.subscription_id}, its argument 'several'"
    ):
        check_saved(loaded, take_models({"one": node}), {node.subscription_id})


def test_a_model_that_has_become_invalid_was_changed() -> None:
    node = new_node()
    saved(node)
    node.node.tags.append(7)  # type: ignore[arg-type]

    with pytest.raises(InvalidResultError, match="did not save it"):
        check_saved({"node": node}, None, ())


def test_a_block_that_was_changed_must_be_saved_with_its_subscription() -> None:
    node = new_node()
    saved(node)
    node.node.node_name = "changed"

    check_saved({"block": node.node}, take_models({"node": node}), ())
    with pytest.raises(InvalidResultError, match=r"changed the block .*within its subscription"):
        check_saved({"block": node.node}, None, ())


def test_a_model_that_was_converted_is_saved_as_what_it_has_become() -> None:
    node = new_node()
    saved(node)
    node.description = "changed, and then converted"
    loaded: Loaded = {"node": node}

    check_saved(loaded, take_models({"node": NodeProvisioning.from_other_lifecycle(node, PROVISIONING)}), ())
