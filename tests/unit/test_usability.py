"""Which workflows may run on which subscription: each rule on its own, and all together against a second reading of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.engine.usability import (
    CREATES,
    IN_USE,
    INVALID_STATUS,
    NOT_IN_SYNC,
    RELATIONS_NOT_IN_SYNC,
    Rules,
    SubscriptionFacts,
    not_of_product,
    usability,
)
from orchestrator.targets import Target
from orchestrator.types import SubscriptionLifecycle

ID, PRODUCT, HOLDER, OTHER = (UUID(int=number) for number in range(1, 5))
ACTIVE, PROVISIONING, TERMINATED = "active", "provisioning", "terminated"
NO_RULES = Rules()


def facts(status: str = ACTIVE, **changes: Any) -> SubscriptionFacts:
    return replace(SubscriptionFacts(ID, PRODUCT, status, insync=True), **changes)


HELD = facts(insync=False, locked_by=HOLDER)
NEIGHBOUR_HELD = facts(locked_relations=(OTHER,))
USED = facts(unterminated_users=(OTHER,))
ALL_STATUSES = [status.value for status in SubscriptionLifecycle]


def keys(
    target: Target,
    subscription: SubscriptionFacts,
    known: Rules = NO_RULES,
    *,
    name: str = "flow",
    is_task: bool = False,
) -> list[str]:
    return [reason.key for reason in usability(name, target, is_task, subscription, known).reasons]


@pytest.mark.parametrize(
    ("target", "is_task", "subscription", "known", "expected"),
    [
        # The status: B24, B25.
        (Target.MODIFY, False, facts(), NO_RULES, []),
        (Target.MODIFY, False, facts(PROVISIONING), NO_RULES, [INVALID_STATUS]),
        (Target.MODIFY, False, facts(PROVISIONING), Rules({"flow": [PROVISIONING]}), []),
        (Target.MODIFY, False, facts(), Rules({"flow": [PROVISIONING]}), [INVALID_STATUS]),
        (Target.MODIFY, False, facts(PROVISIONING), Rules({"another": [PROVISIONING]}), [INVALID_STATUS]),
        (Target.MODIFY, False, facts(), Rules({"flow": []}), [INVALID_STATUS]),
        (Target.VALIDATE, True, facts(PROVISIONING), NO_RULES, [INVALID_STATUS]),
        (Target.VALIDATE, True, facts(PROVISIONING), Rules({"flow": [ACTIVE, PROVISIONING]}), []),
        (Target.RECONCILE, False, facts(PROVISIONING), NO_RULES, [INVALID_STATUS]),
        (Target.TERMINATE, False, facts(PROVISIONING), NO_RULES, []),
        (Target.TERMINATE, False, facts(TERMINATED), NO_RULES, []),
        (Target.TERMINATE, False, facts(PROVISIONING), Rules({"flow": [ACTIVE]}), [INVALID_STATUS]),
        (Target.TERMINATE, False, facts(PROVISIONING), Rules({"flow": [SubscriptionLifecycle.PROVISIONING]}), []),
        # Others use it: B26.
        (Target.MODIFY, False, USED, NO_RULES, []),
        (Target.MODIFY, False, USED, Rules(blocked_by_users={"flow": True}), [IN_USE]),
        (Target.MODIFY, False, USED, Rules(blocked_by_users={"flow": False}), []),
        (Target.MODIFY, False, facts(), Rules(blocked_by_users={"flow": True}), []),
        (Target.VALIDATE, True, USED, Rules(blocked_by_users={"flow": True}), [IN_USE]),
        (Target.TERMINATE, False, USED, NO_RULES, [IN_USE]),
        (Target.TERMINATE, False, USED, Rules(blocked_by_users={"flow": False}), []),
        (Target.TERMINATE, False, USED, Rules(blocked_by_users={"another": False}), [IN_USE]),
        # Out of sync: B27, B28.
        (Target.MODIFY, False, HELD, NO_RULES, [NOT_IN_SYNC]),
        (Target.TERMINATE, False, HELD, NO_RULES, [NOT_IN_SYNC]),
        (Target.MODIFY, False, NEIGHBOUR_HELD, NO_RULES, [RELATIONS_NOT_IN_SYNC]),
        (Target.MODIFY, True, HELD, NO_RULES, []),
        (Target.SYSTEM, False, HELD, NO_RULES, []),
        (Target.VALIDATE, False, HELD, NO_RULES, []),
        (Target.RECONCILE, False, HELD, NO_RULES, []),
        (Target.RECONCILE, False, NEIGHBOUR_HELD, NO_RULES, []),
        (Target.MODIFY, False, HELD, Rules(usable_while_out_of_sync=["flow"]), []),
        (Target.MODIFY, False, NEIGHBOUR_HELD, Rules(usable_while_out_of_sync=["flow"]), []),
        (Target.MODIFY, False, HELD, Rules(usable_while_out_of_sync=["another"]), [NOT_IN_SYNC]),
        # The list frees from the lock only.
        (
            Target.MODIFY,
            False,
            facts(PROVISIONING, insync=False),
            Rules(usable_while_out_of_sync=["flow"]),
            [INVALID_STATUS],
        ),
        # Nothing makes a create workflow run on what exists.
        (Target.CREATE, False, facts(), Rules({"flow": [ACTIVE]}, usable_while_out_of_sync=["flow"]), [CREATES]),
        (Target.CREATE, True, HELD, NO_RULES, [CREATES]),
    ],
)
def test_each_rule_refuses_what_it_is_for_and_nothing_else(
    target: Target, is_task: bool, subscription: SubscriptionFacts, known: Rules, expected: list[str]
) -> None:
    """B24 to B28."""
    assert keys(target, subscription, known, is_task=is_task) == expected


def test_all_reasons_are_reported_in_order_with_the_ids_concerned() -> None:
    """B28."""
    worst = facts(
        PROVISIONING, insync=False, locked_by=HOLDER, locked_relations=(OTHER,), unterminated_users=(OTHER, HOLDER)
    )

    judged = usability("flow", Target.TERMINATE, False, worst, Rules({"flow": ["active", "initial"]}))

    assert [reason.document() for reason in judged.reasons] == [
        {"key": "subscription.not_in_sync", "locked_by": str(HOLDER)},
        {"key": "subscription.relations_not_in_sync", "locked_relations": [str(OTHER)]},
        {
            "key": "subscription.no_modify_invalid_status",
            "status": "provisioning",
            "usable_when": ["active", "initial"],
            "action": "terminated",
        },
        {
            "key": "subscription.no_modify_subscription_in_use_by_others",
            "unterminated_in_use_by_subscriptions": [str(OTHER), str(HOLDER)],
        },
    ]
    assert [reason.words for reason in judged.reasons] == [
        f"the subscription is out of sync: process {HOLDER} holds it",
        f"related subscriptions are out of sync: {OTHER}",
        "the subscription is provisioning, the workflow runs on those that are active or initial",
        f"other subscriptions that are not terminated use it: {OTHER}, {HOLDER}",
    ]


def test_a_thousand_ids_are_all_in_the_details_and_three_in_the_sentence() -> None:
    ids = tuple(UUID(int=number) for number in range(1000))

    (reason,) = usability("flow", Target.TERMINATE, False, facts(unterminated_users=ids), NO_RULES).reasons

    assert reason.document()["unterminated_in_use_by_subscriptions"] == [str(one) for one in ids]
    assert reason.words.endswith(f"{ids[0]}, {ids[1]}, {ids[2]} and 997 more")


def test_reasons_say_so_when_nothing_is_known_or_nothing_is_allowed() -> None:
    (lock,) = usability("flow", Target.MODIFY, False, facts(insync=False), NO_RULES).reasons
    (status,) = usability("flow", Target.MODIFY, False, facts(), Rules({"flow": []})).reasons
    (product,) = [not_of_product("Node")]

    assert (lock.words, lock.details) == ("the subscription is out of sync", {"locked_by": None})
    assert status.words == "the subscription is active, the workflow runs on those that are in no status at all"
    assert product.document() == {"key": "subscription.workflow_not_of_product", "product": "Node"}


@pytest.mark.parametrize(
    ("target", "is_task", "subscription", "dangerous"),
    [
        (Target.MODIFY, False, HELD, True),
        (Target.MODIFY, False, NEIGHBOUR_HELD, True),
        (Target.MODIFY, False, facts(), False),
        (Target.MODIFY, False, facts(PROVISIONING, insync=False), False),  # it is refused
        (Target.MODIFY, True, HELD, False),  # tasks may in any case
        (Target.VALIDATE, False, HELD, False),
        (Target.RECONCILE, False, HELD, False),
    ],
)
def test_what_runs_out_of_sync_only_because_it_is_listed_is_dangerous(
    target: Target, is_task: bool, subscription: SubscriptionFacts, dangerous: bool
) -> None:
    """B27."""
    judged = usability("flow", target, is_task, subscription, Rules(usable_while_out_of_sync=["flow"]))

    assert judged.dangerous is dangerous


# A second reading of the rules, sentence by sentence, over a whole world of subscriptions.


@dataclass(frozen=True)
class One:
    subscription_id: UUID
    status: str
    insync: bool


@dataclass(frozen=True)
class World:
    subscriptions: list[One]
    uses: set[tuple[int, int]]
    """(who uses, whom)"""

    def facts(self, number: int) -> SubscriptionFacts:
        one = self.subscriptions[number]
        alive = {n: it for n, it in enumerate(self.subscriptions) if it.status != TERMINATED and n != number}
        users = [n for n in alive if (n, number) in self.uses]
        neighbours = [n for n in alive if n in users or (number, n) in self.uses]
        return SubscriptionFacts(
            one.subscription_id,
            PRODUCT,
            one.status,
            one.insync,
            None,
            tuple(alive[n].subscription_id for n in neighbours if not alive[n].insync),
            tuple(alive[n].subscription_id for n in users),
        )


NAMES = ["modify_node", "terminate_node", "validate_node"]
worlds = st.integers(1, 5).flatmap(
    lambda size: st.builds(
        World,
        st.lists(
            st.builds(One, st.uuids(), st.sampled_from(ALL_STATUSES), st.booleans()), min_size=size, max_size=size
        ),
        st.sets(st.tuples(st.integers(0, size - 1), st.integers(0, size - 1))),
    )
)
maps = st.builds(
    Rules,
    st.dictionaries(st.sampled_from(NAMES), st.lists(st.sampled_from(ALL_STATUSES))),
    st.dictionaries(st.sampled_from(NAMES), st.booleans()),
    st.lists(st.sampled_from(NAMES)),
)


def expected_keys(world: World, me: int, name: str, target: Target, is_task: bool, known: Rules) -> Iterator[str]:
    """The documentation's sentences, each written down as it stands there."""
    mine = world.subscriptions[me]
    using = {a for a, b in world.uses if b == me and a != me and world.subscriptions[a].status != "terminated"}
    being_used = {b for a, b in world.uses if a == me and b != me and world.subscriptions[b].status != "terminated"}
    # "only system workflows (tasks) are allowed to run on subscriptions that are not in sync", and those that are listed
    if not (is_task or target in {Target.SYSTEM, Target.VALIDATE, Target.RECONCILE}) and (
        name not in known.usable_while_out_of_sync
    ):
        if not mine.insync:
            yield "subscription.not_in_sync"
        if any(not world.subscriptions[n].insync for n in using | being_used):
            yield "subscription.relations_not_in_sync"
    # "can only be run on a subscription with a lifecycle state set to ACTIVE"; "terminate … in any lifecycle state unless
    # explicitly restricted in this map"
    if name in known.usable_map:
        allowed = mine.status in known.usable_map[name]
    else:
        allowed = target is Target.TERMINATE or mine.status == "active"
    if not allowed:
        yield "subscription.no_modify_invalid_status"
    # "only terminate workflows are prohibited from running on subscriptions with unterminated in_use_by subscriptions"
    prohibited = target is Target.TERMINATE
    if name in known.blocked_by_users:
        prohibited = known.blocked_by_users[name]
    if prohibited and using:
        yield "subscription.no_modify_subscription_in_use_by_others"


@given(
    worlds,
    st.sampled_from(NAMES),
    st.sampled_from([target for target in Target if target is not Target.CREATE]),
    st.booleans(),
    maps,
    st.data(),
)
def test_the_judgement_is_what_the_documentation_says(
    world: World, name: str, target: Target, is_task: bool, known: Rules, data: st.DataObject
) -> None:
    me = data.draw(st.integers(0, len(world.subscriptions) - 1))

    judged = usability(name, target, is_task, world.facts(me), known)

    assert [reason.key for reason in judged.reasons] == list(expected_keys(world, me, name, target, is_task, known))
    assert not (judged.dangerous and judged.reasons)
    if judged.dangerous:
        unlisted = Rules(known.usable_map, known.blocked_by_users)
        assert not usability(name, target, is_task, world.facts(me), unlisted).usable
