"""The containers in which a project changes the rules: the documentation's examples, and what can never be right."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest

from orchestrator.engine.usability import IN_USE, NOT_IN_SYNC, Rules, SubscriptionFacts, usability
from orchestrator.errors import DefinitionError
from orchestrator.services import subscriptions
from orchestrator.services.subscriptions import (
    WF_BLOCKED_BY_IN_USE_BY_SUBSCRIPTIONS,
    WF_USABLE_MAP,
    WF_USABLE_WHILE_OUT_OF_SYNC,
    check_rules,
    rules,
)
from orchestrator.targets import Target
from orchestrator.types import SubscriptionLifecycle

ID, PRODUCT, HOLDER, OTHER = (UUID(int=number) for number in range(1, 5))
ALL_STATUSES = [status.value for status in SubscriptionLifecycle]
HELD = SubscriptionFacts(ID, PRODUCT, "active", insync=False, locked_by=HOLDER)
USED = SubscriptionFacts(ID, PRODUCT, "active", insync=True, unterminated_users=(OTHER,))


def facts(status: str = "active") -> SubscriptionFacts:
    return SubscriptionFacts(ID, PRODUCT, status, insync=True)


def keys(target: Target, subscription: SubscriptionFacts, known: Rules, *, name: str = "flow") -> list[str]:
    return [reason.key for reason in usability(name, target, False, subscription, known).reasons]


@pytest.fixture(autouse=True)
def _empty_maps() -> Iterator[None]:
    """Empty before, and as they were afterwards."""
    before = dict(WF_USABLE_MAP), dict(WF_BLOCKED_BY_IN_USE_BY_SUBSCRIPTIONS), list(WF_USABLE_WHILE_OUT_OF_SYNC)
    WF_USABLE_MAP.clear()
    WF_BLOCKED_BY_IN_USE_BY_SUBSCRIPTIONS.clear()
    WF_USABLE_WHILE_OUT_OF_SYNC.clear()
    yield
    WF_USABLE_MAP.clear()
    WF_USABLE_MAP.update(before[0])
    WF_BLOCKED_BY_IN_USE_BY_SUBSCRIPTIONS.clear()
    WF_BLOCKED_BY_IN_USE_BY_SUBSCRIPTIONS.update(before[1])
    WF_USABLE_WHILE_OUT_OF_SYNC[:] = before[2]


USABLE_MAP_EXAMPLE = """
from orchestrator.services.subscriptions import WF_USABLE_MAP

WF_USABLE_MAP.update(
    {
        "validate_node_enrollment": ["active", "provisioning"],
        "provision_node_enrollment": ["active", "provisioning"],
        "modify_node_enrollment": ["provisioning"],
    }
)
"""
BLOCKED_EXAMPLE = """
from orchestrator.services.subscriptions import WF_BLOCKED_BY_IN_USE_BY_SUBSCRIPTIONS

WF_BLOCKED_BY_IN_USE_BY_SUBSCRIPTIONS.update(
    {
        "modify_node_enrollment": True
    }
)
"""
OUT_OF_SYNC_EXAMPLE = """
from orchestrator.services.subscriptions import WF_USABLE_WHILE_OUT_OF_SYNC

