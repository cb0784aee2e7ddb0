"""B32: parameters are filled from the state by name and annotation."""

from __future__ import annotations

import functools
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from enum import Enum
from ipaddress import IPv4Address
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from pydantic import BaseModel, Field

from orchestrator.engine.arguments import Arguments, call, is_async
from orchestrator.errors import DefinitionError, MissingArgumentError
from orchestrator.workflow import CallbackTerms

ID = "6f1e0a52-93d4-4f2c-8e5e-0d8f7a3b1c9d"
WHAT = "the step 's'"


class Speed(Enum):
    SLOW = "slow"
    FAST = "fast"


class Port(BaseModel):
    name: str
    speed: Speed = Speed.SLOW


@dataclass
class Point:
    x: int
    y: int


def fill(function: Callable[..., Any], state: dict[str, Any], **engine: object) -> dict[str, Any]:
    return Arguments.of(function, WHAT).fill(state, engine)


def text(x: str) -> None: ...
def number(x: int) -> None: ...
def real(x: float) -> None: ...
def flag(x: bool) -> None: ...
def identity(x: UUID) -> None: ...
def enum(x: Speed) -> None: ...
def literal(x: Literal["a", "b"]) -> None: ...
def model(x: Port) -> None: ...
def models(x: list[Port]) -> None: ...
def identities(x: list[UUID]) -> None: ...
def mapping(x: dict[str, Port]) -> None: ...
def optional(x: UUID | None) -> None: ...
def union(x: int | Port) -> None: ...
def day(x: date) -> None: ...
def moment(x: datetime) -> None: ...
def address(x: IPv4Address) -> None: ...
def point(x: Point) -> None: ...
def annotated(x: Annotated[int, Field(ge=1)]) -> None: ...
def bare(x) -> None: ...  # type: ignore[no-untyped-def]  # noqa: ANN001
def anything(x: Any) -> None: ...


@pytest.mark.parametrize(
    ("function", "value", "expected"),
    [
        (text, "a", "a"),
        (number, 5, 5),
        (real, 5, 5.0),
        (flag, True, True),
        (identity, ID, UUID(ID)),
        (enum, "fast", Speed.FAST),
        (literal, "b", "b"),
        (model, {"name": "p", "speed": "fast"}, Port(name="p", speed=Speed.FAST)),
        (models, [{"name": "p"}, {"name": "q"}], [Port(name="p"), Port(name="q")]),
        (models, [], []),
        (identities, [ID], [UUID(ID)]),
        (mapping, {"k": {"name": "p"}}, {"k": Port(name="p")}),
        (optional, None, None),
        (optional, ID, UUID(ID)),
        (union, 5, 5),
        (union, {"name": "p"}, Port(name="p")),
        (day, "2024-05-01", date(2024, 5, 1)),
        (moment, "2024-05-01T12:00:00", datetime(2024, 5, 1, 12)),  # noqa: DTZ001 - what the text says
        (address, "10.0.0.1", IPv4Address("10.0.0.1")),
        (point, {"x": 1, "y": 2}, Point(1, 2)),
        (annotated, 1, 1),
        (bare, {"any": ["thing"]}, {"any": ["thing"]}),
        (anything, [1, "a"], [1, "a"]),
    ],
)
def test_a_parameter_has_the_type_of_its_annotation(function: Callable[..., Any], value: Any, expected: Any) -> None:
    filled = fill(function, {"x": value, "unrelated": 1})

    assert filled == {"x": expected}
    assert type(filled["x"]) is type(expected)


@pytest.mark.parametrize(
    ("function", "value", "annotation", "problem"),
    [
        (text, 5, "str", "value: Input should be a valid string"),
        (number, "five", "int", "value: Input should be a valid integer"),
        (identity, "no", "UUID", "value: Input should be a valid UUID"),
        (enum, "medium", "Speed", "value: Input should be 'slow' or 'fast'"),
        (model, {"speed": "fast"}, "Port", "name: Field required"),
        (models, [{"name": "p"}, {}], "list[", "1.name: Field required"),
        (annotated, 0, "Annotated[int", "value: Input should be greater than or equal to 1"),
        (number, None, "int", "value: Input should be a valid integer"),
    ],
)
def test_a_value_of_the_wrong_type_is_named(
    function: Callable[..., Any], value: Any, annotation: str, problem: str
) -> None:
    with pytest.raises(MissingArgumentError) as caught:
        fill(function, {"x": value})

    assert str(caught.value).startswith(f"{WHAT} asks for 'x' as ")
    assert annotation in str(caught.value)
    assert f"but the state holds something else: {problem}" in str(caught.value)


