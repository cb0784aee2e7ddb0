"""B10, B32: the state holds references, and a parameter's annotation says what they are references to."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.engine.arguments import Arguments
from orchestrator.engine.references import subscription_ids
from orchestrator.errors import DefinitionError, MissingArgumentError
from orchestrator.types import Stored

ID, OTHER = UUID(int=1), UUID(int=2)
WHAT = "the step 'Configure'"


class Node(Stored):
    reference_key: ClassVar[str] = "subscription_id"


class Port(Stored):
    reference_key: ClassVar[str] = "subscription_id"


class Block(Stored):
    reference_key: ClassVar[str] = "subscription_instance_id"


async def single(node: Node) -> None: ...
async def union(node: Node | Port) -> None: ...
async def optional(node: Node | None) -> None: ...
async def with_default(node: Node | None = None) -> None: ...
async def many(node: list[Node | Port]) -> None: ...
async def optional_many(node: list[Node] | None = None) -> None: ...
async def annotated(node: Annotated[Node, "of ours"]) -> None: ...
async def block(node: Block) -> None: ...
async def subscription_parameter(subscription: Node) -> None: ...


def references(function: Any, state: dict[str, Any]) -> dict[str, Any]:
    return Arguments.of(function, WHAT).references(state)


@pytest.mark.parametrize("value", [str(ID), ID, {"subscription_id": str(ID), "version": 3}])
@pytest.mark.parametrize("function", [single, union, optional, with_default, annotated])
def test_an_id_or_an_object_that_holds_it_is_a_reference(function: Any, value: Any) -> None:
    assert references(function, {"node": value}) == {"node": ID}


def test_a_list_of_references_is_read_in_order() -> None:
    state = {"node": [str(OTHER), {"subscription_id": str(ID)}]}

    assert references(many, state) == {"node": [OTHER, ID]}
    assert references(optional_many, state) == {"node": [OTHER, ID]}
    assert references(many, {"node": []}) == {"node": []}


def test_a_block_is_known_by_its_own_key() -> None:
    reference = {"subscription_instance_id": str(ID), "owner_subscription_id": str(OTHER)}

    assert references(block, {"node": reference}) == {"node": ID}


@pytest.mark.parametrize("function", [optional, with_default, optional_many])
@pytest.mark.parametrize("state", [{}, {"node": None}])
def test_what_may_be_missing_is_left_out(function: Any, state: dict[str, Any]) -> None:
    arguments = Arguments.of(function, WHAT)

    assert arguments.references(state) == {}
    assert arguments.fill(state, {}) == {"node": None}


def test_the_subscription_is_also_found_under_its_id() -> None:
    assert references(subscription_parameter, {"subscription_id": str(ID)}) == {"subscription": ID}
    assert references(subscription_parameter, {"subscription_id": str(ID), "subscription": str(OTHER)}) == {
        "subscription": OTHER
    }
    with pytest.raises(MissingArgumentError, match="asks for 'node'"):
        references(single, {"subscription_id": str(ID)})


@pytest.mark.parametrize(
    ("function", "state", "text"),
    [
        (single, {"other": 1}, r"asks for 'node' \(Node\), which the state does not have. It has: other"),
        (union, {}, r"asks for 'node' \(Node \| Port\), which the state does not have. It has: nothing"),
        (single, {"node": None}, "neither an id nor an object with 'subscription_id'"),
        (single, {"node": "ams-1"}, "the state holds 'ams-1': neither an id nor"),
        (single, {"node": {"name": "ams-1"}}, "neither an id nor an object with 'subscription_id'"),
        (block, {"node": {"subscription_id": str(ID)}}, "an object with 'subscription_instance_id'"),
        (many, {"node": str(ID)}, "asks for 'node' as a list"),
        (many, {"node": [str(ID), 7]}, "neither an id"),
    ],
)
def test_what_is_no_reference_is_said_in_the_error(function: Any, state: dict[str, Any], text: str) -> None:
    with pytest.raises(MissingArgumentError, match=text):
        references(function, state)


async def mixed(node: Node | Block) -> None: ...
async def mixed_with_text(node: Node | str) -> None: ...
async def mixed_list(node: list[Node | int]) -> None: ...
async def list_or_single(node: list[Node] | str) -> None: ...


@pytest.mark.parametrize("function", [mixed, mixed_with_text, mixed_list, list_or_single])
def test_kinds_cannot_be_mixed_in_one_parameter(function: Any) -> None:
    with pytest.raises(DefinitionError, match=r"asks for 'node' as .* cannot be mixed in one parameter"):
        Arguments.of(function, WHAT)


def test_a_loaded_model_reaches_the_function_as_it_is() -> None:
    node = Node()

    assert Arguments.of(single, WHAT).fill({}, {}, {"node": node})["node"] is node


def test_events_name_the_subscriptions_that_a_state_refers_to() -> None:
    state = {
        "subscription_id": str(ID),
        "subscription": {"subscription_id": str(ID), "version": 1},
        "ports": [{"subscription_id": str(OTHER)}, {"name": "no reference"}],
        "block": {"subscription_instance_id": str(uuid4()), "owner_subscription_id": str(uuid4())},
        "text": "subscription_id",
    }

    assert subscription_ids(state) == [ID, OTHER]


@given(
    st.dictionaries(
        st.sampled_from(["subscription_id", "a", "b"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text() | st.uuids().map(str),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["subscription_id", "x"]), inner, max_size=2)
            ),
            max_leaves=8,
        ),
    )
)
def test_whatever_a_state_holds_its_references_can_be_read(state: dict[str, Any]) -> None:
    found = subscription_ids(state)

    assert all(isinstance(one, UUID) for one in found)
    assert len(set(found)) == len(found)
