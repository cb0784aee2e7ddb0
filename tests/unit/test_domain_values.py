"""Values of every kind: what is stored of them comes back as the same, or is refused when it is saved."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections import OrderedDict, defaultdict, deque
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_interface,
    ip_network,
)
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
from annotated_types import Len
from asyncpg.pgproto import pgproto
from pydantic import (
    AnyUrl,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    RootModel,
    SerializeAsAny,
    StrictBool,
    StrictInt,
    StrictStr,
    computed_field,
    create_model,
    field_serializer,
    field_validator,
)
from pydantic_core import from_json, to_json
from typing_extensions import TypedDict

from orchestrator.domain import ProductBlockModel
from orchestrator.domain.rows import build_block_row
from orchestrator.domain.serialization import check_round_trip, check_values, read, restore_none
from orchestrator.errors import ModelError

AMSTERDAM = ZoneInfo("Europe/Amsterdam")
REPEATED = datetime(2024, 10, 27, 0, 30, tzinfo=UTC).astimezone(AMSTERDAM)
"""In the hour that the clocks of its zone repeat."""

SKIPPED = datetime(2024, 3, 31, 2, 30, tzinfo=AMSTERDAM)
"""In the hour that the clocks of its zone skip."""


class Colour(Enum):
    RED = "red"
    NONE = 0


class Level(IntEnum):
    ONE = 1


class Role(StrEnum):
    P = "P"


class Endpoint(BaseModel):
    host: str = ""
    vlan: int | None = Field(default=None, alias="vlanId")
    seen: Annotated[int | None, Field(validation_alias="lastSeen")] = None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def title(self) -> str:
        return f"{self.host}.{self.vlan}"


class Strict(Endpoint):
    model_config = ConfigDict(extra="forbid", serialize_by_alias=True)


class TlsEndpoint(Endpoint):
    certificate: str = ""


class ByName(BaseModel):
    kind: Literal["name"] = "name"
    name: str


class ByNumber(BaseModel):
    kind: Literal["number"] = "number"
    number: int


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")


@dataclasses.dataclass
class Place:
    street: str
    numbers: set[int] = dataclasses.field(default_factory=set)
    opened: date | None = None


class Point(NamedTuple):
    x: int
    y: float


class Size(TypedDict):
    width: Annotated[int, Field(alias="breadth")]
    unit: str


class Words(RootModel[frozenset[str]]):
    pass


class Opaque:
    """An author's class that does not define equality."""

    def __init__(self, text: str) -> None:
        self.text = text

    @classmethod
    def __get_pydantic_core_schema__(cls, _: object, __: object) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(
            lambda value: value if isinstance(value, cls) else cls(value),
            serialization=core_schema.plain_serializer_function_ser_schema(lambda value: value.text[:3]),
        )


def block_of(annotation: Any, value: object, **options: Any) -> ProductBlockModel:
    """A block that has a value of this type."""
    name = f"Value{uuid4().hex}"
    cls = create_model(
        name, __base__=ProductBlockModel, __cls_kwargs__={"product_block_name": name}, value=(annotation | None, None)
    )
    assert issubclass(cls, ProductBlockModel)
    return cls.new(uuid4(), value=value, **options)


def in_utc(value: object) -> object:
    """Replace times with a zone by what compares as an instant."""
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC)
    if isinstance(value, list | set):
        return type(value)(map(in_utc, value))
    if type(value) is dict:
        return {in_utc(key): in_utc(one) for key, one in value.items()}
    return value