def test_a_missing_value_is_named_together_with_what_there_is() -> None:
    with pytest.raises(MissingArgumentError) as caught:
        fill(number, {"z": 1, "a": 2})

    assert str(caught.value) == f"{WHAT} asks for 'x' (int), which the state does not have. It has: a, z"


def test_an_empty_state_is_named_as_such() -> None:
    with pytest.raises(MissingArgumentError, match="It has: nothing"):
        fill(number, {})


def union_with_none(x: int | str | None) -> None: ...
def optional_default(x: str | None = "default") -> None: ...
def annotated_optional(x: Annotated[int | None, Field(ge=1)]) -> None: ...
def required_list(x: list[int | None]) -> None: ...


@pytest.mark.parametrize("function", [optional, union_with_none, annotated_optional])
def test_a_missing_optional_value_reads_as_none(function: Callable[..., Any]) -> None:
    assert fill(function, {}) == {"x": None}


def test_a_default_wins_over_none_and_the_state_over_both() -> None:
    assert fill(optional_default, {}) == {"x": "default"}
    assert fill(optional_default, {"x": None}) == {"x": None}
    assert fill(optional_default, {"x": "state"}) == {"x": "state"}


def test_only_an_optional_value_itself_may_be_missing() -> None:
    with pytest.raises(MissingArgumentError):
        fill(required_list, {})


async def engine_parameters(state: dict[str, Any], session: object, process_id: UUID, idempotency_key: str) -> None: ...


def test_the_engine_fills_its_own_parameters_whatever_the_state_holds() -> None:
    """B9."""
    state = {"state": 1, "session": 2, "process_id": 3, "idempotency_key": 4}
    session = object()

    filled = fill(engine_parameters, state, session=session, process_id=UUID(ID), idempotency_key="k")

    assert filled == {"state": state, "session": session, "process_id": UUID(ID), "idempotency_key": "k"}
    assert filled["session"] is session


def test_a_step_gets_copies_and_cannot_change_the_state_in_place() -> None:
    def mutating(state: dict[str, Any], x: Any, y: list[int]) -> None:
        state["x"]["deep"].append(5)
        x["deep"].append(6)
        y.append(7)

    before: dict[str, Any] = {"x": {"deep": []}, "y": []}

    mutating(**fill(mutating, before))

    assert before == {"x": {"deep": []}, "y": []}


def test_an_engine_parameter_that_is_not_to_be_had_is_named() -> None:
    with pytest.raises(MissingArgumentError, match="requests 'session', which is not available in this context"):
        fill(engine_parameters, {}, process_id=UUID(ID), idempotency_key="k")


def callback_action(callback_token: str, callback_exchange: str, reply_path: str, node: str) -> None: ...


def test_the_action_of_a_callback_step_gets_token_exchange_and_a_route_under_its_own_name() -> None:
    """B36."""
    arguments = Arguments.of(callback_action, WHAT, CallbackTerms("result", "reply_path", None))
    engine = {"callback_token": "t", "callback_exchange": "e", "reply_path": "/r"}

    assert arguments.fill({"node": "n", "reply_path": "from the state"}, engine) == {**engine, "node": "n"}


def test_outside_a_callback_step_these_names_are_state_keys_like_any_other() -> None:
    assert fill(callback_action, {"callback_token": "t", "callback_exchange": "e", "reply_path": "r", "node": "n"}) == {
        "callback_token": "t",
        "callback_exchange": "e",
        "reply_path": "r",
        "node": "n",
    }


def two(x: UUID, y: int, z: str = "z") -> str:
    return f"{x} {y} {z}"


@pytest.mark.parametrize(
    "function", [functools.partial(two, z="partial"), functools.partial(functools.partial(two, z="a"), z="partial")]
)
def test_the_parameters_of_a_partial_are_filled(function: Callable[..., str]) -> None:
    filled = fill(function, {"x": ID, "y": 1})

    assert function(**filled) == f"{ID} 1 partial"