WF_USABLE_WHILE_OUT_OF_SYNC.extend(
    [
        "modify_description"
    ]
)
"""


def test_the_containers_are_empty_at_first() -> None:
    """B24, B26, B27: in a program that has imported no project."""
    code = (
        "from orchestrator.services.subscriptions import *;"
        " print(WF_USABLE_MAP, WF_BLOCKED_BY_IN_USE_BY_SUBSCRIPTIONS, WF_USABLE_WHILE_OUT_OF_SYNC)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "{} {} []\n"


def test_the_example_of_the_usable_map_does_what_its_text_says() -> None:
    """B24: "validate and provision can be run on … ACTIVE or PROVISIONING … and modify … only … PROVISIONING"."""
    exec(USABLE_MAP_EXAMPLE)  # noqa: S102 - as users write it

    check_rules()
    for name, target in (("validate_node_enrollment", Target.VALIDATE), ("provision_node_enrollment", Target.MODIFY)):
        usable = [s for s in ALL_STATUSES if not keys(target, facts(s), rules(), name=name)]
        assert usable == ["active", "provisioning"]
    usable = [s for s in ALL_STATUSES if not keys(Target.MODIFY, facts(s), rules(), name="modify_node_enrollment")]
    assert usable == ["provisioning"]


def test_the_example_of_the_blocking_map_does_what_its_text_says() -> None:
    """B26: "both terminate and modify will not run on subscriptions with unterminated in_use_by subscriptions"."""
    exec(BLOCKED_EXAMPLE)  # noqa: S102 - as users write it

    check_rules()
    assert keys(Target.MODIFY, USED, rules(), name="modify_node_enrollment") == [IN_USE]
    assert keys(Target.TERMINATE, USED, rules(), name="terminate_node_enrollment") == [IN_USE]
    assert keys(Target.MODIFY, facts(), rules(), name="modify_node_enrollment") == []
    assert keys(Target.MODIFY, USED, rules(), name="modify_another") == []


def test_the_example_of_the_out_of_sync_list_does_what_its_text_says() -> None:
    """B27: "this particular modify workflow can be run on subscriptions that are not in sync"."""
    exec(OUT_OF_SYNC_EXAMPLE)  # noqa: S102 - as users write it

    check_rules()
    assert keys(Target.MODIFY, HELD, rules(), name="modify_description") == []
    assert keys(Target.MODIFY, HELD, rules(), name="modify_node") == [NOT_IN_SYNC]


def test_members_of_the_lifecycle_may_stand_in_the_map_as_well() -> None:
    WF_USABLE_MAP["flow"] = [SubscriptionLifecycle.PROVISIONING]

    check_rules()
    (reason,) = usability("flow", Target.MODIFY, False, facts(), rules()).reasons
    assert reason.document()["usable_when"] == ["provisioning"]
    assert keys(Target.MODIFY, facts("provisioning"), rules()) == []


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        (
            "WF_USABLE_MAP",
            {"flow": ["activ"]},
            r"WF_USABLE_MAP\['flow'\] has the status 'activ': .* active, .*provisioning",
        ),
        ("WF_USABLE_MAP", {"flow": ["active", None]}, r"WF_USABLE_MAP\['flow'\] has the status None"),
        ("WF_USABLE_MAP", {"flow": "active"}, r"WF_USABLE_MAP\['flow'\] must be a list .* not 'active'"),
        ("WF_USABLE_MAP", {"flow": None}, r"WF_USABLE_MAP\['flow'\] must be a list"),
        ("WF_USABLE_MAP", {test_the_containers_are_empty_at_first: []}, "has names of workflows as its keys"),
        ("WF_USABLE_MAP", ["flow"], r"WF_USABLE_MAP must be a dict, change it with WF_USABLE_MAP.update"),
        (
            "WF_BLOCKED_BY_IN_USE_BY_SUBSCRIPTIONS",
            {"flow": "no"},
            r"WF_BLOCKED_BY_IN_USE_BY_SUBSCRIPTIONS\['flow'\] must be True or False, not 'no'",
        ),
        ("WF_BLOCKED_BY_IN_USE_BY_SUBSCRIPTIONS", {"flow": 1}, "must be True or False, not 1"),
        ("WF_USABLE_WHILE_OUT_OF_SYNC", "flow", "must be a list of names of workflows, not 'flow'"),
        ("WF_USABLE_WHILE_OUT_OF_SYNC", ["flow", 7], "must hold names of workflows, not 7"),
    ],
)
def test_values_that_can_never_be_right_are_refused_by_name(
    name: str, value: object, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriptions, name, value)

    with pytest.raises(DefinitionError, match=text):
        check_rules()


def test_workflows_that_do_not_exist_may_be_named() -> None:
    WF_USABLE_MAP[f"flow_{uuid4().hex}"] = ["active"]
    WF_USABLE_WHILE_OUT_OF_SYNC.append("nowhere")

    check_rules()