def stored_and_loaded(block: ProductBlockModel) -> Any:
    """What the value is when it was saved and loaded again."""
    check_values(block)
    row = build_block_row(block)
    check_round_trip(block, row)
    own = {"owner_subscription_id": block.owner_subscription_id}
    stored = from_json(to_json(row.values))
    back = read(type(block), {**own, **restore_none(type(block), stored)})
    assert build_block_row(back).values == row.values, "a save of what was loaded has nothing to do"
    return back.value  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (str, "a"),
        (int, 2**70),
        (float, 1.5),
        (bool, True),
        (int | float, 5.0),
        (float | int, 5),
        (bool | int, True),
        (bool | int, 1),
        (int | str, "5"),
        (StrictInt | StrictBool | StrictStr, True),
        (Colour, Colour.NONE),
        (Level, Level.ONE),
        (Role, Role.P),
        (Role | int, Role.P),
        (Literal["a", 1, Role.P], 1),
        (Literal[Role.P], Role.P),
        (UUID, uuid4()),
        (Annotated[UUID, Field(strict=True)], uuid4()),
        (Annotated[set[int], Field(strict=True)], {1}),
        (datetime, datetime(2026, 1, 1, 12, 30, 0, 1, tzinfo=UTC)),
        (datetime, datetime(2026, 7, 1, 12, tzinfo=ZoneInfo("Europe/Amsterdam"))),
        (datetime, REPEATED),
        (datetime, SKIPPED),
        (list[datetime], [REPEATED, SKIPPED]),
        (set[datetime], {REPEATED, SKIPPED}),
        (dict[datetime, datetime], {REPEATED: SKIPPED}),
        (datetime, datetime(2026, 1, 1)),  # noqa: DTZ001
        (AwareDatetime, datetime(2026, 1, 1, tzinfo=UTC)),
        (date, date(2026, 1, 1)),
        (time, time(1, 2, 3)),
        (timedelta, timedelta(days=1, microseconds=1)),
        (Decimal, Decimal("1.10")),
        (IPv4Address, ip_address("10.0.0.1")),
        (IPv6Address, ip_address("2001:db8::1")),
        (IPv4Address | IPv6Address, ip_address("2001:db8::1")),
        (IPv4Network | IPv6Network, ip_network("10.0.0.0/8")),
        (IPv4Interface | IPv6Interface, ip_interface("10.0.0.1/24")),
        (Annotated[IPv4Address | str, Field(union_mode="left_to_right")], ip_address("10.0.0.1")),
        (Annotated[IPv4Address | str, Field(union_mode="left_to_right")], "a.example"),
        (Annotated[UUID | str, Field(union_mode="left_to_right")], uuid4()),
        (Annotated[IPv4Network | IPv4Interface, Field(union_mode="left_to_right")], ip_network("10.0.0.0/24")),
        (Annotated[IPv4Network | IPv4Interface, Field(union_mode="left_to_right")], ip_interface("10.0.0.1/24")),
        (Annotated[int, Field(ge=1, le=4094)], 7),
        (Annotated[list[int], Len(1, 2)], [1, 2]),
        (list[IPv4Address], [ip_address("10.0.0.1")]),
        (set[UUID], {uuid4(), uuid4()}),
        (frozenset[Role], frozenset({Role.P})),
        (dict[str, list[float]], {"a": [1.0, 2.5]}),
        (dict[int, date], {7: date(2026, 1, 1)}),
        (dict[UUID, set[str]], {uuid4(): {"a", "b"}}),
        (tuple[int, str], (1, "a")),
        (tuple[IPv4Address, ...], (ip_address("10.0.0.1"),)),
        (deque[int], deque([1, 2])),
        (defaultdict[str, list[int]], defaultdict(list, a=[1])),
        (OrderedDict[str, int], OrderedDict(b=1, a=2)),
        (Sequence[int], [1]),
        (Mapping[str, int], {"a": 1}),
        (Mapping[str, int], OrderedDict(b=1, a=2)),
        (Path, Path("/etc")),
        (AnyUrl, AnyUrl("https://example.com/")),
        (JsonValue, {"a": [1, None, "x", True, 2.5]}),
        (Any, {"a": [1, None, "x", True, 2.5]}),
        (Endpoint, Endpoint(host="a", vlanId=7, lastSeen=1)),
        (Strict, Strict(host="a", vlanId=7)),
        (list[Endpoint], [Endpoint(vlanId=7)]),
        (Open, Open(more=1)),
        (ByName | ByNumber, ByNumber(number=1)),
        (Annotated[ByName | ByNumber, Field(discriminator="kind")], ByNumber(number=1)),
        (Place, Place("a", {1, 2}, date(2026, 1, 1))),
        (dict[str, Place], {"a": Place("a")}),
        (Point, Point(1, 2.0)),
        (Words, Words(frozenset({"a", "b"}))),
        (Opaque, Opaque("abc")),
    ],
)
def test_a_value_comes_back_as_it_was(annotation: Any, value: object) -> None:
    back = stored_and_loaded(block_of(annotation, value))

    assert type(back) is type(value) or annotation == Mapping[str, int]
    assert in_utc(back) == in_utc(value) or vars(back) == vars(value)


def test_a_typed_dict_comes_back_whatever_its_keys_are_called_outside() -> None:
    assert stored_and_loaded(block_of(Size, {"breadth": 1, "unit": "m"})) == {"width": 1, "unit": "m"}


def test_an_id_of_the_drivers_own_class_is_an_id() -> None:
    """What SQL in a step gives is of a class of asyncpg's."""
    key = uuid4()

    assert stored_and_loaded(block_of(UUID, pgproto.UUID(str(key)))) == key


def test_what_is_none_comes_back_as_none() -> None:
    assert stored_and_loaded(block_of(int, None)) is None

    class Defaults(ProductBlockModel, product_block_name="Defaults"):
        number: int | None = 5
        many: list[int] | None = Field(default_factory=list)
        word: Literal["a"] | None = "a"

    made = Defaults.new(uuid4(), number=None, many=None, word=None)
    check_round_trip(made, build_block_row(made))
    assert build_block_row(made).values == {"number": None, "many": None, "word": None}


