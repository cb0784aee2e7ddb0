"""The fingerprint of a plan: equal in all programs that decide alike what is next, different otherwise."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import tenacity

from orchestrator.engine.fingerprint import identify
from orchestrator.engine.plan import Plan
from orchestrator.retry import RetryPolicy
from orchestrator.workflow import (
    Predicate,
    Step,
    StepList,
    callback_step,
    conditional,
    inputstep,
    retrystep,
    step,
    step_group,
)
from tests.unit.fingerprints import LAMBDAS, equals, everything, has, nothing, plan_under, wanted
from tests.unit.walk import external, plan_of, question, work

a, b = work("a"), work("b")


def other() -> None:
    """Do something else."""


def waits(*strategies: Any) -> Plan:
    return plan_of(*(retrystep(f"s{n}", retry=RetryPolicy(one))(nothing) for n, one in enumerate(strategies)))


def calls(**terms: Any) -> Plan:
    return plan_of(callback_step("Job", work("Send"), work("Check"), **terms))


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (plan_of(a, b), plan_of(b, a)),
        (plan_of(a, b), plan_of(a)),
        (plan_of(a), plan_of(work("A"))),
        (plan_of(a), plan_of(question("a"))),
        (plan_of(a), plan_of(work("a", queue="slow"))),
        (plan_of(a), plan_of(a, is_task=True)),
        (plan_of(a), plan_of(step("a", timeout=1)(nothing))),
        (plan_of(a), plan_of(step_group("g", StepList([a])))),
        (plan_of(a), plan_of(conditional(wanted)(a))),
        (plan_of(conditional(wanted)(a >> b)), plan_of(conditional(wanted)(step_group("g", a >> b)))),
        (plan_of(a), plan_of(retrystep("a")(nothing))),
        (waits(tenacity.wait_fixed(1)), waits(tenacity.wait_fixed(2))),
        (waits(tenacity.wait_fixed(1)), waits(tenacity.wait_fixed(1) + tenacity.wait_random(0, 1))),
        (calls(timeout=1), calls(timeout=timedelta(hours=1))),
        (calls(), calls(result_key="answer")),
        (calls(), calls(callback_route_key="route")),
        (plan_under(lambda: True), plan_under(lambda: False)),
        (plan_under(lambda state: "a" in state), plan_under(lambda state: "b" in state)),
        (plan_under(equals("kind", "port")), plan_under(equals("kind", "node"))),
        (plan_under(partial(has, "a")), plan_under(partial(has, "b"))),
        (plan_under(LAMBDAS[0]), plan_under(LAMBDAS[1])),
        (plan_under(LAMBDAS[1]), plan_under(LAMBDAS[2])),
    ],
)
def test_what_decides_which_step_is_next_where_and_when_makes_another_fingerprint(one: Plan, two: Plan) -> None:
    assert one.fingerprint != two.fingerprint


def shown(made: Step, assignee: str) -> Step:
    return replace(made, assignee=assignee)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (plan_of(step("a")(nothing)), plan_of(step("a")(other))),
        (plan_of(inputstep("a", "NOC")(nothing)), plan_of(inputstep("a", "CHANGES")(other))),
        (plan_of(a), plan_of(replace(a, retry_auth_callback=lambda user: user == "ann"))),
        (plan_under(equals("kind", "port")), plan_under(equals("kind", "port"))),
        (plan_of(step("a", timeout=60)(nothing)), plan_of(step("a", timeout=timedelta(minutes=1))(nothing))),
        (plan_of(external("job")), plan_of(external("job"))),
    ],
)
def test_what_happens_inside_a_step_does_not_count(one: Plan, two: Plan) -> None:
    assert one.fingerprint == two.fingerprint


def test_layout_and_comments_of_a_condition_do_not_count() -> None:
    short: Predicate = lambda state: state["kind"] == "port"  # noqa: E731
    # fmt: off
    long: Predicate = lambda state: (state[ "kind" ]  # noqa: E731
                                     == "port")
    # fmt: on

    sources = [identify(short)["source"], identify(long)["source"]]  # type: ignore[index, call-overload]

    assert sources == ['(lambda state:state["kind"]=="port")', '(lambda state:(state["kind"]=="port"))']


def test_a_lambda_is_named_without_a_look_at_other_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program with a thousand modules does that at its start, once for each of its conditions."""
    looked_at: list[object] = []
    realpath = os.path.realpath

    def look(path: str, **how: bool) -> str:
        looked_at.append(path)
        return realpath(path, **how)

    monkeypatch.setattr(os.path, "realpath", look)

    named = identify(lambda state: state["kind"] == "port")

    assert named["source"] == '(lambda state:state["kind"]=="port")'  # type: ignore[index, call-overload]
    assert looked_at == []


def test_a_lambda_in_an_archive_is_named_by_its_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "project.zip"
    with ZipFile(archive, "w") as file:
        file.writestr("conditions_in_an_archive.py", "is_port = lambda state: state['kind'] == 'port'\n")
    monkeypatch.syspath_prepend(archive)

    named = identify(importlib.import_module("conditions_in_an_archive").is_port)

    assert named["source"] == "(lambda state:state['kind']=='port')"  # type: ignore[index, call-overload]


class Client:
    """What a program opens at its start, different in each."""

    def __init__(self) -> None:
        self.opened = object()

    def __call__(self, state: dict[str, Any]) -> bool:
        return "client" in state


@dataclass(frozen=True)
class Asked:
    """A condition with parameters."""

    key: str

    def __call__(self, state: dict[str, Any]) -> bool:
        return self.key in state


def test_a_condition_that_is_an_object_is_named_by_its_class_and_if_it_is_frozen_by_its_fields() -> None:
    here = __name__

    assert identify(Client()) == f"{here}.Client"
    assert identify(Client().__call__) == {"method": f"{here}.Client.__call__", "of": f"{here}.Client"}
    assert identify(Asked("vlan")) == {"class": f"{here}.Asked", "key": "vlan"}


@pytest.mark.parametrize(
    ("value", "name"), [(float("inf"), "inf"), ("\0", r"'\x00'"), ("\ud800", r"'\ud800'"), ("port\n", r"'port\n'")]
)
def test_what_the_database_cannot_hold_is_named_otherwise(value: object, name: str) -> None:
    assert identify(value) == name


def test_large_values_are_named_by_a_hash() -> None:
    names = [identify(set(map(str, range(start, start + 1000)))) for start in (0, 0, 1)]

    assert names[0] == names[1] != names[2]
    assert str(names[0]).startswith("builtins.set of 1000: ")


def test_no_address_or_number_of_an_object_stands_in_an_outline() -> None:
    assert not re.search(r"0x|\bat [0-9a-f]{6}", json.dumps(Plan.of(everything).outline))


def test_a_fingerprint_is_the_same_in_every_program_and_version() -> None:
    """It is stored: the engine that comes next must find the same for the same code."""
    code = "from tests.unit.fingerprints import Plan, everything; print(Plan.of(everything).fingerprint)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()

    assert printed == Plan.of(everything).fingerprint == "65015d7e4250f433"
