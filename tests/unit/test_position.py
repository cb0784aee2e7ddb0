"""Positions in the log of all processes: nothing is read twice or left out, whatever commits when."""

from __future__ import annotations

import random
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.engine.position import MAX_TEXT, Place, Position, arrange

TXIDS = st.integers(1, 40)
POSITIONS = st.builds(
    lambda below, still_open: Position(below, tuple(sorted(one for one in still_open if one < below))),
    st.integers(1, 40),
    st.sets(TXIDS, max_size=6),
)


@given(POSITIONS)
def test_a_position_is_read_back_from_its_text(position: Position) -> None:
    assert Position.parse(str(position)) == position


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " ",
            "x",
            "-1",
            "1.",
            ".1",
            "1..2",
            "5.6",
            "5.0",
            "9.2.1",
            "9.2.2",
            "1\n",
            "1\x00",
            "1,2",
            "1e3",
            "٣",
            "1_000",
        ),
        *("9223372036854775808", "9" * 20, "1" * (MAX_TEXT + 1), "7." + "1." * MAX_TEXT + "1"),
    ],
)
def test_any_other_text_is_not_a_position(text: str) -> None:
    with pytest.raises(ValueError, match="not a position"):
        Position.parse(text)


def test_a_snapshot_of_the_database_is_a_position() -> None:
    position = Position.of_snapshot("10:20:10,14,15")
    assert position == Position(20, (10, 14, 15))
    assert str(position) == "20.5.6.10"
    assert Position.of_snapshot("7:7:") == Position(7)
    assert [one for one in range(9, 22) if position.covers(one)] == [9, 11, 12, 13, 16, 17, 18, 19]


@given(POSITIONS, st.data())
def test_to_advance_adds_what_the_later_position_has_up_to_a_transaction(start: Position, data: st.DataObject) -> None:
    closed = data.draw(st.sets(st.sampled_from(start.open)) if start.open else st.just(set()))
    below = data.draw(st.integers(start.below, 45))
    fresh = {one for one in data.draw(st.sets(TXIDS)) if start.below <= one < below}
    target = Position(below, tuple(sorted((set(start.open) - closed) | fresh)))
    upto = data.draw(st.integers(0, 50))
    reached = start.advance(upto, target)
    for txid in range(1, 50):
        assert reached.covers(txid) == (start.covers(txid) or (txid <= upto and target.covers(txid)))
    assert start.advance(100, target) == target


@given(st.lists(st.tuples(st.integers(0, 3), TXIDS), max_size=30), st.randoms(use_true_random=False))
def test_entries_are_in_the_order_of_each_log_and_positions_leave_nothing_out(
    stored: list[tuple[int, int]], chance: random.Random
) -> None:
    counts: dict[int, int] = {}
    places = []
    for process, txid in stored:
        counts[process] = counts.get(process, 0) + 1
        places.append(Place(UUID(int=process), counts[process], txid))
    chance.shuffle(places)
    arranged = arrange([(one, one) for one in places])
    assert sorted(map(repr, places)) == sorted(repr(one) for one, _ in arranged)
    seen: dict[UUID, int] = {}
    for number, (place, upto) in enumerate(arranged):
        assert place.sequence == seen.get(place.process_id, 0) + 1
        seen[place.process_id] = place.sequence
        assert all(later.txid > upto for later, _ in arranged[number + 1 :])
