"""What is taken out of what a step returned, before it is saved."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from orchestrator.errors import InvalidResultError
from orchestrator.services.injection import take_models
from tests.unit.new_models import new_node


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
