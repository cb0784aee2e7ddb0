"""Suspects are tested by halves until each deadly one is alone."""

from __future__ import annotations

from math import ceil, log2

from hypothesis import given
from hypothesis import strategies as st

from consumers.halving import LARGEST_GROUP, Group, Halving


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1), max_size=20))))
def test_every_deadly_one_is_found_and_no_other_is_blamed(case: tuple[int, set[int]]) -> None:
    """Issue 9, 6b: after as many tests one after the other as the logarithm of their number."""
    number, deadly = case
    halving: Halving[int] = Halving()
    for suspect in range(number):
        halving.add(suspect)
    blamed: set[int] = set()
    cleared: set[int] = set()
    tests = 0
    while (group := halving.take()) is not None:
        tests += 1
        assert len(group.members) <= LARGEST_GROUP
        assert group.depth <= ceil(log2(min(number, LARGEST_GROUP))) if number > 1 else group.depth == 0
        if not deadly & set(group.members):
            cleared.update(group.members)
        elif len(group.members) == 1:
            blamed.update(group.members)
        else:
            halving.halve(group, group.members, took=1.0)
    assert blamed == deadly
    assert cleared == set(range(number)) - deadly
    groups = ceil(number / LARGEST_GROUP)
    assert tests <= groups + 2 * len(deadly) * ceil(log2(min(number, LARGEST_GROUP)) if number > 1 else 0)


def test_those_that_arrive_while_nothing_is_tested_are_tested_together() -> None:
    halving: Halving[str] = Halving()
    for name in "abc":
        halving.add(name)
    assert len(halving) == 1
    assert halving.take() == Group(("a", "b", "c"))
    assert halving.take() is None


def test_many_are_tested_in_groups_that_are_not_too_large() -> None:
    halving: Halving[int] = Halving()
    for number in range(2 * LARGEST_GROUP + 1):
        halving.add(number)
    assert len(halving) == 3
    assert [len(group.members) for _ in range(3) if (group := halving.take())] == [LARGEST_GROUP, LARGEST_GROUP, 1]
    assert len(halving) == 0


def test_halves_of_a_deadly_group_come_before_those_that_have_arrived_since() -> None:
    halving: Halving[str] = Halving()
    for name in "abc":
        halving.add(name)
    group = halving.take()
    assert group is not None
    halving.add("late")
    halving.halve(group, ["a", "c"], took=2.0)
    assert [halving.take() for _ in range(3)] == [Group(("a",), 1, 2.0), Group(("c",), 1, 2.0), Group(("late",))]


def test_one_whose_test_alone_was_deadly_is_tested_alone_again() -> None:
    halving: Halving[str] = Halving()
    halving.add("a")
    halving.add_alone("deadly")
    assert [halving.take(), halving.take()] == [Group(("deadly",)), Group(("a",))]


def test_one_that_was_aborted_waits_no_more() -> None:
    halving: Halving[str] = Halving()
    halving.halve(Group(("a", "b", "c")), "abc", took=1.0)
    halving.add("d")
    assert [halving.discard(name) for name in "abd"] == [True, True, True]
    assert not halving.discard("a")
    assert [halving.take(), halving.take()] == [Group(("c",), 1, 1.0), None]