@pytest.mark.parametrize(
    ("annotation", "value", "words"),
    [
        (IPv4Address | str, ip_address("10.0.0.1"), r"'10.0.0.1', not IPv4Address\('10.0.0.1'\): .*left_to_right"),
        (UUID | str, UUID(int=1), r"'00000000-.*', not UUID\('.*'\): JSON does not tell which member of the union"),
        (IPv4Interface | IPv4Network, ip_network("10.0.0.0/24"), "IPv4Interface.*, not IPv4Network.*narrower type"),
        (datetime | date, date(2026, 1, 1), r"datetime.datetime\(.*, not datetime.date\(.*a field of its own"),
        (date | datetime, datetime(2026, 1, 1), r"datetime.date\(.*, not datetime.datetime\("),  # noqa: DTZ001
        (list[UUID | str], [UUID(int=1)], r"value.0 would be '0.*, not UUID.*which member of the union"),
        (dict[str, IPv4Address | str], {"a": ip_address("10.0.0.1")}, "value.a would be '10.0.0.1', not IPv4Addr"),
        (dict[int | str, int], {5: 1}, "value would be {'5': 1}, not {5: 1}"),
        (set[UUID | str], {UUID(int=1)}, "value would be {'0.*}, not {UUID"),
        (Any, (1, 2), r"value would be \[1, 2\], not \(1, 2\): .* name that type"),
        (Any, {"a": Role.P}, "value.a would be 'P', not <Role.P"),
        (Any, UUID(int=1), "value would be '0.*, not UUID"),
        (Sequence[int], (1,), r"value would be \[1\], not \(1,\)"),
        (Endpoint, TlsEndpoint(certificate="x"), "the annotation names Endpoint, so only that is stored: name TlsEnd"),
        (SerializeAsAny[Endpoint], TlsEndpoint(certificate="x"), "value would be Endpoint.*, not TlsEndpoint"),
        (list[Endpoint], [TlsEndpoint(certificate="x")], "value.0 would be Endpoint"),
        (Opaque, Opaque("abcdef"), "value would be <.*Opaque.*, not <.*Opaque.*: let its serializer write all of it"),
    ],
)
def test_what_would_come_back_as_something_else_is_refused(annotation: Any, value: object, words: str) -> None:
    block = block_of(annotation, value)

    with pytest.raises(ModelError, match=words) as raised:
        stored_and_loaded(block)
    assert f"{block.name} {block.subscription_instance_id} cannot be saved: when it is loaded again, " in str(
        raised.value
    )


def test_a_validator_that_reads_something_else_than_was_written_is_noticed() -> None:
    class Rounding(ProductBlockModel, product_block_name="Rounding"):
        ratio: float | None = None
        parts: list[str] = Field(default_factory=list)

        @field_serializer("ratio")
        def round_it(self, ratio: float | None) -> float | None:
            return ratio and round(ratio, 1)

        @field_serializer("parts")
        def join(self, parts: list[str]) -> str:
            return ",".join(parts)

        @field_validator("parts", mode="before")
        @classmethod
        def split(cls, parts: object) -> object:
            return parts.split(",") if isinstance(parts, str) else parts

    made = Rounding.new(uuid4(), ratio=0.5, parts=["a", "b"])
    assert build_block_row(made).values == {"ratio": 0.5, "parts": "a,b"}
    check_round_trip(made, build_block_row(made))

    made.ratio, made.parts = 0.25, ["a,b"]
    with pytest.raises(
        ModelError, match=r"Rounding.ratio would be 0.2, not 0.25: .*; Rounding.parts would be \['a', 'b'"
    ):
        check_round_trip(made, build_block_row(made))


def test_fields_are_stored_by_their_names() -> None:
    class Aliased(ProductBlockModel, product_block_name="Aliased"):
        model_config = ConfigDict(serialize_by_alias=True, populate_by_name=False)

        vlan: int | None = Field(default=None, alias="vlanId")
        end: Strict | None = None

    made = Aliased.new(uuid4(), vlanId=7, end=Strict(vlanId=8))

    check_values(made)
    assert build_block_row(made).values == {"vlan": 7, "end": {"host": "", "vlan": 8, "seen": None}}
    check_round_trip(made, build_block_row(made))


SETS = """
from tests.unit.test_domain_values import *
words = {f"word {number}" for number in range(20)}
for annotation, value in (
    (dict[str, set[str]], {"a": words}),
    (list[frozenset[str]], [words]),
    (set[frozenset[str]], {frozenset(words), frozenset({"a", "b"})}),
    (tuple[set[str], int], (words, 1)),
    (Words, words),
    (dict[str, Words], {"a": words}),
    (Place, Place("a", {hash(word) % 7 - 3 for word in ()} | set(range(-9, 99, 7)))),
    (Annotated[set[str], "annotated"], words),
):
    print(to_json(build_block_row(block_of(annotation, value)).values).decode())
"""


def test_sets_are_written_alike_by_every_program() -> None:
    """Strings hash differently in each, and so do sets of them."""
    written = {
        subprocess.run(
            [sys.executable, "-c", SETS],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }

    (text,) = written
    assert text.count("\n") == 8
