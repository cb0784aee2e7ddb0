"""Steps that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.forms import FormGenerator, FormPage
from orchestrator.workflow import StepList, done, init, step, workflow
from tests.acceptance.workflows.basic import name_form
from tests.acceptance.workflows.lab import effect, is_open, lab, note


class _Odd:
    def __repr__(self) -> str:
        return "<an odd thing>"


def _cyclic() -> dict[str, Any]:
    found: dict[str, Any] = {}
    found["again"] = found
    return found


def _deep() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _ in range(100_000):
        found = {"deeper": found}
    return found


def _exit() -> dict[str, Any]:
    sys.exit(3)


RETURNS: dict[str, Callable[[], Any]] = {
    "a list": lambda: [1, 2],
    "a string": lambda: "done",
    "a set in it": lambda: {"odd": _Odd()},
    "not a number": lambda: {"ratio": math.nan},
    "a number as key": lambda: {1: "one"},
    "bytes": lambda: {"raw": b"\xff\xfe"},
    "a null character": lambda: {"text": "a\0b"},
    "itself": _cyclic,
    "too deep": _deep,
    "half a character": lambda: {"text": "\ud800"},
    "sys.exit": _exit,
    "GeneratorExit": lambda: (_ for _ in ()).throw(GeneratorExit()),
    "StopIteration": lambda: next(iter(())),
    "KeyboardInterrupt": lambda: (_ for _ in ()).throw(KeyboardInterrupt()),
}


@step("Go wrong")
async def go_wrong(session: AsyncSession, process_id: UUID, name: str) -> Any:
    await effect(session, process_id, "Go wrong")
    return RETURNS[name.removeprefix("plain ")]()


@step("Go wrong in a thread")
def go_wrong_plainly(name: str) -> Any:
    return RETURNS[name.removeprefix("plain ")]() if name.startswith("plain ") else {}


@workflow("Goes wrong", initial_input_form=name_form)
def goes_wrong() -> StepList:
    return init >> go_wrong_plainly >> go_wrong >> done


@step("Take too long", timeout=0.5)
async def take_too_long(session: AsyncSession, process_id: UUID, name: str) -> None:
    await effect(session, process_id, "Take too long")
    note(process_id, "too long")
    if is_open(f"mended-{process_id}"):
        return
    if name == "stubborn":
        for _ in range(4):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.2)
        note(process_id, "gave in")
        return
    await asyncio.sleep(3600)


@step("Block too long", timeout=0.5)
def block_too_long(name: str, process_id: UUID) -> None:
    if name == "blocks" and not is_open(f"mended-{process_id}"):
        time.sleep(1.5)


@workflow("Takes longer than it may", initial_input_form=name_form)
def too_slow() -> StepList:
    return init >> block_too_long >> take_too_long >> done


@step("Die")
async def die(session: AsyncSession, process_id: UUID) -> None:
    await effect(session, process_id, "Die")
    note(process_id, "dying")
    if not is_open("live"):
        os._exit(9)


@workflow("Brings down its consumer")
def dies() -> StepList:
    return init >> die >> done


class SizePage(FormPage):
    """How much."""

    size: int


def size_form() -> FormGenerator:
    """One page."""
    page = yield SizePage
    return page.model_dump()


@step("Grow")
async def grow(session: AsyncSession, process_id: UUID, size: int) -> dict[str, str]:
    await effect(session, process_id, "Grow")
    return {"big": "x" * size}


@workflow("Grows", initial_input_form=size_form)
def grows() -> StepList:
    return init >> grow >> done


def form_for_ever() -> type[FormPage]:
    """Blocks its thread, which nothing can end."""
    (lab() / "asked for ever").touch()
    threading.Event().wait()
    return SizePage


@workflow("Its form never ends", initial_input_form=form_for_ever)
def asks_for_ever() -> StepList:
    return init >> grow >> done


@step("On another queue", queue="ims")
async def on_another_queue(process_id: UUID) -> None:
    note(process_id, "ims")


@workflow("Uses a queue of its own")
def other_queue() -> StepList:
    return init >> on_another_queue >> done
