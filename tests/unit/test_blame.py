"""Who is to blame when a consumer dies with several steps."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from orchestrator.coordinator.reconciler import _find_bystanders
from orchestrator.db.processes.claims import Claim
from orchestrator.engine.decide import decide
from orchestrator.engine.events import AttemptLost, Loss, Stamp
from orchestrator.engine.plan import Plan
from orchestrator.engine.process import Process
from orchestrator.types import ProcessStatus, State
from orchestrator.workflow import StepList, begin, step, workflow

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def claim(number: int, lost: int, claimed: int, consumer: int = 1) -> Claim:
    process = Process(UUID(int=number), "any", ProcessStatus.RUNNING, 0, "step", 1, 1, {}, "me", "me", lost=lost)
    return Claim(process, UUID(int=consumer), f"host:{consumer}", NOON + timedelta(seconds=claimed))


def test_before_the_last_chance_every_loss_counts() -> None:
    assert _find_bystanders([claim(1, 0, 0), claim(2, 1, 1), claim(3, 3, 2)], 5) == set()


def test_of_those_on_their_last_chance_only_the_one_claimed_last_is_blamed() -> None:
    claims = [claim(1, 4, 0), claim(2, 4, 9), claim(3, 4, 5), claim(4, 0, 20)]
    assert _find_bystanders(claims, 5) == {UUID(int=1), UUID(int=3)}


def test_each_consumer_has_its_own_culprit() -> None:
    claims = [claim(1, 4, 0), claim(2, 4, 9), claim(3, 4, 5, consumer=2)]
    assert _find_bystanders(claims, 5) == {UUID(int=1)}


def test_one_that_died_alone_is_to_blame() -> None:
    assert _find_bystanders([claim(1, 4, 0)], 5) == set()


@step("only")
async def only() -> State:
    return {}


@workflow("One step")
def one_step() -> StepList:
    return begin >> only


def test_a_find_bystanders_loss_is_logged_but_not_held_against_it() -> None:
    """B8: neighbours of a deadly step complete."""
    process = Process(UUID(int=1), "one_step", ProcessStatus.RUNNING, 0, "only", 3, 9, {}, "me", "me", lost=2)
    event = AttemptLost(3, "host:1", Loss.BYSTANDER, limit=3)
    decision = decide(Plan.of(one_step), process, event, Stamp(NOON, "token"))
    assert decision.process.lost == 2
    assert decision.process.status is ProcessStatus.RUNNING
    assert decision.dispatch is not None
    assert decision.dispatch.lost == 2
    assert decision.entries[0].note is not None
    assert decision.entries[0].note.endswith("probably not because of this step")
    blamed = decide(Plan.of(one_step), process, replace(event, loss=Loss.SILENT), Stamp(NOON, "token"))
    assert blamed.process.status is ProcessStatus.FAILED
