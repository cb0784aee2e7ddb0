"""Steps that ask for things, and return things."""

from __future__ import annotations

import asyncio
import functools
import time
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import Enum, IntEnum
from ipaddress import IPv4Address
from typing import Any
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from orchestrator.forms import FormGenerator, FormPage
from orchestrator.workflow import StepList, done, init, step, workflow
from tests.acceptance.workflows.lab import Effect, is_open, note


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Speed(IntEnum):
    SLOW = 10
    FAST = 100


class Port(BaseModel):
    name: str
    vlan: int


@dataclass
class Node:
    name: str
    since: date


@step("Return many things")
async def return_many() -> dict[str, Any]:
    return {
        "text": "dåta ✓ \U0001f600",
        "number": 7,
        "ratio": 0.5,
        "identifier": UUID("12345678-1234-5678-1234-567812345678"),
        "colour": Colour.BLUE,
        "speed": Speed.FAST,
        "day": date(2026, 11, 23),
        "moment": datetime(2026, 11, 23, 12, 30, tzinfo=UTC),
        "address": IPv4Address("192.0.2.1"),
        "port": Port(name="ge-0/0/0", vlan=142),
        "ports": [Port(name="a", vlan=1), Port(name="b", vlan=2)],
        "node": Node("ams-1", date(2026, 1, 1)),
        "numbers": (1, 2, 3),
        "untyped": {"a": [None, True]},
        "nothing": None,
        "idempotency_key": "an author cannot override this",
    }


class Asks:
    """An object whose call is async."""

    async def __call__(self, number: int, process_id: UUID) -> dict[str, Any]:
        note(process_id, "called", number=number)
        return {"from_object": number}


@step("Ask for many things")
async def ask_many(  # type: ignore[no-untyped-def]  # one parameter has no annotation on purpose
    *,
    text: str,
    number: int,
    ratio: float,
    identifier: UUID,
    colour: Colour,
    speed: Speed,
    day: date,
    moment: datetime,
    address: IPv4Address,
    port: Port,
    ports: list[Port],
    node: Node,
    numbers: list[int],
    untyped,  # noqa: ANN001 - that is the point
    nothing: str | None,
    absent: int | None,
    defaulted: int = 42,
    state: dict[str, Any],
    session: AsyncSession,
    process_id: UUID,
    idempotency_key: str,
) -> dict[str, Any]:
    kinds = {
        name: type(value).__name__
        for name, value in locals().items()
        if name not in {"state", "session", "process_id", "idempotency_key"}
    }
    return {
        "kinds": kinds,
        "values": [text, ratio, port.vlan, [one.vlan for one in ports], node.since, absent, defaulted, nothing],
        "state_keys": sorted(state),
        "session_kind": isinstance(session, AsyncSession),
        "own_id": process_id,
        "own_key": idempotency_key,
    }


def _partial(number: int, addend: int) -> dict[str, int]:
    return {"sum": number + addend}


@workflow("Many kinds of arguments")
def many_arguments() -> StepList:
    asks_object = step("Ask with an object")(Asks())
    asks_partial = step("Ask with a partial")(functools.partial(_partial, addend=5))
    return init >> return_many >> ask_many >> asks_object >> asks_partial >> done


class ValuePage(FormPage):
    """A value to be misunderstood."""

    value: str


def value_form() -> FormGenerator:
    """One page."""
    page = yield ValuePage
    return page.model_dump()


@step("Ask for a number")
async def ask_for_number(value: int) -> dict[str, int]:
    return {"doubled": value * 2}


@step("Ask for what is not there")
async def ask_for_missing(never_set: int) -> None:
    del never_set


@workflow("Arguments that cannot be filled", initial_input_form=value_form)
def wrong_argument() -> StepList:
    return init >> ask_for_number >> ask_for_missing >> done


@step("Block the thread")
def block(process_id: UUID) -> dict[str, bool]:
    """As a device library that knows no asyncio does."""
    note(process_id, "blocking")
    while not is_open(f"unblock-{process_id}"):
        time.sleep(0.02)
    note(process_id, "blocked")
    return {"blocked": True}


@workflow("A plain function that blocks")
def blocks_a_thread() -> StepList:
    return init >> block >> done


@step("Sleep")
def sleep(session: Session, process_id: UUID) -> None:
    session.add(Effect(process_id=process_id, step="Sleep"))
    session.flush()
    note(process_id, "asleep")
    if not is_open("morning"):
        time.sleep(3600)


@workflow("A plain function that sleeps for an hour")
def sleeps() -> StepList:
    return init >> sleep >> done


@step("Sleep in a query")
def sleep_in_a_query(session: Session, process_id: UUID) -> None:
    session.add(Effect(process_id=process_id, step="Sleep in a query"))
    session.flush()
    note(process_id, "asleep")
    if not is_open("morning"):
        session.execute(text("SELECT pg_sleep(3600)"))


@workflow("A plain function whose query takes an hour")
def sleeps_in_a_query() -> StepList:
    return init >> sleep_in_a_query >> done


@step("Tick")
async def tick(process_id: UUID) -> None:
    """Let the event loop come round a hundred times."""
    note(process_id, "ticking")
    for _ in range(100):
        await asyncio.sleep(0.01)
    note(process_id, "ticked")


@workflow("Needs the event loop")
def ticks() -> StepList:
    return init >> tick >> done


@step("Make a list")
async def make_list() -> dict[str, list[int]]:
    return {"items": [1], "same": [1]}


@step("Change in place")
async def change_in_place(items: list[int], same, state: dict[str, Any]) -> dict[str, bool]:  # type: ignore[no-untyped-def]  # noqa: ANN001
    items.append(2)
    same.append(2)
    state["items"].append(3)
    state["new"] = True
    return {"changed": True}


@workflow("Changes its arguments in place")
def changes_in_place() -> StepList:
    return init >> make_list >> change_in_place >> done
