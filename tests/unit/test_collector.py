"""A test that runs a program in its own process leaves the garbage collector of the others alone."""

from __future__ import annotations

import gc
import weakref

from tests.collector import collector_as_before


class Knot:
    """An object that only the garbage collector frees."""

    def __init__(self) -> None:
        self.itself = self


def test_garbage_that_a_program_has_frozen_is_collected_again() -> None:
    before = gc.get_threshold()
    with collector_as_before():
        freed = weakref.ref(Knot())
        gc.freeze()
        gc.set_threshold(before[0] + 1)
        gc.collect()
        assert freed() is not None, "the program keeps it"
    assert gc.get_threshold() == before
    gc.collect()
    assert freed() is None


def test_each_test_begins_with_a_collector_of_its_own() -> None:
    assert gc.get_freeze_count() == 0
