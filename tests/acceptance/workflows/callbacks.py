"""Steps that start an external job and wait for its answer."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.errors import ProcessFailureError
from orchestrator.workflow import Block, StepList, callback_step, conditional, done, init, step, workflow
from tests.acceptance.workflows.basic import name_form
from tests.acceptance.workflows.forms import how_many
from tests.acceptance.workflows.lab import effect, is_open, lab, note, wait_at


def hand_out(process_id: UUID, token: str) -> None:
    """Tell the external system, which here is the test, the token."""
    with (lab() / f"tokens-{process_id}").open("a") as file:
        file.write(f"{token}\n")


@step("Order")
async def order(
    session: AsyncSession,
    process_id: UUID,
    idempotency_key: str,
    callback_token: str,
    callback_route: str,
    callback_exchange: str,
) -> dict[str, Any]:
    """Start the job; wait when the test wants to answer early."""
    route = callback_route.removesuffix(callback_token)
    note(process_id, "order", key=idempotency_key, exchange=callback_exchange, route=route)
    await effect(session, process_id, "Order")
    hand_out(process_id, callback_token)
    if not is_open("order"):
        await wait_at(f"order-{process_id}")
    return {"ordered": True}


@step("Check")
async def check(session: AsyncSession, process_id: UUID, callback_result: dict[str, Any]) -> dict[str, Any]:
    """Judges the answer."""
    note(process_id, "check", result=callback_result)
    await effect(session, process_id, "Check")
    if not callback_result.get("ok"):
        raise ProcessFailureError("the job was not done well", details=callback_result)
    return {"checked": True}


@step("After the callback")
async def after(process_id: UUID) -> None:
    note(process_id, "after")


@workflow("Calls out")
def calls_out() -> StepList:
    return init >> callback_step("Await the order", order, check) >> after >> done


@workflow("Asks, then calls out", initial_input_form=name_form)
def asks_and_calls_out() -> StepList:
    return init >> how_many >> callback_step("Await the order", order, check) >> done


@workflow("Calls out and waits two seconds at most")
def calls_out_late() -> StepList:
    return init >> callback_step("Await the order", order, check, timeout=2) >> after >> done


@step("Check another key")
async def check_other(process_id: UUID, delivered: dict[str, Any]) -> dict[str, Any]:
    note(process_id, "check", result=delivered)
    return {"name": "not any more"}


@step("Order by another route")
async def order_other(process_id: UUID, callback_token: str, where_to: str) -> None:
    assert where_to.endswith(callback_token)
    note(process_id, "order")
    hand_out(process_id, callback_token)


def _is_wanted(state: dict[str, Any]) -> bool:
    note(UUID(int=0), "asked", name=state["name"])
    return bool(state["name"] == "wanted")


@workflow("Calls out when wanted", initial_input_form=name_form)
def calls_out_conditionally() -> StepList:
    called: Callable[[Block], Block] = conditional(_is_wanted)
    wait = callback_step(
        "Await delivery", order_other, check_other, result_key="delivered", callback_route_key="where_to"
    )
    return init >> called(wait) >> after >> done


@step("Leak")
async def leak(process_id: UUID, callback_token: str, name: str) -> dict[str, str]:
    hand_out(process_id, callback_token)
    if name == "return":
        return {"stolen": f"look: {callback_token}"}
    if name == "raise":
        raise ProcessFailureError(f"could not use {callback_token}", details={"token": callback_token})
    raise RuntimeError(f"cannot reach https://example.org/{callback_token}")


@workflow("Leaks its token", initial_input_form=name_form)
def leaks_its_token() -> StepList:
    return init >> callback_step("Await the leak", leak, check) >> done


@step("Order and die")
async def order_and_die(session: AsyncSession, process_id: UUID, callback_token: str, idempotency_key: str) -> None:
    """Start the job, and let the first consumer die before the commit."""
    note(process_id, "order", key=idempotency_key)
    await effect(session, process_id, "Order and die")
    hand_out(process_id, callback_token)
    if not is_open(f"died-{process_id}"):
        (lab() / "gates" / f"died-{process_id}").touch()
        os.kill(os.getpid(), signal.SIGKILL)


@workflow("Calls out from a consumer that dies")
def calls_out_and_dies() -> StepList:
    return init >> callback_step("Await the dead", order_and_die, check) >> after >> done