def test_a_partial_that_gives_the_first_parameter_asks_for_the_others_only() -> None:
    function = functools.partial(two, UUID(ID))

    assert function(**fill(function, {"y": "7", "x": "not asked for"})) == f"{ID} 7 z"


def doubled(function: Callable[..., str]) -> Callable[..., str]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> str:
        return function(*args, **kwargs) * 2

    return wrapper


def test_a_wrapped_function_is_asked_for_its_own_parameters() -> None:
    filled = fill(doubled(two), {"x": ID, "y": 1})

    assert filled == {"x": UUID(ID), "y": 1, "z": "z"}
    assert doubled(two)(**filled) == f"{ID} 1 z" * 2


class Callme:
    def __call__(self, x: UUID) -> str:
        return str(x)

    async def method(self, x: Port) -> str:
        return x.name


def test_callable_objects_and_methods_are_filled() -> None:
    assert fill(Callme(), {"x": ID}) == {"x": UUID(ID)}
    assert fill(Callme().method, {"x": {"name": "p"}}) == {"x": Port(name="p")}


@functools.singledispatch
def provision(x: Speed | int | str) -> str:
    raise NotImplementedError


@provision.register
def _(number: int) -> str:
    return f"number {number}"


@provision.register
def _(x: str, y: str = "nothing") -> str:
    return f"text {x} and {y}"


@pytest.mark.parametrize(("state", "expected"), [({"x": 5}, "number 5"), ({"x": "medium"}, "text medium and nothing")])
def test_a_singledispatch_function_runs_what_fits_the_injected_value(state: dict[str, Any], expected: str) -> None:
    """B37."""
    assert call(provision, fill(provision, state)) == expected


def test_a_singledispatch_function_gets_its_further_arguments_by_name() -> None:
    assert call(provision, {"x": "a", "y": "b"}) == "text a and b"


def test_other_functions_are_called_by_name() -> None:
    def only_by_name(*, x: int, y: int) -> int:
        return x - y

    assert call(only_by_name, {"y": 1, "x": 3}) == 2


async def async_function() -> None: ...


def plain_function() -> None: ...


@functools.wraps(plain_function)
async def async_around_plain() -> None: ...


@functools.wraps(async_function)
def plain_around_async() -> Awaitable[None]:
    return async_function()


@functools.singledispatch
async def async_dispatch(x: object) -> None: ...


class AsyncCall:
    async def __call__(self) -> None: ...


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (async_function, True),
        (plain_function, False),
        (functools.partial(async_function), True),
        (functools.partial(functools.partial(plain_function)), False),
        (plain_around_async, True),
        (async_around_plain, True),
        (async_dispatch, True),
        (provision, False),
        (AsyncCall(), True),
        (Callme(), False),
        (Callme().method, True),
        (print, False),
    ],
)
def test_it_is_known_whether_calling_a_function_gives_something_to_await(
    function: Callable[..., Any], *, expected: bool
) -> None:
    assert is_async(function) is expected


def forward(x: Later) -> None: ...


class Later(BaseModel):
    a: int


def test_an_annotation_may_name_what_is_defined_further_down() -> None:
    assert fill(forward, {"x": {"a": 1}}) == {"x": Later(a=1)}


def test_a_name_that_only_one_parameter_cannot_resolve_is_no_matter_for_the_engines_own() -> None:
    """Authors import ``AsyncSession`` for the type checker only."""

    async def author(session: AsyncSession, x: int) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    assert fill(author, {"x": 1}, session=None) == {"x": 1, "session": None}


def test_a_class_of_another_function_cannot_be_resolved_and_the_text_says_so() -> None:
    class Local(BaseModel):
        a: int

    def author(x: Local) -> None: ...

    with pytest.raises(DefinitionError, match=re.escape("the annotation of 'x' ('Local') cannot be resolved")):
        Arguments.of(author, WHAT)


def test_nothing_asks_for_nothing() -> None:
    assert Arguments.of(None, WHAT).fill({"x": 1}, {}) == {}


def test_a_mapping_annotation_keeps_the_value() -> None:
    def author(x: Mapping[str, int]) -> None: ...

    assert fill(author, {"x": {"a": 1}}) == {"x": {"a": 1}}
